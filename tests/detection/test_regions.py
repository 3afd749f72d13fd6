"""Region heads: regions that halt, and regions that are not there."""

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.detection.config import FasterRCNNConfig
from sact_tf.geometry import calibration
from sact_tf.geometry.buckets import bucket
from sact_tf.models.config import BackboneConfig
from tests.detection import tiny

VALID = np.array([[1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0], [0, 0, 1] + [0] * 9], bool)


def heads(head_adaptivity, **settings):
    """Region heads of which some regions halt after the first of three units."""
    settings = {"head_adaptivity": head_adaptivity, **settings}
    detector = tiny.detector("none", settings=settings, units=(1, 1, 1, 3))
    layer = detector.box_head
    rng = np.random.default_rng(0)
    for score in layer.block.halting_scores:
        for conv in (score.global_conv, getattr(score, "local_conv", None)):
            if conv is not None:
                conv.kernel.assign(rng.normal(size=conv.kernel.shape, scale=9.0))
    return layer


def inputs():
    rng = np.random.default_rng(1)
    features = rng.normal(size=[2, 5, 6, 64]).astype(np.float32)
    start = rng.uniform(0, 40, size=[*VALID.shape, 2])
    boxes = np.concatenate([start, start + rng.uniform(9, 40, start.shape)], axis=2)
    # What is not there is zero.
    return features, boxes.astype(np.float32) * VALID[..., np.newaxis]


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_regions_that_are_not_there_cost_nothing_and_change_nothing(adaptivity):
    layer = heads(adaptivity)
    features, boxes = inputs()
    computed = []
    block = layer.block.call
    layer.block.call = lambda crops, **kw: (
        computed.append(len(crops)) or block(crops, **kw)
    )
    all_of_them = layer(features, boxes, VALID, halting_bias=[0.5, 0.0])
    some = layer(features, boxes, VALID, halting_bias=[0.5, 0.0], skip=True)
    assert computed == [VALID.size, bucket(VALID.sum())] == [24, 8]
    for key in ("class_logits", "box_outputs"):
        assert some[key].shape == all_of_them[key].shape
        expected = all_of_them[key][VALID]
        np.testing.assert_allclose(some[key][VALID], expected, atol=1e-5)
        assert not some[key][~VALID].numpy().any()
    assert set(some["record"]) == {
        *("flops", "ponder_cost", "num_units", "num_regions")
    }
    for key, value in some["record"].items():
        assert value.shape == [2] and value.dtype == all_of_them["record"][key].dtype
        np.testing.assert_allclose(value, all_of_them["record"][key], rtol=1e-5)
    nothing = layer(features, boxes, np.zeros_like(VALID), skip=True)
    for values in (nothing["class_logits"], *nothing["record"].values()):
        assert not values.numpy().any()


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_costs_are_those_of_the_regions_one_by_one(adaptivity):
    layer = heads(adaptivity)
    features, boxes = inputs()
    record = layer(features, boxes, VALID, skip=True)["record"]
    alone = {image: [] for image in range(2)}
    for image, number in np.argwhere(VALID):
        one = layer(
            features[image : image + 1],
            boxes[image : image + 1, number : number + 1],
            np.ones([1, 1], bool),
        )["record"]
        alone[image].append([one[key].numpy()[0] for key in record])
    for image, costs in alone.items():
        flops, ponder_cost, num_units, _ = np.transpose(costs)
        assert record["flops"].dtype == tf.int64
        assert record["flops"][image] == flops.sum()
        np.testing.assert_allclose(record["ponder_cost"][image], ponder_cost.mean())
        np.testing.assert_allclose(record["num_units"][image], num_units.mean())
        assert record["num_regions"][image] == len(costs)
    if adaptivity == "act":  # Some went after one unit, others took all three.
        assert {1, 3} <= {cost[2] for cost in alone[0]}
    of_layers = layer.classes.flops(1) + layer.boxes.flops(1)
    crops = tf.ones([1, 4, 4, 64])
    least = layer.block(crops, halting_bias=-1e9)["flops"] + of_layers
    none_halts = VALID.sum(axis=1) * least.numpy()
    below = record["flops"].numpy() < none_halts
    assert below[0] == (adaptivity != "none")


@pytest.mark.parametrize("adaptivity", ["act", "sact"])
def test_the_ponder_cost_is_in_the_losses_once_and_reaches_the_scores(adaptivity):
    layer = heads(adaptivity, head_tau=0.5)
    features, boxes = inputs()
    with tf.GradientTape() as tape:
        record = layer(features, boxes, VALID, training=True)["record"]
        (loss,) = layer.losses
    np.testing.assert_allclose(loss, 0.5 * np.mean(record["ponder_cost"]), rtol=1e-5)
    kernels = [score.global_conv.kernel for score in layer.block.halting_scores]
    assert all(np.any(gradient) for gradient in tape.gradient(loss, kernels))


def test_the_blocks_ponder_cost_is_a_mean_over_positions():
    layer = heads("sact")
    features, boxes = inputs()
    kept = []
    block = layer.block.call
    layer.block.call = lambda *a, **kw: kept.append(block(*a, **kw)) or kept[0]
    record = layer(features, boxes, VALID)["record"]
    costs = kept[0]["ponder_cost"].numpy()
    assert (costs.min(axis=(1, 2)) < costs.max(axis=(1, 2))).any()
    for image, valid in enumerate(VALID):
        expected = costs.reshape([*VALID.shape, -1])[image][valid].mean()
        np.testing.assert_allclose(record["ponder_cost"][image], expected, rtol=1e-6)


def test_variables_are_those_of_the_backbones_kind_by_default():
    usual = tiny.detector("sact").box_head
    same = tiny.detector("none", settings={"head_adaptivity": "sact"}).box_head
    names = [[v.name for v in layer.variables] for layer in (usual, same)]
    assert names[0] == names[1]
    assert usual.block.adaptivity == same.block.adaptivity == "sact"


def test_config():
    usual = FasterRCNNConfig()
    added = {"head_adaptivity", "head_tau", "proposal_threshold"}
    assert not added & set(usual.arguments())
    assert usual.head_network is usual.backbone
    tiled = BackboneConfig(adaptivity="sact", tile_size=2)
    changed = FasterRCNNConfig(backbone=tiled, head_adaptivity="act", head_tau=0.1)
    assert changed.head_network.adaptivity == "act"
    assert changed.head_network.tile_size == 1 and changed.backbone.tile_size == 2
    arguments = changed.arguments()
    assert (arguments["head_adaptivity"], arguments["head_tau"]) == ("act", 0.1)
    for options, message in (
        ({"head_adaptivity": "ACT"}, r"one of 'none', 'act', 'sact', or None.*'ACT'"),
        ({"head_tau": -0.1}, "head_tau must be zero or more. Received: head_tau=-0.1"),
        ({"head_tau": "much"}, "head_tau must be zero or more"),
        ({"proposal_threshold": -0.5}, "proposal_threshold must be a number from 0"),
        (
            {"head_tau": 0.1, "head_adaptivity": "none"},
            "head_tau is the price of units.*head_adaptivity='none', adaptivity='sact'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            FasterRCNNConfig(**options)


def test_when_the_head_packs_is_written_down(monkeypatch):
    there = calibration.Calibration()
    monkeypatch.setattr(calibration, "resolved", lambda given: given or there)
    plain = BackboneConfig(adaptivity="none")
    assert plain.calibration is None
    assert FasterRCNNConfig(backbone=plain).backbone.calibration is None
    config = FasterRCNNConfig(backbone=plain, head_adaptivity="sact")
    assert config.head_network.calibration is config.backbone.calibration is there
