"""The documents' examples fit the code: commands parse, Python compiles and runs."""

import ast
import contextlib
import inspect
import itertools
import pathlib
import re
import shlex

import pytest
from absl import flags
from absl.testing import flagsaver
from official.common import flags as garden_flags
from PIL import Image

import sact_tf
import sact_tf_command
from sact_tf.cli import command_line, train
from sact_tf.cli.gpu_check import __main__ as gpu_check

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "development" not in path.parts  # Of earlier days, as it was.
]
EXAMPLES = [
    pytest.param(code, id=f"{path.name}-{number}")
    for path in DOCUMENTS
    for number, code in enumerate(
        re.findall(
            r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S
        )
    )
]
#: Not of the frame: they parse in their main.
MAINS = {"gpu-check": gpu_check.main}


def whole_lines(block):
    """Lines of a block; what is in quotes may be several."""
    whole = ""
    for line in block.splitlines():
        whole += line
        if whole.count("'") % 2 and "sact-tf" in whole:
            whole += "\n"
            continue
        yield whole
        whole = ""


def commands_of(text):
    """Command lines of a document: words, and whether they are all of the line.

    Lines of blocks are whole; in the text there may be parts of one.
    """
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [
        (line, True)
        for block in blocks
        for line in whole_lines(re.sub(r"\\\n", "", block))
        if re.search(r"(?:^|[\s;])(?:sact-tf [a-z]|python -m tools\.)", line)
        # Text of a drawing or of an output, rather than a command.
        and not re.match(r"\s*(?:#|To )", line)
    ]
    # One that has a flag is meant to be typed; the others are names.
    lines += [
        (" ".join(code.split()), False)
        for code in re.findall(r"`((?:sact-tf|python -m tools\.)[^`]* --[^`]*)`", prose)
        if "..." not in code and "COMMAND" not in code
    ]
    for line, whole in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
        start = next(
            index
            for index, word in enumerate(words)
            if word == "sact-tf" or word.startswith("tools.")
        )
        name = words[start].removeprefix("tools.").replace("_", "-")
        rest = itertools.takewhile(
            lambda w: not set(w) <= set(";&|<>()"), words[start:]
        )
        arguments = list(rest)[1:]
        yield (arguments if name == "sact-tf" else [name, *arguments]), whole


def files_of(text):
    """Files that a document tells to write, by name: YAML after a paragraph with it."""
    found = re.findall(
        r"`(\w+\.yaml)`(?:(?!\n\n).)*\n\n```yaml\n(.*?)^```", text, re.M | re.S
    )
    return dict(found)


COMMANDS = [
    pytest.param(path, words, whole, id=f"{path.name}-{number}-{words[0]}")
    for path in DOCUMENTS
    for number, (words, whole) in enumerate(
        commands_of(path.read_text(encoding="utf-8"))
    )
]


def parse(words, whole=True):
    """Parses a command line; what is wrong ends with SystemExit or an error."""
    name, *arguments = words
    if name == "--help":
        return
    assert name in sact_tf_command.commands(), f"there is no command {name}"
    if name == "train":
        parse_train(arguments)
    elif name in MAINS:
        parse_in_main(MAINS[name], arguments)
    else:
        parser = command_line.find(name.replace("-", "_")).parser()
        for action in [] if whole else parser._actions:
            action.required = False
            action.nargs = action.nargs if action.option_strings else "*"
        given = parser.parse_args(arguments)
        if name == "launch-local":
            inner = given.command[given.command.index("sact-tf") + 1 :]
            parse(inner)


class _ParsedError(Exception):
    pass


def parse_in_main(main, arguments):
    """Runs a main until its flags are parsed."""

    def parsed(self, args=None, namespace=None):
        original(self, arguments, namespace)
        raise _ParsedError

    with pytest.MonkeyPatch.context() as patch:
        kind = command_line.flags_library.Parser
        original = kind.parse_args
        patch.setattr(kind, "parse_args", parsed)
        with pytest.raises(_ParsedError):
            main()


def parse_train(arguments):
    """Parses the trainer's flags and the experiment that they describe."""
    if "experiment" not in flags.FLAGS:
        garden_flags.define_flags()
    # Placeholders of scripts around the command.
    arguments = [re.sub(r"\$\{?\w+\}?", "0.05", word) for word in arguments]
    with flagsaver.flagsaver():
        flags.FLAGS(["train", *arguments])
        train._experiment()


@pytest.mark.parametrize(("path", "words", "whole"), COMMANDS)
def test_command_lines_parse(path, words, whole, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ROOT.glob("*_configs"):
        (tmp_path / folder.name).symlink_to(folder)
    for name, content in files_of(path.read_text(encoding="utf-8")).items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    try:
        parse(words, whole)
    except SystemExit:
        pytest.fail(f"sact-tf {shlex.join(words)}: {capsys.readouterr().err}")


@pytest.mark.parametrize(
    "words",
    [
        ["ponder-maps", "photographs"],
        ["evaluate", "--model", "x", "--sizes", "3"],
        ["benchmark", "everything"],
        ["train", "--experiment=nothing", "--mode=train", "--model_dir=x"],
        ["launch-local", "--", "sact-tf", "train", "--experiment=nothing"],
    ],
)
def test_what_does_not_parse_is_seen(words, capsys):
    with pytest.raises((SystemExit, ValueError, flags.Error)):
        parse(words)


def test_commands_and_examples_are_found():
    assert len(EXAMPLES) > 5 and len(COMMANDS) > 30
    text = """
Say `sact-tf evaluate --model x`, but `sact-tf evaluate` is a name.

```sh
sact-tf ponder-maps --model x \\
    --output y  # draws
for p in a b; do python -m tools.detect --model $p z; done
```
"""
    assert list(commands_of(text)) == [
        (["ponder-maps", "--model", "x", "--output", "y"], True),
        (["detect", "--model", "$p", "z"], True),
        (["evaluate", "--model", "x"], False),
    ]


@pytest.mark.parametrize("code", EXAMPLES)
def test_names_and_arguments_are_there(code):
    tree = ast.parse(code)
    imports = [
        node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {"sact_tf": sact_tf}
    exec(compile(ast.Module(imports, []), "imports", "exec"), names)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        root = call.func
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or root.id not in names:
            continue
        called = eval(ast.unparse(call.func), names)
        if not getattr(called, "__module__", "").startswith("sact_tf"):
            continue
        inspect.signature(called).bind(
            *call.args, **{keyword.arg: keyword.value for keyword in call.keywords}
        )
        if called is sact_tf.ResNet:
            with contextlib.suppress(NameError):  # Names that the text explains.
                eval(ast.unparse(call), names)


#: Numbers that take minutes, and small ones in their place.
_SMALL = {
    "epochs": "1",
    "steps_per_epoch": "1",
    "batch_size": "2",
    "image_size": "32",
    "base_channels": "2",
    "units": "(1, 1, 1, 1)",
}


@pytest.mark.parametrize("name", ["README.md", "docs/train_classifier.md"])
def test_the_first_examples_run(name, tmp_path, monkeypatch):
    for part, number in itertools.product(("train", "val"), range(4)):
        folder = tmp_path / "photos" / part / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (60 * number,) * 3).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / name).read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    for argument, value in _SMALL.items():
        code = re.sub(rf"\b{argument}=(\d+|\([\d, ]+\))", f"{argument}={value}", code)
    exec(compile(code, name, "exec"), {})
    assert [path.suffix for path in tmp_path.glob("*.keras")] == [".keras"]
