import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from sact_tf import folders
from sact_tf.cli import command_line
from tests.test_errors import SENTENCE, failing, numbers, summed


def ended(main, capsys, **options):
    """Exit code, and the lines of standard error, of a tool."""
    with pytest.raises(SystemExit) as exit:
        command_line.run(main, **options)
    return exit.value.code, capsys.readouterr().err.splitlines()


def refusing():
    raise ValueError("--size must be 1 or more. Received: 0")


def reading():
    pathlib.Path("/nowhere/at/all").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("main", "words"),
    [(refusing, "--size must be 1"), (reading, "/nowhere/at/all")],
)
def test_what_is_wrong_with_the_input_is_one_line(main, words, capsys, tmp_path):
    code, (line,) = ended(main, capsys, log_folder=tmp_path)
    assert code == 2 and line.startswith("error: ") and words in line
    assert not list(tmp_path.iterdir())


def test_a_check_of_the_packages_own(tmp_path, capsys):
    (tmp_path / "a").write_text("")
    code, (line,) = ended(lambda: folders.claim(tmp_path, "b", {}, "demo"), capsys)
    assert code == 2 and line.endswith("holds no demo. Give another output folder")


def test_what_tensorflow_says_is_its_cause_and_a_log(tmp_path, capsys):
    def main():
        summed(numbers().map(failing))

    code, lines = ended(main, capsys, log_folder=tmp_path)
    (log,) = tmp_path.iterdir()
    assert code == 2
    assert lines[-1] == f"error: {SENTENCE}. The whole error is in {log}"
    text = log.read_text()
    assert "Graph execution error:" in text and "test_command_line.py" in text


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (lambda: len(3), "unexpected TypeError in tools/test_command_line.py, line"),
        (lambda: int("three"), "unexpected ValueError in tools/test_command_line.py"),
        (lambda: np.zeros(2).reshape(3), "unexpected ValueError"),
        (lambda: json.loads("{"), "unexpected JSONDecodeError in json/decoder.py"),
        (lambda: {}["key"], "unexpected KeyError"),
    ],
)
def test_what_nobody_expected_says_where_and_is_kept(main, words, capsys, tmp_path):
    code, (line,) = ended(main, capsys, log_folder=tmp_path)
    (log,) = tmp_path.iterdir()
    assert code == 1 and words in line and str(log) in line
    assert "Traceback" in log.read_text()


def test_a_log_where_the_folder_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command_line.tempfile, "gettempdir", lambda: str(tmp_path))
    _, (line,) = ended(lambda: len(3), capsys, log_folder=tmp_path / "none")
    (log,) = tmp_path.iterdir()
    assert line.endswith(f"The whole error is in {log}")


@pytest.mark.parametrize("main", [refusing, lambda: len(3)])
def test_the_traceback_is_shown_when_asked_for(main, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SACT_TF_TRACEBACK", "1")
    _, lines = ended(main, capsys, log_folder=tmp_path)
    assert lines[0].startswith("Traceback") and lines[-1].startswith("error: ")


def test_errors_of_tensorflow_with_nothing_to_say(tmp_path, capsys):
    def main():
        raise tf.errors.InternalError(None, None, "")

    code, lines = ended(main, capsys, log_folder=tmp_path)
    assert code == 2 and lines[-1].startswith("error: InternalError. The whole")
