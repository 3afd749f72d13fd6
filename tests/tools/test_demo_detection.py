import argparse
import json

import numpy as np
import pytest

from sact_tf.cli import demo_detection
from sact_tf.model_garden import detectors, runs
from tests.tools.calling import call


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The demo, stopped once; its folder, and where each training began."""
    folder = tmp_path_factory.mktemp("demo") / "output"
    began, original = [], runs.train
    flags = argparse.Namespace(output=folder, quick=True)

    def train(params, place, actions=()):
        began.append((place.name, runs.steps_done(str(place))))
        if len(began) > 1:
            return original(params, place, actions=actions)
        original(params.replace(trainer={"train_steps": 1}), place)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "train", train)
        with pytest.raises(KeyboardInterrupt):
            demo_detection.run(flags)
        demo_detection.run(flags)
    return folder, began


@pytest.fixture(scope="module")
def output(interrupted):
    return interrupted[0]


def test_goes_on_where_it_was_stopped(interrupted):
    assert interrupted[1] == [
        ("1-classifier", 0),
        ("1-classifier", 1),
        ("2-plain", 0),
        ("3-sact", 0),
    ]


def test_everything_is_there(output):
    names = {path.name for path in output.iterdir()}
    assert names == {
        "recipe.json",
        "training",
        "detections.png",
        "table.md",
        "results.json",
    }
    result = json.loads((output / "results.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["plain", "SACT"]
    assert [row["num_images"] for row in result["rows"]] == [5, 5]
    assert result["rows"][0]["share"] == 1.0
    assert 0 <= result["box_auc"] <= 1
    plain, sact = (
        detectors.load(output / "training" / name).detector.extractor
        for name in ("2-plain", "3-sact")
    )
    assert (plain.adaptivity, sact.adaptivity) == ("none", "sact")
    # SACT took over the plain detector's statistics, and did not change them.
    for name in ("moving_mean", "moving_variance"):
        moved, kept = (
            getattr(network.blocks[2].units[1].conv2_norm, name).numpy()
            for network in (plain, sact)
        )
        np.testing.assert_array_equal(moved, kept)
        assert np.ptp(moved) > 0


def test_again_uses_what_is_there(output, monkeypatch, capsys):
    before = json.loads((output / "results.json").read_text())
    monkeypatch.setattr(runs, "train", lambda *args, **kwargs: 1 / 0)
    arguments = ("--quick", "--json", "--output", output)
    code, out, _ = call(monkeypatch, capsys, demo_detection, *arguments)
    assert code == 0
    assert json.loads(out)["rows"] == before["rows"]


def test_another_recipe_is_refused(output, monkeypatch, capsys):
    code, _, errors = call(monkeypatch, capsys, demo_detection, "--output", output)
    assert code == 2 and "detection demo with other settings (1-cl" in errors


def test_pixels_inside_boxes():
    boxes = np.float32([[1, 2, 3, 5], [0, 0, 1.4, 1.6], [-1, -1, -1, -1]])
    inside = demo_detection._inside(boxes, (4, 6))
    np.testing.assert_array_equal(
        inside,
        [
            [1, 1, 0, 0, 0, 0],
            [0, 0, 1, 1, 1, 0],
            [0, 0, 1, 1, 1, 0],
            [0, 0, 0, 0, 0, 0],
        ],
    )
