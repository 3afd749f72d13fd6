import functools
import json

import numpy as np
import pytest
import tf_keras

import sact_tf
from sact_tf.cli import compare, networks
from sact_tf.evaluation import comparison, published
from tests.models.test_resnet import spread_halting
from tests.tools.calling import call

KINDS = {"plain": "none", "sact": "sact"}


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Networks are loaded once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "load", functools.cache(networks.load))
        yield


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    for name, adaptivity in KINDS.items():
        model = sact_tf.ResNet("cifar", (2, 1, 1), adaptivity, 10, base_channels=2)
        spread_halting(model).save(folder / f"{name}.keras")
    return [folder / f"{name}.keras" for name in KINDS]


@pytest.fixture
def compares(monkeypatch, capsys):
    small = ["--num_images", 6, "--image_size", 64, "--timed_images", 2]
    small += ["--timed_batches", 2, "--turns", 1]
    return lambda *flags: call(monkeypatch, capsys, compare, *flags, *small)


def test_table_and_pictures(paths, compares, tmp_path, monkeypatch):
    # Of one network a process is started in a test of its own.
    monkeypatch.setattr(comparison, "peak_memory", lambda *about: 123_000_000)
    flags = ["--model", *paths, "--output", tmp_path / "out", "--memory"]
    code, out, err = compares(*flags, "--published", "ssbnet", "--json")
    assert code == 0, err
    result = json.loads(out)
    plain, adaptive = result["networks"]
    assert [entry["name"] for entry in result["networks"]] == list(KINDS)
    assert plain["flops_left"] == 1 != adaptive["flops_left"]
    assert plain["flops_std"] == 0
    assert plain["parameters"] < adaptive["parameters"]
    timed = {(t["execution"], t["batch_size"]) for t in adaptive["milliseconds"]}
    assert timed == {("dense", 2), ("auto", 2)}
    assert {t["execution"] for t in plain["milliseconds"]} == {"dense"}
    for entry in result["networks"]:
        assert entry["peak_memory"] == 123_000_000
        assert all(t["milliseconds"] > 0 for t in entry["milliseconds"])
    assert len(result["published"]) == 24
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"accuracy_against_flops.png", "accuracy_against_time.png"} <= names

    # Nothing is measured twice.
    code, again, _ = compares(*flags, "--published", "ssbnet", "--json")
    assert code == 0 and json.loads(again) == result
    code, table, _ = compares(*flags, "--reference", "sact")
    assert code == 0
    assert "| plain " in table and "ms, 2, auto" in table and "memory, MB" in table


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--turns", 0], "--turns must be at least 1"),
        (["--timed_batches", 0], "--timed_batches must be at least 1"),
        (["--timed_batches", 7], "has 2 images; --timed_batches asks for 7"),
        (
            ["--timed_batches", 2, "--reference", "no"],
            "--reference must be one of plain",
        ),
    ],
)
def test_bad_flags(paths, monkeypatch, capsys, flags, message):
    few = ["--num_images", 2, "--image_size", 64, "--batch_size", 2]
    code, _, err = call(monkeypatch, capsys, compare, "--model", paths[0], *few, *flags)
    assert code == 2 and message in err


def test_peak_memory(paths):
    images = np.zeros([1, 64, 64, 3], np.float32)
    peak = comparison.peak_memory(networks.load, paths[0], "dense", images)
    # TensorFlow alone takes more than this, and no tiny network as much as that.
    assert 1e8 < peak < 8e9


def test_executions_share_weights():
    tf_keras.utils.set_random_seed(0)
    model = spread_halting(
        sact_tf.ResNet("cifar", (2, 1, 1), "sact", 3, base_channels=2)
    )
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    other = comparison.with_execution(model, "positions")
    assert other.get_config()["execution"] == "positions"
    np.testing.assert_allclose(other(images), model(images), atol=1e-5)
    assert comparison.with_execution(model, "auto") is model
    wanted = ["dense", "auto", "dense", "tiles"]
    assert comparison.executions(model, wanted) == ["dense", "auto", "tiles"]
    sampled = sact_tf.ResNet(
        "resnet_d_small", (1, 2, 1, 1), "none", 3, base_channels=1, sampling="uniform"
    )
    assert comparison.executions(sampled, wanted) == ["dense"]


def test_published_rows():
    rows = {row.name: row for row in published.TABLES["ssbnet"]}
    row = rows["SSB-ResNet-D-101, adaptive (16, 8, 4)"]
    assert (row.accuracy, row.flops) == (0.7888, 8.5e9)
    assert all(0.77 < row.accuracy < 0.81 for row in rows.values())
