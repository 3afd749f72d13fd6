"""The commands of `sact-tf` as `python -m tools.<name>`, from a checkout."""

import os
import runpy

# Before anything imports TensorFlow: its greetings are no news.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def run(name: str) -> None:
    """Runs a command as the program that it is."""
    runpy.run_module(f"sact_tf.cli.{name}", run_name="__main__", alter_sys=True)
