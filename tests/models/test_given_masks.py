"""Networks under given masks: what is computed, what it costs, what is refused."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.geometry import Extent, Packed
from sact_tf.models.backbone import Backbone
from sact_tf.models.config import BackboneConfig
from tests.models.test_execution import same
from tests.models.test_resnet import images, spread_halting

SHAPE = (3, 71, 45)
#: "auto" is dense in networks as small as these; see tests/layers/test_given_masks.py.
EXECUTIONS = ("dense", "positions", "tiles")
UNITS = {"imagenet": (1, 1, 4, 1), "resnet_d": (1, 2, 3, 1), "cifar": (1, 3, 2)}


def network(adaptivity, execution="dense", family="imagenet", **options):
    options = {"num_classes": 5, "base_channels": 4, **options}
    tf_keras.utils.set_random_seed(0)
    model = sact_tf.ResNet(
        family, UNITS[family], adaptivity, execution=execution, **options
    )
    rng = np.random.default_rng(0)
    for block in model.blocks:  # Those of ResNet-D begin as the identity.
        for unit in block.units:
            if family == "resnet_d":
                unit.conv3_norm.gamma.assign(rng.normal(size=unit.conv3.filters))
    if adaptivity != "none":
        spread_halting(model)
    for block in model.blocks:  # Lest nearly all scores be zero or one.
        for score in block.halting_scores:
            for weight in score.trainable_weights:
                if weight.shape.rank == 4:
                    weight.assign(0.1 * weight)
    return model


def blob(shape=SHAPE):
    """A disc, a few scattered pixels, and nothing."""
    lines, columns = np.mgrid[: shape[1], : shape[2]]
    mask = np.zeros(shape, bool)
    mask[0] = np.hypot(lines - 30, columns - 8) < 20
    mask[1] = np.random.default_rng(0).uniform(size=shape[1:]) < 0.004
    return mask


def pooled(mask, stride):
    """A position is active when any of its pixels is."""
    height, width = (-(-side // stride) for side in mask.shape[1:])
    out = np.zeros([len(mask), height, width], bool)
    for image, y, x in zip(*np.nonzero(mask), strict=True):
        out[image, y // stride, x // stride] = True
    return out


@pytest.mark.parametrize(
    "family, execution",
    [("imagenet", execution) for execution in EXECUTIONS]
    + [("resnet_d", "positions"), ("cifar", "tiles")],
)
def test_units_of_plain_networks_run_where_the_mask_says(family, execution):
    model = network("none", execution, family)
    shape = (3, 17, 21) if family == "cifar" else SHAPE
    batch, mask = images(*shape), blob(shape)
    if family == "cifar":
        mask[0] = mask[0] & (np.arange(17) < 9)[:, None]
    record = model(batch, with_record=True, active_mask=mask)
    x = model.root_layer(batch)
    total = model.root_layer.flops(Extent.whole(batch)).numpy()
    stride = 1 if family == "cifar" else 4
    for block, found in zip(model.blocks, record["blocks"], strict=True):
        first, *later = block.units
        before = x.shape[1] * x.shape[2]
        x = first(x)
        stride *= first.stride
        active = pooled(mask, stride)
        flops = first.flops_on_map(before, x.shape[1] * x.shape[2]).numpy()
        near = tf.nn.max_pool2d(active[..., None] * 1.0, 3, 1, "SAME").numpy()
        for unit in later:
            x = tf.where(active[..., None], unit(x), x)
            flops += unit.flops(near.sum((1, 2, 3)), active.sum((1, 2))).numpy()
        same(found["output"], x)
        count = len(block.units)
        units = np.where(active, count, 1)
        np.testing.assert_array_equal(found["num_units"], units)
        np.testing.assert_array_equal(found["ponder_cost"], units + 1)
        np.testing.assert_array_equal(
            found["halting_distribution"], np.eye(count)[units - 1]
        )
        np.testing.assert_array_equal(found["flops"], np.broadcast_to(flops, 3))
        total = total + flops
    total = total + model.head.flops(x).numpy()
    np.testing.assert_array_equal(record["flops"], total)
    same(record["logits"], model.head(x))
    same(record["ponder_cost"][2], 2 * len(model.blocks))


def assert_same(actual, expected, spared=0):
    np.testing.assert_array_equal(actual["flops"], expected["flops"] - spared)
    same(actual["ponder_cost"], expected["ponder_cost"])
    for block, wanted in zip(actual["blocks"], expected["blocks"], strict=True):
        for key in ("output", "ponder_cost", "num_units", "halting_distribution"):
            same(block[key], wanted[key])


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_a_mask_of_everything_is_none(adaptivity, execution):
    model = network(adaptivity, execution)
    batch = images(*SHAPE)
    padded = {"image_shapes": tf.constant([[71, 45], [33, 45], [64, 32]])}
    for options in ({}, padded) if execution == "positions" else ({},):
        expected = model.run(batch, **options)
        actual = model.run(batch, active_mask=np.ones(SHAPE, bool), **options)
        np.testing.assert_array_equal(actual["flops"], expected["flops"])
        same(actual["ponder_cost"], expected["ponder_cost"])
        for block, wanted in zip(actual["blocks"], expected["blocks"], strict=True):
            same(block["output"], wanted["output"])
            units = wanted["num_units"].numpy()
            if units.ndim == 1:  # Said of positions now, of which some are padding.
                there = np.any(block["output"], axis=-1)
                units = units[:, None, None] * there
            np.testing.assert_array_equal(block["num_units"], units)


@pytest.mark.parametrize("adaptivity", ["act", "sact"])
def test_all_executions_give_the_same_numbers(adaptivity):
    batch, mask = images(*SHAPE), blob()
    later = -2.5 if adaptivity == "act" else -1.0
    options = {"halting_bias": [later, 0.0, 0.0], "active_mask": mask}
    dense = network(adaptivity)
    expected = dense.run(batch, **options)
    units = expected["blocks"][2]["num_units"].numpy()
    assert np.unique(units[0]).size > (2 if adaptivity == "sact" else 1)
    assert (units[2] == 1).all()
    same(expected["blocks"][2]["ponder_cost"][2], np.full(units.shape[1:], 2.0))
    for execution in EXECUTIONS[1:]:
        wanted, tiles = expected, {}
        if (adaptivity, execution) == ("sact", "tiles"):
            tiles = {"tile_size": 3}
            wanted = network(adaptivity, **tiles).run(batch, **options)
        model = network(adaptivity, execution, **tiles)
        if (adaptivity, execution) == ("sact", "positions"):  # In a graph.
            actual = model.introspect(batch, **options)
            assert actual["num_units_map"].shape == [*SHAPE, 1]
            actual["flops"] -= model.head.flops(batch)
        else:
            actual = model.run(batch, **options)
        assert_same(actual, wanted)


def test_outside_sact_halts_as_with_a_score_of_one():
    batch, mask = images(*SHAPE), blob()
    model, forced = network("sact"), network("sact")
    stride, spared = 4, 0
    for block in forced.blocks:
        stride *= block.units[0].stride
        outside, own = ~pooled(mask, stride), block.logits
        for score in block.halting_scores[:1]:  # That score of one is not computed.
            spared += score.local_conv.flops(outside.sum((1, 2))).numpy()

        def logits(training=None, valid=None, own=own, outside=outside):
            count = len(own(training, valid))
            first = own(training, valid)[0] if count else None
            return [
                lambda geometry: tf.where(outside, 99.0, first(geometry)),
                *(own(training, valid)[i] for i in range(1, count)),
            ]

        block.logits = logits
    assert_same(model.run(batch, active_mask=mask), forced.run(batch), spared)


def test_act_that_never_halts_is_a_plain_network():
    batch, mask = images(*SHAPE), blob()
    model, plain = network("act", "positions"), network("none")
    for block, other in zip(model.blocks, plain.blocks, strict=True):
        for unit, another in zip(block.units, other.units, strict=True):
            another.set_weights(unit.get_weights())
    plain.root_layer.set_weights(model.root_layer.get_weights())
    actual = model.run(batch, halting_bias=-99.0, active_mask=mask)["blocks"]
    expected = plain.run(batch, active_mask=mask)["blocks"]
    for block, wanted in zip(actual, expected, strict=True):
        same(block["output"], wanted["output"])
        np.testing.assert_array_equal(block["num_units"], wanted["num_units"])


def test_padding_counts_nowhere():
    batch, mask = images(*SHAPE), np.ones(SHAPE, bool)
    mask[1, :, 20:] = False
    sizes = tf.constant([[71, 45], [33, 41], [64, 32]])
    for adaptivity in ("none", "sact"):
        model = network(adaptivity, "positions")
        together = model.run(batch, active_mask=mask, image_shapes=sizes)
        for index, (height, width) in list(enumerate(sizes.numpy()))[1:]:
            part = (slice(index, index + 1), slice(height), slice(width))
            alone = model.run(batch[part], active_mask=mask[part])
            assert together["flops"][index] == alone["flops"][0]
            same(together["ponder_cost"][index], alone["ponder_cost"][0])
            last = together["blocks"][2]
            wanted = alone["blocks"][2]
            _, *size, _ = wanted["output"].shape
            same(last["output"][index, : size[0], : size[1]], wanted["output"][0])
            assert np.sum(last["num_units"][index]) == np.sum(wanted["num_units"])


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_gradients(adaptivity):
    batch, mask = images(*SHAPE), blob()
    # At inference they go through loops: those of halting are tested elsewhere.
    for training in (False, True) if adaptivity == "none" else (True,):
        results = []
        for execution in ("dense", "tiles" if training else "positions"):
            model = network(adaptivity, execution, freeze_batch_norm=True)

            def step(batch, mask, model=model, training=training):
                with tf.GradientTape() as tape:
                    logits = model(batch, training=training, active_mask=mask)
                    loss = tf.reduce_sum(logits**2) + tf.add_n(model.losses)
                return loss, *tape.gradient(loss, model.trainable_variables)

            if (adaptivity, execution) == ("none", "positions"):  # In a graph, too.
                step = tf.function(step, autograph=False)
            results.append(step(batch, mask))
        for other in results[1:]:
            for value, wanted in zip(other, results[0], strict=True):
                tolerance = 5e-6 + 3e-4 * np.abs(wanted).max()
                np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance)


def test_live_batch_norm_takes_masks_too():
    model = network("sact", "positions")
    with tf.GradientTape() as tape:
        logits = model(images(*SHAPE), training=True, active_mask=blob())
        loss = tf.reduce_sum(logits**2)
    assert all(
        np.isfinite(g).all() for g in tape.gradient(loss, model.trainable_variables)
    )


def test_masks_of_the_first_map_and_sizes_known_at_run_time():
    model = network("none", "positions")
    batch, mask = images(*SHAPE), blob()
    expected = model(batch, active_mask=mask)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 3]),
            tf.TensorSpec([None, None, None], tf.bool),
        ],
        autograph=False,
    )
    def call(batch, mask):
        return model(batch, training=False, active_mask=mask)

    for given in (mask, pooled(mask, 4)):
        same(model(batch, active_mask=tf.constant(given)), expected)
        same(call(batch, given), expected)
    for wrong in (mask[:2], mask[:, 1:], mask[:, :1, :1]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="active_mask must"):
            call(batch, wrong)


def test_rows_are_packed(monkeypatch):
    counts, original = [], Packed.from_map.__func__

    def from_map(cls, layout, features, active, *rest):
        geometry = original(cls, layout, features, active, *rest)
        counts.append(int(geometry.state.set.distinct))
        return geometry

    monkeypatch.setattr(Packed, "from_map", classmethod(from_map))
    mask = blob()
    for execution, called in (("positions", True), ("dense", False)):
        counts.clear()
        network("none", execution).run(images(*SHAPE), active_mask=mask)
        wanted = [pooled(mask, 16).sum()]
        assert counts == (wanted if called else [])


BATCH = images(2, 64, 64)
WRONG = {
    "dtype": (np.ones([2, 64, 64], "f"), "must be bool, true.*dtype=float32"),
    "rank 2": (np.ones([64, 64], bool), r"must have the shape.*shape=\(64, 64\)"),
    "batch": (np.ones([1, 64, 64], bool), r"shape=\(1, 64, 64\) with images of"),
    "size": (np.ones([2, 32, 32], bool), "which has stride 4. Received"),
    "channels": (np.ones([2, 64, 64, 1], bool), "must have the shape"),
}


def test_masks_that_are_none():
    model = network("none")
    backbone = Backbone(BackboneConfig(units=(1, 1, 1, 1), base_channels=4))
    for mask, message in WRONG.values():
        for call in (model, model.introspect, backbone):
            with pytest.raises(ValueError, match=message):
                call(BATCH, active_mask=mask)


@pytest.mark.parametrize(
    "options", [{"adaptivity": "none", "sampling": "uniform"}, {"adaptivity": "ssin"}]
)
def test_networks_that_take_no_masks(options):
    model = sact_tf.ResNet(
        "resnet_d_small", 14, num_classes=2, base_channels=4, **options
    )
    with pytest.raises(ValueError, match="active_mask is for networks of ordinary"):
        model(BATCH, active_mask=np.ones([2, 64, 64], bool))


def test_halting_biases_where_nothing_halts():
    model = network("none")
    for call in (model, model.introspect):
        with pytest.raises(ValueError, match=r"halting_bias=\[1.0, 0.0\], adaptivity"):
            call(BATCH, halting_bias=tf.constant([1.0, 0.0]))
        with pytest.raises(ValueError, match="only networks with adaptivity='act' or"):
            call(BATCH, halting_bias=1.0)
        call(BATCH, halting_bias=0.0)
