import json

import numpy as np
import pytest

import sact_tf
from sact_tf import training
from sact_tf.cli import train_cifar
from sact_tf.data import cifar10
from tests.data.test_cifar10 import folders, train  # noqa: F401 (fixtures)
from tests.tools.calling import call

FLAGS = ["--units", 1, 2, 1, "--base_channels", 2, "--batch_size", 3]
FLAGS += ["--steps", 8, "--evaluate_every", 4, "--steps_per_call", 2, "--no-jit"]


@pytest.fixture
def trains(monkeypatch, capsys, folders):  # noqa: F811
    data = ["--data_dir", folders[0]]
    return lambda *flags: call(monkeypatch, capsys, train_cifar, *data, *flags)


def logged(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    rows = {row["step"]: row["logs"] for row in map(json.loads, lines)}
    for row in rows.values():
        assert row.pop("milliseconds_per_update") > 0
    return rows


def test_a_killed_run_goes_on_as_if_nothing_had_happened(trains, monkeypatch, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = [*FLAGS, "--backup_every", 2]
    code, out, _ = trains(*flags, "--output", whole, "--json")
    assert code == 0
    row = json.loads(out)
    assert row == json.loads((whole / "results.json").read_text())
    assert row["num_images"] == 2 and row["flops"] > 0
    assert logged(whole).keys() == {4, 8}
    assert {"loss", "val_loss", "val_accuracy", "ponder_cost"} <= logged(whole)[
        8
    ].keys()
    model = sact_tf.load_model(whole / "network.keras")
    assert model.config.tau == 0.01 and model.units == (1, 2, 1)

    advance, calls = train_cifar._Progress._advance, []

    def interrupted(self, batch, logs):
        calls.append(batch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        advance(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(train_cifar._Progress, "_advance", interrupted)
        code, _, err = trains(*flags, "--output", killed)
    assert code == 130 and "goes on from here" in err
    code, out, _ = trains(*flags, "--output", killed, "--json")
    assert code == 0 and json.loads(out) == row
    assert logged(killed) == logged(whole)
    again = sact_tf.load_model(killed / "network.keras")
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    # A run that is over trains no more.
    monkeypatch.setattr(sact_tf.ResNet, "fit", None)
    code, out, _ = trains(*flags, "--output", killed, "--json")
    assert code == 0 and json.loads(out) == row


def test_the_schedule_is_that_of_the_experiment(trains, monkeypatch, tmp_path):
    seen = {}

    def fit(model, dataset, **options):
        seen.update(options, model=model, data=dataset.__self__)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", fit)
    images, labels = np.zeros([128, 32, 32, 3], np.uint8), np.zeros([128], int)
    monkeypatch.setattr(cifar10, "load", lambda *_: (images, labels))
    code, _, _ = trains("--output", tmp_path / "out", "--no-jit")
    assert code == 130
    assert seen["epochs"] * seen["steps_per_epoch"] == 100000
    model = seen["model"]
    schedule = model.optimizer._learning_rate
    for step, value in ((0, 0.1), (59999, 0.1), (60001, 0.01), (99999, 1e-4)):
        np.testing.assert_allclose(schedule(step), value, rtol=1e-5)
    assert model.optimizer.momentum == 0.9
    assert model.config.weight_decay is None  # The family's.
    assert model.config.spec.weight_decay == 2e-4 and model.units == (5, 5, 5)
    assert seen["data"].batch_size == 128


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--steps", 10, "--evaluate_every", 4], "--evaluate_every must divide --step"),
        (
            ["--steps_per_call", 3],
            "--steps_per_call must divide --evaluate_every, 2000",
        ),
        (["--batch_size", 16], "--batch_size must be at most the number of images, 15"),
        (["--batch_size", 0], "--batch_size must be at least 1. Received: 0"),
        (["--rate", 0], "--rate must be above zero. Received: 0.0"),
    ],
)
def test_bad_input(trains, tmp_path, flags, message):
    code, out, err = trains(*flags, "--output", tmp_path / "out")
    assert code == 2 and not out and message in err
    assert not (tmp_path / "out").exists()


def test_another_run_is_refused(trains, monkeypatch, tmp_path):
    def fit(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", fit)
    assert trains(*FLAGS, "--output", tmp_path / "out")[0] == 130
    code, _, err = trains(*FLAGS, "--output", tmp_path / "out", "--tau", 0.1)
    assert code == 2 and "other settings" in err and "tau" in err
