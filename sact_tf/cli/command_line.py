"""What all command lines share: flags, and what is wrong in one line."""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable

import tensorflow as tf

from sact_tf import errors

#: Whether the tool that runs goes on where it is interrupted: not empty then.
_kept: list[bool] = []


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for a command that shows the description as written."""
    # As it was called, which is no news to programs that it starts.
    called = os.environ.pop("SACT_TF_CALLED", f"python -m tools.{name}")
    return argparse.ArgumentParser(
        prog=called,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run_demo(
    name: str,
    description: str,
    output: str,
    demo: Callable[[pathlib.Path, bool], dict],
) -> None:
    """The command line of a demo.

    Args:
      name: of the tool.
      description: of the tool.
      output: the folder it writes into, if none is given.
      demo: takes the folder, and whether it is to take seconds instead of minutes;
        returns what --json prints.
    """
    flags_of = parser(name, description)
    flags_of.add_argument(
        "--output", type=pathlib.Path, default=output, help="output folder"
    )
    flags_of.add_argument(
        "--quick",
        action="store_true",
        help="seconds instead of minutes; the numbers mean nothing",
    )
    flags_of.add_argument(
        "--json", action="store_true", help="print the result as JSON"
    )
    flags = flags_of.parse_args()
    goes_on()
    # With --json, standard output is for machines, and progress goes elsewhere.
    with contextlib.redirect_stdout(sys.stderr if flags.json else sys.stdout):
        result = demo(flags.output, flags.quick)
    if flags.json:
        print(json.dumps(result, indent=1))


def require_at_least(flags: argparse.Namespace, **least: int) -> None:
    """Refuses numbers that are too small.

    Args:
      flags: of the command; those that are not given (None) are let be.
      least: the least value of each flag, by its name.

    Raises:
      ValueError: one is smaller.
    """
    for name, bound in least.items():
        given = getattr(flags, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < bound:
                raise ValueError(
                    f"--{name} must be at least {bound}. Received: {value}"
                )


def goes_on() -> None:
    """Declares that the same command goes on, should it be interrupted from now on."""
    _kept.append(True)


def run(main: Callable[[], None], log_folder: str | os.PathLike | None = None) -> None:
    """Runs a tool; what goes wrong ends it with one line, not a traceback.

    What a check of ours says, or the system of a file, is the line as it is. Of what
    TensorFlow says the line is the cause, and of anything else, which may be a fault
    of the program, type and place; the whole error is then in a file that the line
    names. With SACT_TF_TRACEBACK=1 in the environment, the traceback is printed, too.

    Exit codes: 2 for bad input, 1 for what was not expected, 130 when interrupted.

    Args:
      main: the tool.
      log_folder: where to write whole errors; the system's folder for temporary files
        by default, or if that cannot be written to.
    """
    _kept.clear()
    try:
        main()
    except KeyboardInterrupt:
        advice = " The same command goes on from here." if _kept else ""
        print(f"\nInterrupted.{advice}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if os.environ.get("SACT_TF_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exception(error)
        text, code = errors.cause(error), 2
        if not _is_said_by_a_check(error):
            if not isinstance(error, tf.errors.OpError):
                text, code = f"unexpected {_with_place(error, text)}", 1
            ending = "" if text.endswith((".", "!", ")")) else "."
            text += f"{ending} The whole error is in {_log(error, log_folder)}"
        print(f"error: {text}", file=sys.stderr)
        sys.exit(code)


def _is_said_by_a_check(error):
    """Whether a message is for whoever gave the input.

    It is if it comes from the system, or was raised on purpose by this project, what
    uses it, or the Model Garden. Errors that other libraries raise, or an expression,
    should have been foreseen.
    """
    if isinstance(error, OSError):
        return True
    if not isinstance(error, ValueError | RuntimeError):
        return False
    frame = traceback.extract_tb(error.__traceback__)[-1]
    folders = set(pathlib.Path(frame.filename).parents)
    if folders.isdisjoint(_checking_folders()) and folders & _LIBRARIES:
        return False
    return (frame.line or "raise").startswith("raise")


_LIBRARIES = {
    pathlib.Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")
}


def _checking_folders():
    """Of packages whose errors are for users."""
    specs = [
        importlib.util.find_spec(name) for name in ("sact_tf", "official", "orbit")
    ]
    places = [pathlib.Path(p) for s in specs for p in s.submodule_search_locations]
    return {pathlib.Path(__file__).parent, *places}


def _with_place(error, text):
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = "/".join(pathlib.Path(frame.filename).parts[-2:])
    return f"{type(error).__name__} in {place}, line {frame.lineno}: {text}"


def _log(error, folder):
    """Writes the whole error to a new file, and returns its path."""
    words = [f"{sys.executable} {' '.join(sys.argv)}\n"]
    words += [f"TensorFlow {tf.__version__}, Python {sys.version}\n\n"]
    words += traceback.format_exception(error)
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for place in (folder, tempfile.gettempdir()):
        if not place or not tf.io.gfile.isdir(os.fspath(place)):
            continue
        path = os.path.join(place, name)
        with contextlib.suppress(OSError, tf.errors.OpError):
            with tf.io.gfile.GFile(path, "w") as file:
                file.write("".join(words))
            return path
    return "no file: there is no folder to write to"
