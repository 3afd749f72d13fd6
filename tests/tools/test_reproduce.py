import json
import pathlib
import shutil
import sys

import numpy as np
import pytest

from sact_tf.cli.reproduce import __main__ as reproduce
from sact_tf.cli.reproduce import cifar10
from sact_tf.cli.reproduce.pages import Page
from sact_tf.cli.reproduce.runs import Runs, packed, unpacked


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce", *map(str, arguments)])
    reproduce.COMMAND()
    return capsys.readouterr()


def known(accuracy, flops, units, std=0.0, count=1000):
    right = np.arange(count) < round(accuracy * count)
    return {
        "name": "network",
        "accuracy": accuracy,
        "recall_at_5": 1.0,
        "flops": flops,
        "flops_std": std,
        "units": units,
        "units_std": [std] * 3,
        "ponder_cost": 9.0,
        "num_images": count,
        "images_per_second": None,
        "right": packed(right),
        "command": "sact-tf train-cifar",
        "seconds": 600.0,
        "date": "2026-11-28",
        "machine": "2 cores",
    }


def test_answers_go_there_and_back():
    right = np.random.default_rng(0).random(1001) < 0.7
    np.testing.assert_array_equal(unpacked(packed(right), 1001), right)


def test_a_run_is_run_once(tmp_path):
    runs = Runs("question", tmp_path / "runs", tmp_path / "results")
    measured = []

    def measure(folder):
        measured.append(folder)
        return {"accuracy": 0.5}

    command = ["completion", "bash"]
    first = runs.run("one", command, measure)
    assert first["accuracy"] == 0.5 and first["command"] == "sact-tf completion bash"
    assert first["seconds"] > 0 and "cores" in first["machine"]
    assert "complete" in (tmp_path / "runs/question/one.log.txt").read_text()
    again = Runs("question", tmp_path / "runs", tmp_path / "results")
    assert again.run("one", ["no-such-command"], measure) == first
    assert again.all() == {"one": first} and len(measured) == 1
    with pytest.raises(
        RuntimeError, match=r"The run two failed \(error: sact-tf has no"
    ):
        again.run("two", ["no-such-command"], measure)
    assert again.read("two") is None


def test_claims_of_made_up_runs(tmp_path):
    full = known(0.9, 1.18e8, [5, 5, 5])
    runs = {"first": full}
    runs[cifar10.plain_name((5, 5, 5), 1)] = full
    for kind, tau, accuracy, flops in (
        ("act", 0.03, 0.88, 1.0e8),
        ("act", 0.2, 0.80, 0.5e8),
        ("sact", 0.1, 0.87, 0.7e8),
    ):
        one = known(accuracy, flops, [2.0, 2.5, 2.5], std=1e6)
        runs[cifar10.adaptive_name(kind, tau, 1)] = one
        units = cifar10.matched_units(one)
        runs[cifar10.plain_name(units, 1)] = known(0.80, flops, list(units))
    page = Page(tmp_path / "cifar10.md", "Title")
    cifar10.page(runs, page)
    page.runs(runs)
    page.write()
    text = (tmp_path / "cifar10.md").read_text()
    # ACT at 0.7e8 FLOPs, between its two networks: 83.9 %.
    assert "| 0.1 | +3.12 ± " in text and "| 0.03 |" not in text
    assert "| SACT, tau 0.1 | 1 | 1.000 | +7.00 ± 0.81 | held |" in text
    assert "| SACT, tau 0.1 | 1 | 87.00 % | 7e+07 ± 1e+06 | 2.00, 2.50, 2.50 |" in text
    assert "| first | 10 | 2026-11-28 | 2 cores |" in text
    assert (tmp_path / "cifar10_accuracy_against_flops.png").stat().st_size > 10_000


def test_pages_and_how_long(tmp_path, monkeypatch, capsys):
    flags = ["--results", tmp_path, "--output", tmp_path / "runs"]
    said = call(monkeypatch, capsys, "--dry_run", *flags).out
    assert "cifar10: about 24 hours on two cores" in said
    assert not list(tmp_path.iterdir())
    # Of what has not been measured there is no page.
    said = call(monkeypatch, capsys, "--pages", *flags, "--json").out
    assert json.loads(said)["pages"] == [] and not list(tmp_path.iterdir())


def test_committed_pages_are_those_of_the_committed_files(
    tmp_path, monkeypatch, capsys
):
    committed = pathlib.Path(__file__).parents[2] / "docs" / "results"
    shutil.copytree(committed / "data", tmp_path / "data")
    done = [path.name for path in sorted((tmp_path / "data").iterdir())]
    assert "saliency" in done
    call(monkeypatch, capsys, *done, "--pages", "--results", tmp_path)
    for name in done:
        page = (tmp_path / f"{name}.md").read_text()
        assert page == (committed / f"{name}.md").read_text()
    pictures = {path.name for path in committed.glob("*.png")}
    assert {path.name for path in tmp_path.glob("*.png")} == pictures


def test_messages(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match=r"QUESTION must be one of cifar10, .*: moon"):
        call(monkeypatch, capsys, "moon")
    with pytest.raises(ValueError, match="--data must be a folder"):
        call(monkeypatch, capsys, "--data", tmp_path / "none")
