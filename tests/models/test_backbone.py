"""Batches of images of several sizes, and one halting bias for each image."""

import numpy as np
import pytest
import tensorflow as tf

import sact_tf
from sact_tf.geometry import Extent
from tests.models.test_resnet import images, spread_halting, tiny

#: Even and odd sides, before and after the first convolution.
SIZES = [(71, 45), (64, 96), (33, 62), (35, 96)]
# Networks as small as these are dense for "auto", but those of ACT.
KINDS = [("none", "auto", 1), ("act", "dense", 1), ("act", "auto", 1)] + [
    ("sact", execution, tile_size)
    for execution in ("dense", "positions", "tiles")
    for tile_size in (1, 3)
]


def run(model, batch, **options):
    return model.run(batch, training=False, **options)


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
    """A step of two blocks with live batch norms: records, gradients, statistics."""
    model = tiny(adaptivity, batch_norm_momentum=0.5)
    if adaptivity != "none":
        spread_halting(model)
    blocks = model.blocks[:2]
    layers = [model.root_layer, *blocks]
    variables = [v for layer in layers for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        record = model.run(
            batch,
            training=True,
            image_shapes=None if sizes is None else tf.constant(sizes),
            num_blocks=2,
        )
        loss = tf.reduce_sum(record["ponder_cost"])
        for block in record["blocks"]:
            loss += tf.reduce_sum(tf.sin(block["output"]))
    gradients = [value.numpy() for value in tape.gradient(loss, variables)]
    moving = [v.numpy() for layer in layers for v in layer.non_trainable_variables]
    return record["blocks"], gradients, moving


def assert_equal(results, expected):
    """Within rounding; some gradients are sums of large numbers, and really zero."""
    largest = max(np.abs(value).max() for value in expected)
    for result, value in zip(results, expected, strict=True):
        error = np.abs(result - value).max()
        assert error <= 1e-3 * np.abs(value).max() + 1e-5 * largest


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_live_batch_norm_of_padded_images_of_one_size(adaptivity):
    batch = images(3, 48, 60)
    padded, *changes = trained(adaptivity, batch, 3 * [(39, 29)])
    records, *expected = trained(adaptivity, batch[:, :39, :29])
    for block, wanted in zip(padded, records, strict=True):
        _, height, width, _ = wanted["output"].shape
        output = block["output"][:, :height, :width]
        np.testing.assert_allclose(output, wanted["output"], rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(block["flops"], wanted["flops"])
    for results, values in zip(changes, expected, strict=True):
        assert_equal(results, values)


@pytest.mark.parametrize("adaptivity", ["none", "sact"])
def test_live_batch_norm_of_images_of_several_sizes(adaptivity):
    sizes = [(39, 29), (36, 54), (17, 40)]
    small, large = images(3, 40, 56), images(3, 75, 83, seed=1)
    for index, (height, width) in enumerate(sizes):
        large[index, :height, :width] = small[index, :height, :width]
    _, *changes = trained(adaptivity, small, sizes)
    _, *others = trained(adaptivity, large, sizes)
    for results, values in zip(others, changes, strict=True):
        assert_equal(results, values)
    # The first statistics by definition: of what the root makes of each image alone.
    root = tiny(adaptivity).root_layer
    alone = np.concatenate(
        [
            np.reshape(root(small[index : index + 1, :height, :width]), [-1, 8])
            for index, (height, width) in enumerate(sizes)
        ]
    )
    _, (mean, variance, *_) = changes
    np.testing.assert_allclose(mean, 0.5 * alone.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(variance, 0.5 + 0.5 * alone.var(axis=0), atol=1e-5)


def test_the_root_leaves_zeros_beyond_an_image():
    # And no huge numbers, whose products with a gradient of zero are not zero.
    features = tiny("none").root_layer(
        images(2, 64, 64), extent=Extent(tf.constant(2 * [(33, 20)]))
    )
    assert not features[:, 9:].numpy().any() and not features[:, :, 5:].numpy().any()
    assert features[:, :9, :5].numpy().all()


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
