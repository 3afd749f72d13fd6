"""What all command lines share: flags, and what is wrong in one line."""

import argparse
import contextlib
import json
import pathlib
import re
import sys
from collections.abc import Callable

import tensorflow as tf

#: Whether the tool that runs goes on where it is interrupted: not empty then.
_kept: list[bool] = []


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for `python -m tools.<name>` that shows the description as written."""
    return argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
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


def goes_on() -> None:
    """Declares that the same command goes on, should it be interrupted from now on."""
    _kept.append(True)


def run(main: Callable[[], None]) -> None:
    """Runs a tool; what is wrong with its input ends it with one line, not a traceback.

    Exit codes: 2 for bad input, 130 when interrupted.
    """
    _kept.clear()
    try:
        main()
    except KeyboardInterrupt:
        advice = " The same command goes on from here." if _kept else ""
        print(f"\nInterrupted.{advice}", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
        text = str(error)
        if isinstance(error, tf.errors.OpError):
            # What follows is where in the graph, or a traceback; before it, which node.
            text = re.sub(r"\{\{.*?\}\}", "", error.message).strip().partition("\n")[0]
        text = " ".join(text.split())
        print(f"error: {text or type(error).__name__}", file=sys.stderr)
        sys.exit(2)
