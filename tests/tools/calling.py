"""Command lines, called in this process: starting Python and TensorFlow takes long."""

import sys

from sact_tf.cli import command_line


def call(monkeypatch, capsys, tool, *arguments):
    """Runs a tool's main as its command line would; (exit code, output, errors)."""
    name = tool.__name__.rpartition(".")[2]
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    code = 0
    try:
        command_line.run(getattr(tool, "COMMAND", None) or tool.main)
    except SystemExit as exit:
        code = exit.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err
