"""`sact-tf <command>`: finds the command, and runs it.

A module beside the package, because the package imports TensorFlow: a list of commands
should not take seconds, and TensorFlow is told to be quiet before it is imported.
"""

import ast
import difflib
import importlib.util
import os
import pathlib
import runpy
import sys

#: Commands by what they are for; those that are not named here are listed last.
GROUPS = {
    "Train": (
        "train-folder",
        "train",
        "train-cifar",
        "matched-baseline",
        "compare-runs",
        "launch-local",
    ),
    "Evaluate": ("evaluate", "evaluate-detection", "evaluate-saliency", "compare"),
    "Use": ("live", "detect", "ponder-maps", "fixed-camera"),
    "Serve": ("export-saved-model", "serving-client", "serving-load"),
    "Weights and data": ("import-checkpoint", "export-checkpoint", "coco-to-tfrecord"),
    "Demos": ("demo", "demo-detection"),
    "The command line itself": ("completion",),
}
_NO_COMMANDS = ("command_line", "flags", "networks")


def main() -> None:
    """Runs the command that the first argument names, with all others."""
    be_quiet()
    found = commands()
    given = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if given in ("-h", "--help", "help"):
        print(_help(found))
        return
    name = given.replace("_", "-")
    if name not in found:
        close = difflib.get_close_matches(name, found, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(
            f"error: sact-tf has no command {given}.{hint} sact-tf --help lists them.",
            file=sys.stderr,
        )
        sys.exit(2)
    module = f"sact_tf.cli.{name.replace('-', '_')}"
    sys.argv = [f"sact-tf {name}", *sys.argv[2:]]
    # The first argument will be the module's file.
    os.environ["SACT_TF_CALLED"] = sys.argv[0]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def be_quiet() -> None:
    """Tells TensorFlow, before it is imported, to keep its greetings to itself.

    Without a GPU its errors, too: the first is that there is no GPU, and what stops a
    command is an exception, which is shown.
    """
    cards = [*pathlib.Path("/dev").glob("nvidia*"), *pathlib.Path("/dev").glob("dxg")]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if cards else "3")


def commands() -> dict[str, str]:
    """All commands, and a line about each."""
    # Without importing the package.
    spec = importlib.util.find_spec("sact_tf")
    folder = pathlib.Path(next(iter(spec.submodule_search_locations))) / "cli"
    files = {path.stem: path for path in folder.glob("*.py")}
    files |= {path.parent.name: path for path in folder.glob("*/__main__.py")}
    return {
        name.replace("_", "-"): _first_line(path)
        for name, path in sorted(files.items())
        if not name.startswith("_") and name not in _NO_COMMANDS
    }


def _first_line(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return text.partition("\n")[0]


def _help(found):
    named = {name for group in GROUPS.values() for name in group}
    groups = {**GROUPS, "Measure": tuple(name for name in found if name not in named)}
    lines = [
        "usage: sact-tf COMMAND [FLAGS]",
        "",
        "Spatially Adaptive Computation Time for residual networks. `sact-tf COMMAND",
        "--help` says what a command takes.",
    ]
    width = max(map(len, found))
    for title, names in groups.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<{width}}  {found[name]}" for name in names]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
