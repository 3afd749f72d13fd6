import json
import subprocess
import sys

import numpy as np
import pytest
import tf_keras

import sact_tf
from sact_tf.cli import benchmark_saliency, evaluate_saliency
from sact_tf.data import preprocessing
from tests import cat2000_like
from tests.models.test_resnet import spread_halting


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return cat2000_like.write(tmp_path_factory.mktemp("data"), size=(96, 64))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    tf_keras.utils.set_random_seed(0)
    model = sact_tf.ResNet(units=(2, 2, 1, 1), num_classes=3, base_channels=4)
    path = tmp_path_factory.mktemp("network") / "net.keras"
    spread_halting(model).save(path)
    return path


def call(monkeypatch, capsys, *arguments, main=evaluate_saliency.COMMAND):
    monkeypatch.setattr(sys, "argv", ["tool", *map(str, arguments)])
    main()
    return capsys.readouterr()


def small(data, output, *networks):
    flags = ["--data_dir", data, "--output", output, "--box", "96x64", "--model"]
    flags += [*networks, "--sigmas", "0", "2", "--gammas", "0.1", "--examples", "2"]
    return [*flags, "--threads", "2"]


def test_trained_and_random_weights(data, network, tmp_path, monkeypatch, capsys):
    flags = [*small(data, tmp_path / "out", network), "--random-weights", "7"]
    captured = call(monkeypatch, capsys, *flags)
    lines = captured.out.splitlines()
    assert lines[2].startswith("| centre map")
    assert "No row of one human" in captured.out
    assert "net, tuning: 100%" in captured.err
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (tmp_path / "out" / "table.md").read_text() == result["table"] + "\n"
    rows = {row["name"]: row for row in result["rows"]}
    assert len(rows) == 1 + 2 * 3
    for kind in ("tuned", "no centre map", "the paper's s and gamma"):
        scores = rows[f"net, {kind}"]["scores"]
        assert rows[f"net-random-weights, {kind}"]["scores"] != scores
    for name in ("net", "net-random-weights"):
        for picture in ("grid_search.png", "examples.png"):
            content = (tmp_path / "out" / name / picture).read_bytes()
            assert content.startswith(b"\x89PNG")
    # The same again: from what is there, and for machines.
    captured = call(monkeypatch, capsys, *flags, "--json")
    assert json.loads(captured.out) == result


def test_random_weights_are_those_of_the_seed(network):
    def kernel(seed):
        chosen = evaluate_saliency.Network("net", network, (96, 64), seed)
        return chosen.load().get_weights()[0]

    assert (kernel(1) == kernel(1)).all()
    assert (kernel(1) != kernel(2)).any() and (kernel(1) != kernel(None)).any()


def test_sizes_are_those_of_the_networks(data, network, tmp_path, monkeypatch, capsys):
    flags = small(data, tmp_path / "out", f"a={network}", f"b={network}")
    at = flags.index("--box") + 1
    call(monkeypatch, capsys, *flags[:at], "96x64", "48x32", *flags[at + 1 :])
    for name, size in (("a", [96, 64]), ("b", [48, 32])):
        settings = (tmp_path / "out" / name / "settings.json").read_text()
        assert json.loads(settings)["size"] == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--size", "320"], "A size must be WIDTHxHEIGHT"),
        (["--size", "0x10"], "A size must be WIDTHxHEIGHT"),
        (["--size", "9x9", "8x8"], "2 sizes for 1 networks"),
        (["--workers", "0"], "--threads must be at least 1. Received: 0"),
        (["--batch-size", "-2"], "--batch_size must be at least 1. Received: -2"),
        (["--model", "nowhere.keras"], "There is no file nowhere.keras"),
        (["--sigmas", "nan"], "sigmas must be numbers of zero or more"),
        (["--data", "nowhere"], "There is no folder nowhere/trainSet/Stimuli"),
    ],
)
def test_bad_flags(data, network, tmp_path, monkeypatch, capsys, change, message):
    with pytest.raises(ValueError, match=message):
        call(monkeypatch, capsys, *small(data, tmp_path, network), *change)


def test_networks_need_names_of_their_own(data, network, tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="must have different names"):
        call(monkeypatch, capsys, *small(data, tmp_path, network, network))
    for name in ("baselines", "../up"):
        with pytest.raises(ValueError, match="The name of a network may have"):
            call(monkeypatch, capsys, *small(data, tmp_path, f"{name}={network}"))


def test_files_without_maps_are_refused(data, tmp_path, monkeypatch, capsys):
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"Cannot load a network from .*broken\.keras"):
        call(monkeypatch, capsys, *small(data, tmp_path / "a", broken))
    plain = tmp_path / "plain.keras"
    tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(2,))]).save(plain)
    with pytest.raises(ValueError, match="which has no ponder cost maps"):
        call(monkeypatch, capsys, *small(data, tmp_path / "b", plain))


def test_networks_of_small_images_get_standardized_ones(tmp_path):
    model = sact_tf.ResNet("cifar", (2, 1, 1), base_channels=2, num_classes=2)
    spread_halting(model).save(tmp_path / "cifar.keras")
    network = evaluate_saliency.Network("cifar", tmp_path / "cifar.keras", (40, 30))
    image = np.random.default_rng(0).integers(0, 256, [1, 30, 40, 3]).astype(np.uint8)
    found = network.load().introspect(np.float32(image) / 127.5 - 1.0)
    expected = model.introspect(preprocessing.normalize(image, "cifar"))
    maps = [record["ponder_cost_map"] for record in (found, expected)]
    np.testing.assert_allclose(*maps, atol=1e-5)
    assert np.ptp(maps[0]) > 0.1


def test_bad_input_is_one_line(network, tmp_path):
    root = cat2000_like.write(tmp_path / "data")
    path = cat2000_like.fixations_path(root, "Art/002")
    path.write_bytes(b"no matrix")
    flags = small(root, tmp_path / "out", network)
    result = subprocess.run(
        [sys.executable, "-m", "sact_tf.cli.evaluate_saliency", *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 2 and result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: Cannot read the fixations {path}: ")
    assert "Traceback" not in result.stderr


def test_benchmark_times_every_part(monkeypatch, capsys):
    flags = ["--size", "64x48", "--map-size", "32x24", "--fixations", "9"]
    flags += ["--workers", "1"]
    main = benchmark_saliency.COMMAND
    captured = call(monkeypatch, capsys, *flags, "--json", main=main)
    result = json.loads(captured.out)
    assert all(value > 0 for value in result["milliseconds"].values())
    assert set(result["images_per_second"]) == {"tuning", "scoring"}
    captured = call(monkeypatch, capsys, *flags, main=main)
    assert "AUC-Judd" in captured.out and "images/s" in captured.out
    with pytest.raises(ValueError, match="--fixations and --threads must be"):
        call(monkeypatch, capsys, *flags, "--fixations", "0", main=main)
