"""What all command lines share: what is wrong with the input, in one line."""

import sys
from collections.abc import Callable

import tensorflow as tf


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
        text = " ".join(str(error).split())
        print(f"error: {text or type(error).__name__}", file=sys.stderr)
        sys.exit(2)
