"""What all command lines share: flags, and what is wrong in one line."""

import argparse
import contextlib
import dataclasses
import importlib
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
from typing import Any, NamedTuple

import tensorflow as tf

from sact_tf import errors
from sact_tf.cli import flags as flags_library

#: Whether the tool that runs goes on where it is interrupted: not empty then.
_kept: list[bool] = []
#: Whether it was called as `sact-tf`: not empty then.
_by_one_word: list[bool] = []


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: what it takes, what it does, and what it says.

    ```python
    COMMAND = command_line.Command("count", __doc__, add_flags, run, show)

    if __name__ == "__main__":
        COMMAND.main()
    ```

    The frame adds --json, and prints the result, as JSON or as `show` has it. With
    --json, standard output is for machines: whatever else is printed, progress too,
    goes to standard error.

    Attributes:
      name: of the command, with underscores.
      description: its first line is what `sact-tf --help` says of it.
      add_flags: adds its flags to a parser.
      run: does it; takes the flags, and returns what there is to know, for JSON.
      show: text for people out of what `run` has returned, and the flags.
      json_help: of --json.
    """

    name: str
    description: str
    add_flags: Callable[[flags_library.Parser], None]
    run: Callable[[argparse.Namespace], Any]
    show: Callable[[Any, argparse.Namespace], str]
    json_help: str = "print the result as JSON"

    def parser(self) -> flags_library.Parser:
        """The parser of its flags."""
        flags_of = parser(self.name, self.description)
        self.add_flags(flags_of)
        flags_of.add_argument("--json", action="store_true", help=self.json_help)
        return flags_of

    def __call__(self) -> None:
        """Does what the arguments of the program say; errors are raised.

        Of what is there `Partly`, the rest is the error.
        """
        flags = self.parser().parse_args()
        with contextlib.redirect_stdout(sys.stderr if flags.json else sys.stdout):
            result = self.run(flags)
        failed = None
        if isinstance(result, Partly):
            result, failed = result
        text = None if flags.json else self.show(result, flags)
        print(json.dumps(result, indent=1) if text is None else text)
        if failed:
            raise ValueError(failed)

    def main(self) -> None:
        """The program."""
        run(self)


class Partly(NamedTuple):
    """A result of which a part is missing.

    Attributes:
      result: what there is, which is shown.
      failed: what is not there, and why: the error that the command ends with.
    """

    result: Any
    failed: str | None


def find(name: str) -> Command:
    """A command of this frame.

    Args:
      name: with underscores.

    Raises:
      ImportError: there is none, or what it needs is not installed.
      AttributeError: it is none of this frame: the Model Garden's trainer has flags of
        its own.
    """
    module = importlib.import_module(f"sact_tf.cli.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"sact_tf.cli.{name}.__main__")
    return module.COMMAND


def partly(result: dict, count: int) -> Partly:
    """A result of which some images are missing.

    Args:
      result: with the images that could not be used as "failed".
      count: of all images.
    """
    failed = len(result["failed"])
    text = f"{failed} of {count} images could not be used, see above"
    return Partly(result, text if failed else None)


def parser(name: str, description: str) -> flags_library.Parser:
    """A parser for a command that shows the description as written."""
    # As it was called, which is no news to programs that it starts.
    by_one_word = os.environ.pop("SACT_TF_CALLED", "")
    if by_one_word:
        _by_one_word.append(True)
    return flags_library.Parser(
        prog=by_one_word or called(name), description=description
    )


def called(name: str) -> str:
    """A command, with underscores in its name, as whoever called this one types it."""
    if _by_one_word:
        return f"sact-tf {name.replace('_', '-')}"
    return f"python -m tools.{name}"


def demo(
    name: str,
    description: str,
    output: str,
    run: Callable[[argparse.Namespace], dict],
    show: Callable[[dict, argparse.Namespace], str],
) -> Command:
    """The command of a demo, which has an output folder and may be --quick.

    Args:
      name: of the command.
      description: of the command.
      output: the folder it writes into, if none is given.
      run: see `Command`.
      show: see `Command`.
    """

    def add_flags(parser):
        parser.add_argument(
            "--output", type=pathlib.Path, default=output, help="output folder"
        )
        parser.add_argument(
            "--quick",
            action="store_true",
            help="seconds instead of minutes; the numbers mean nothing",
        )

    def run_it(flags):
        goes_on()
        return run(flags)

    return Command(name, description, add_flags, run_it, show)


def require_at_least(flags: argparse.Namespace, **least: int) -> None:
    """Refuses numbers that are too small.

    Args:
      flags: of the command; those that are not given (None) are let be.
      least: the least value of each flag, by its name.

    Raises:
      ValueError: one is smaller.
    """
    for name, bound in least.items():
        value = getattr(flags, name)
        for number in value if isinstance(value, list | tuple) else [value]:
            if number is not None and number < bound:
                raise ValueError(
                    f"--{name} must be at least {bound}. Received: {number}"
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
