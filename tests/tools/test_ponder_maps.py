import json

import numpy as np
import pytest
from PIL import Image

import sact_tf
from sact_tf.cli import ponder_maps
from sact_tf.data import image_files
from tests.models.test_resnet import spread_halting
from tests.tools.calling import call


def adaptive(adaptivity, folder):
    model = sact_tf.ResNet("imagenet", (2, 2, 1, 2), adaptivity, 5, base_channels=4)
    path = folder / f"{adaptivity}.keras"
    spread_halting(model).save(path)
    return path


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return adaptive("sact", tmp_path_factory.mktemp("network"))


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (
        ("wide.jpg", [60, 100, 3]),
        ("grey.png", [90, 70]),
        ("alpha.png", [64, 64, 4]),
        ("one.png", [1, 1, 3]),
        ("more/wide.png", [300, 600, 3]),
    ):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def draws(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, ponder_maps, *arguments)


def test_pictures_and_raw_maps(network, photographs, draws, tmp_path):
    output = tmp_path / "maps"
    flags = ["--model", network, "--output", output, "--longer_side", 96]
    code, out, _ = draws(*flags, "--json", photographs)
    assert code == 0
    result = json.loads(out)
    names = {"alpha", "grey", "one", "wide", "more_wide"}
    assert {path.stem for path in output.glob("*.png")} == {*names, "overview"}
    assert not result["failed"] and len(result["images"]) == 5
    model = sact_tf.checkpoints.files.load(network)
    for cost in result["images"]:
        image = image_files.read(cost["image"], 96)
        record = model.introspect(image[None] / np.float32(127.5) - 1)
        with np.load(output / cost["maps"]) as maps:
            assert maps["ponder_cost_map"].shape == image.shape[:2]
            np.testing.assert_allclose(
                maps["ponder_cost_map"], record["ponder_cost_map"][0, ..., 0], rtol=1e-5
            )
            for block in record["blocks"]:
                np.testing.assert_array_equal(
                    maps[f"{block['name']}_num_units"], block["num_units"][0]
                )
        assert cost["flops"] == int(record["flops"][0])
        picture = np.asarray(Image.open((output / cost["maps"]).with_suffix(".png")))
        assert picture.std() > 10

    before = {path: path.stat().st_mtime_ns for path in output.glob("*.npz")}
    code, *_ = draws(*flags, "--scale", "own", photographs)
    assert code == 0
    assert before == {path: path.stat().st_mtime_ns for path in output.glob("*.npz")}


def test_broken_images_are_named_and_the_others_drawn(network, draws, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "good.png")
    Image.new("RGB", (900, 2), "red").save(folder / "thin.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    code, _, err = draws("--model", network, "--output", tmp_path / "maps", folder)
    assert code == 2 and "2 of 3 images could not be used" in err.splitlines()[-1]
    assert "broken.png is no readable image" in err
    assert "thin.png has 320 x 1 pixels as it is used" in err
    assert (tmp_path / "maps" / "good.png").exists()


def test_bad_input(network, draws, tmp_path, photographs):
    flags = ["--model", network, "--output", tmp_path / "maps"]
    code, _, err = draws(*flags, tmp_path / "nowhere")
    assert code == 2 and "no file, folder or match" in err
    code, _, err = draws(*flags, photographs, "--longer_side", -1)
    assert code == 2 and "--longer_side must be at least 0" in err
    assert not (tmp_path / "maps").exists()
    assert draws(*flags, photographs / "one.png")[0] == 0
    code, _, err = draws(*flags, photographs / "grey.png")
    assert code == 2 and "with other settings (images)" in err


def test_a_plain_network_has_no_map(draws, tmp_path, photographs):
    model = sact_tf.ResNet("imagenet", (1, 1, 1, 1), "none", 5, base_channels=4)
    model.save(tmp_path / "plain.keras")
    code, _, err = draws(
        *("--model", tmp_path / "plain.keras", "--output", tmp_path / "maps"),
        photographs,
    )
    assert code == 2 and "is a plain network" in err


def test_maps_of_an_act_network_are_flat(draws, tmp_path):
    Image.new("RGB", (64, 40), "red").save(tmp_path / "a.png")
    network = adaptive("act", tmp_path)
    flags = ["--model", network, "--output", tmp_path / "maps", "--longer_side", 0]
    assert draws(*flags, tmp_path / "a.png")[0] == 0
    with np.load(tmp_path / "maps" / "a.npz") as maps:
        assert maps["ponder_cost_map"].shape == (40, 64)
        assert np.ptp(maps["ponder_cost_map"]) == 0
        assert maps["block2_ponder_cost"].shape == ()
