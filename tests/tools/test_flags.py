"""Flags: one spelling, one meaning, and old ones go on."""

import argparse
import pathlib
import subprocess

import pytest

import sact_tf_command
from sact_tf.cli import command_line, completion, flags

#: The Model Garden's flags, and parsers that are not of the frame yet.
OTHERS = {"train", "gpu-check"}
COMMANDS = {
    name: command_line.find(name.replace("-", "_"))
    for name in sact_tf_command.commands()
    if name not in OTHERS
}


def actions(name):
    return [a for a in COMMANDS[name].parser()._actions if a.option_strings]


@pytest.fixture
def parser():
    made = flags.Parser(prog="tool")
    made.add_argument("--image_size", type=int)
    made.add_argument("rest", nargs="*")
    made.renamed(size="image_size")
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        ["--image_size", "3"],
        ["--image-size=3"],
        ["--size", "3"],
        ["--size=3"],
        ["--image", "3"],
    ],
)
def test_all_spellings_parse(parser, arguments):
    assert parser.parse_args(arguments) == argparse.Namespace(image_size=3, rest=[])


def test_what_belongs_to_others_is_left_alone(parser):
    given = parser.parse_args(["--image-size", "3", "--", "--size", "--a-b=c-d"])
    assert given.rest == ["--size", "--a-b=c-d"]
    assert parser.parse_known_args(["--other-flag=1"])[1] == ["--other-flag=1"]
    assert "--size" not in parser.format_help()


def test_old_names_must_lead_somewhere(parser):
    for names in ({"a": "b"}, {"image_size": "image_size"}):
        with pytest.raises(ValueError, match="cannot be"):
            parser.renamed(**names)


def test_subcommands_take_both_spellings():
    parser = flags.Parser(prog="tool")
    parts = parser.add_subparsers(dest="what")
    parts.add_parser("one").add_argument("--batch_size", type=int, choices=[1, 2])
    given = parser.parse_args(["one", "--batch-size", "2"])
    assert given.batch_size == 2
    assert parser.choices() == {"--batch_size": ["1", "2"]}
    assert "--batch_size" in list(parser.spellings())


@pytest.mark.parametrize(
    ("given", "units"),
    [(["50"], 50), (["3,4,6,3"], [3, 4, 6, 3]), (["3", "4", "6"], [3, 4, 6])],
)
def test_units(given, units):
    parser = flags.Parser(prog="tool")
    flags.add_units(parser)
    assert parser.parse_args(["--units", *given]).units == units


def test_units_that_are_none(capsys):
    parser = flags.Parser(prog="tool")
    flags.add_units(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--units", "many"])
    assert "numbers are expected" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_spelt_with_underscores(name):
    command = COMMANDS[name]
    assert command.name == name.replace("-", "_")
    for action in actions(name):
        for flag in action.option_strings:
            # argparse makes --no-x of a switch that is on by default.
            rest = flag.removeprefix("--no-").lstrip("-")
            assert "-" not in rest, f"{name} {flag}"
    assert any("--json" in action.option_strings for action in actions(name))
    assert command.parser().description == command.description


def test_a_flag_is_the_same_kind_of_thing_everywhere():
    kinds = {}
    for name in COMMANDS:
        for action in actions(name):
            kind = action.type or (bool if action.nargs == 0 else str)
            kind = str if kind is pathlib.Path else kind
            kinds.setdefault(action.option_strings[-1], {}).setdefault(kind, name)
    # Sides of a square, or of what the paper's detector takes.
    kinds.pop("--image_size")
    assert not {flag: found for flag, found in kinds.items() if len(found) > 1}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("evaluate-saliency", "--data", "data_dir"),
        ("evaluate-saliency", "--size", "box"),
        ("evaluate-saliency", "--workers", "threads"),
        ("benchmark-saliency", "--size", "box"),
        ("benchmark-saliency", "--map-size", "map_box"),
        ("benchmark-saliency", "--workers", "threads"),
        ("evaluate-detection", "--time_images", "timed_images"),
        ("fixed-camera", "--reference", "reference_frame"),
        ("fixed-camera", "--tile", "tile_size"),
        ("matched-baseline", "--source", "initialize_from"),
        ("serving-client", "--model", "name"),
        ("serving-load", "--model", "name"),
    ],
)
def test_old_names_of_flags_go_on(name, old, new):
    parser = COMMANDS[name].parser()
    assert parser._renamed[old.lstrip("-").replace("-", "_")] == new
    (action,) = [a for a in parser._actions if a.dest == new]
    value = action.choices[-1] if action.choices else "7"
    required = [a for a in parser._actions if a.required and a.dest != new]
    others = []
    for one in required:
        others += [*one.option_strings[:1], one.choices[0] if one.choices else "x"]
    given = parser.parse_args([*others, old, str(value)])
    assert getattr(given, new) not in (None, action.default)


def test_units_of_the_frame(monkeypatch, capsys):
    def add(parser):
        parser.add_argument("--fail", action="store_true")

    def run(given):
        print("progress")
        failed = "one of two is missing" if given.fail else None
        return command_line.Partly({"a": [1]}, failed)

    command = command_line.Command("x", "What.", add, run, lambda r, f: f"has {r}")
    monkeypatch.setattr("sys.argv", ["x"])
    command()
    assert capsys.readouterr().out == "progress\nhas {'a': [1]}\n"
    monkeypatch.setattr("sys.argv", ["x", "--json", "--fail"])
    with pytest.raises(ValueError, match="one of two is missing"):
        command()
    captured = capsys.readouterr()
    assert captured.out == '{\n "a": [\n  1\n ]\n}\n' and captured.err == "progress\n"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "sact-tf"
    result = completion.run(argparse.Namespace(shell="bash"))
    path.write_text(completion.show(result, None))
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ponder"], ["ponder-maps"]),
        (["ponder-maps", "--lon"], ["--longer_side"]),
        (["ponder_maps", "--scale", "co"], ["common"]),
        (["train-folder", "--adaptivity", ""], ["sact", "act", "none"]),
        (["train", "--mo"], []),
    ],
)
def test_completion_in_a_shell(script, words, expected):
    given = " ".join(f"'{word}'" for word in ["sact-tf", *words])
    program = (
        f"source {script}; COMP_WORDS=({given}); COMP_CWORD={len(words)}; _sact_tf; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, check=True
    )
    assert not done.stderr
    assert done.stdout.split() == expected


def test_completion_for_zsh_is_the_same_script(script):
    text = completion.run(argparse.Namespace(shell="zsh"))["script"]
    assert text.startswith("autoload") and text.rstrip().endswith(
        script.read_text().rstrip()
    )
