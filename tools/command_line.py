"""What all command lines share: flags, and what is wrong in one line."""

import argparse
import re
import sys
from collections.abc import Callable

import tensorflow as tf


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for `python -m tools.<name>` that shows the description as written."""
    return argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], None]) -> None:
    """Runs a tool; what is wrong with its input ends it with one line, not a traceback.

    Exit codes: 2 for bad input, 130 when interrupted.
    """
    try:
        main()
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
        text = str(error)
        if isinstance(error, tf.errors.OpError):
            # What follows is where in the graph, or a traceback; before it, which node.
            text = re.sub(r"\{\{.*?\}\}", "", error.message).strip().partition("\n")[0]
        text = " ".join(text.split())
        print(f"error: {text or type(error).__name__}", file=sys.stderr)
        sys.exit(2)
