"""The commands of `sact-tf` as `python -m tools.<name>`, from a checkout."""

import runpy

from sact_tf_command import be_quiet

be_quiet()


def run(name: str) -> None:
    """Runs a command as the program that it is."""
    runpy.run_module(f"sact_tf.cli.{name}", run_name="__main__", alter_sys=True)
