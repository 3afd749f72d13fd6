"""Batches of images of several sizes, and one halting bias for each image."""

import numpy as np
import pytest
import tensorflow as tf

import sact_tf
from sact_tf.models import trunk
from tests.models.test_resnet import images, spread_halting, tiny

#: Even and odd sides, before and after the first convolution.
SIZES = [(71, 45), (64, 96), (33, 62), (35, 96)]
FIRST = "block1/unit1/preact"
KINDS = [("none", "auto", 1), ("act", "dense", 1), ("act", "auto", 1)] + [
    ("sact", execution, tile_size)
    for execution in ("dense", "auto", "positions", "tiles")
    for tile_size in (1, 3)
]


def run(model, batch, **options):
    return trunk.run(model.root_layer, model.blocks, batch, training=False, **options)


@pytest.mark.parametrize("adaptivity, execution, tile_size", KINDS)
def test_a_padded_image_is_as_good_as_alone(adaptivity, execution, tile_size):
    model = tiny(adaptivity, execution=execution, tile_size=tile_size)
    if adaptivity != "none":
        spread_halting(model)
    batch = images(len(SIZES), 72, 98)  # What is in the padding must not matter.
    together = run(model, batch, image_shapes=tf.constant(SIZES))
    for index, (height, width) in enumerate(SIZES):
        alone = run(model, batch[index : index + 1, :height, :width])
        assert together["flops"][index] == alone["flops"][0]
        np.testing.assert_allclose(
            together["ponder_cost"][index], alone["ponder_cost"][0], rtol=1e-5
        )
        for block, wanted in zip(together["blocks"], alone["blocks"], strict=True):
            assert block["positions"][index] == wanted["positions"][0]
            _, *sides, _ = wanted["output"].shape
            for key in ("output", "ponder_cost", "num_units"):
                values = block[key][index].numpy()
                if values.ndim > 1:
                    real = values[: sides[0], : sides[1]]
                    assert not values[sides[0] :].any()
                    assert not values[:, sides[1] :].any()
                    values = real
                expected = wanted[key][0].numpy()
                tolerance = 1e-5 * np.abs(expected).max()
                np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)


def trained(adaptivity, batch, sizes=None):
    """What a step with live batch norms gives: the record, gradients, statistics."""
    model = tiny(adaptivity, execution="auto", batch_norm_momentum=0.5)
    if adaptivity != "none":
        spread_halting(model)
    if sizes is not None:
        sizes = tf.constant(sizes)

    @tf.function(autograph=False)
    def step(batch):
        with tf.GradientTape() as tape:
            record = trunk.run(
                model.root_layer, model.blocks, batch, training=True, image_shapes=sizes
            )
            outputs = [block["output"] for block in record["blocks"]]
            loss = tf.reduce_sum([tf.reduce_sum(tf.sin(x)) for x in outputs])
            loss += tf.reduce_sum(record["ponder_cost"])
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        return record, {
            variable.name: gradient
            for variable, gradient in zip(variables, gradients, strict=True)
            if gradient is not None
        }

    record, gradients = step(batch)
    moving = {v.name: v.numpy() for v in model.variables if "moving" in v.name}
    return record, gradients, moving


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_live_batch_norm_does_not_see_the_padding(adaptivity):
    batch = images(3, 80, 98)  # What is in the padding must not matter.
    padded = trained(adaptivity, batch, 3 * [(71, 45)])
    expected = trained(adaptivity, batch[:, :71, :45])
    for block, wanted in zip(padded[0]["blocks"], expected[0]["blocks"], strict=True):
        for key in ("output", "num_units", "flops"):
            values = block[key].numpy()
            if values.ndim > 2:
                _, height, width, *_ = wanted[key].shape
                values = values[:, :height, :width]
            np.testing.assert_allclose(values, wanted[key], rtol=1e-3, atol=1e-3)
    for values, wanted in zip(padded[1:], expected[1:], strict=True):
        for name, value in wanted.items():
            error = np.abs(values[name] - value).max()
            assert error <= 1e-3 * np.abs(value).max() + 1e-4, name


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_live_batch_norm_of_several_sizes(adaptivity):
    batch = images(len(SIZES), 72, 98)
    record, gradients, moving = trained(adaptivity, batch, SIZES)
    batch = images(len(SIZES), 120, 130, seed=1)
    for index, (height, width) in enumerate(SIZES):
        batch[index, :height, :width] = images(len(SIZES), 72, 98)[
            index, :height, :width
        ]
    others = trained(adaptivity, batch, SIZES)
    for name, value in {**gradients, **moving}.items():
        assert np.isfinite(value).all(), name
        other = {**others[1], **others[2]}[name]
        np.testing.assert_allclose(
            other, value, rtol=1e-3, atol=1e-3 * np.abs(value).max() + 1e-4
        )
    # The first statistics by definition: of what the root makes of each image alone.
    root = tiny(adaptivity).root_layer
    alone = [
        np.reshape(root(batch[index : index + 1, :height, :width]), [-1, 8])
        for index, (height, width) in enumerate(SIZES)
    ]
    first = np.concatenate(alone)
    found = {name.split("/")[-1]: v for name, v in moving.items() if FIRST in name}
    np.testing.assert_allclose(
        found["moving_mean:0"], 0.5 * first.mean(axis=0), atol=1e-5
    )
    np.testing.assert_allclose(
        found["moving_variance:0"], 0.5 + 0.5 * first.var(axis=0), atol=1e-5
    )


@pytest.mark.parametrize("adaptivity, execution", [("act", "auto"), ("sact", "tiles")])
def test_one_halting_bias_for_each_image(adaptivity, execution):
    model = spread_halting(tiny(adaptivity, execution=execution))
    batch, biases = images(3, 64, 64), [-4.0, 0.0, 4.0]
    together = model.introspect(batch, halting_bias=biases)
    flops = together["flops"].numpy()
    assert flops[0] > flops[2]
    for index, bias in enumerate(biases):
        alone = model.introspect(batch[index : index + 1], halting_bias=bias)
        assert flops[index] == alone["flops"][0]
        np.testing.assert_allclose(
            together["logits"][index], alone["logits"][0], atol=1e-5
        )


@pytest.mark.parametrize("bias", [[0.0, 1.0], [[0.0]]])
def test_other_numbers_of_halting_biases(bias):
    with pytest.raises(ValueError, match="halting_bias must be a number, or one for"):
        tiny()(images(3, 64, 64), halting_bias=tf.constant(bias))


def test_the_cifar_family_takes_no_padding():
    model = sact_tf.ResNet("cifar", units=(1, 1, 1), num_classes=2)
    with pytest.raises(ValueError, match="for the imagenet family"):
        run(model, images(1, 32, 32), image_shapes=tf.constant([[20, 20]]))
