import pathlib
import runpy
import subprocess
import sys

import pytest

import sact_tf_command

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def command(monkeypatch, capsys):
    """Calls `sact-tf`; exit code, output, errors, and what would have run."""

    def call(*arguments):
        ran = []

        def run(module, **options):
            ran.append((module, list(sys.argv)))

        monkeypatch.setattr(runpy, "run_module", run)
        monkeypatch.setenv("SACT_TF_CALLED", "")  # To be forgotten after the test.
        monkeypatch.setattr(sys, "argv", ["sact-tf", *arguments])
        code = 0
        try:
            sact_tf_command.main()
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr(), ran

    return call


def test_help_lists_all_commands(command):
    code, out, _, ran = command("--help")
    assert code == 0 and not ran
    found = sact_tf_command.commands()
    for name, line in found.items():
        assert f"  {name} " in out and line and line in out
    assert {name for group in sact_tf_command.GROUPS.values() for name in group} <= (
        found.keys()
    )


def test_every_command_is_a_tool_and_has_a_main():
    shims = {path.stem for path in (ROOT / "tools").glob("*.py")} - {"__init__"}
    names = {name.replace("-", "_") for name in sact_tf_command.commands()}
    assert shims == names
    for name in names:
        text = (ROOT / "tools" / f"{name}.py").read_text()
        assert f'run("{name}")' in text and f"tools.{name}" in text


def test_runs_what_is_named(command):
    expected = ("sact_tf.cli.ponder_maps", ["sact-tf ponder-maps", "--model", "x"])
    for name in ("ponder-maps", "ponder_maps"):
        code, _, _, ran = command(name, "--model", "x")
        assert code == 0 and ran == [expected]


def test_unknown_commands(command):
    code, _, err, ran = command("evalute")
    assert code == 2 and not ran
    assert "no command evalute. Did you mean evaluate?" in err


def test_both_ways_in_earnest(tmp_path):
    for program in (
        ["sact_tf_command", "export-checkpoint"],
        ["tools.matched_baseline"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *program, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        name = program[-1]
        called = f"python -m {name}" if "tools" in name else f"sact-tf {name}"
        assert done.stdout.startswith(f"usage: {called} ")
