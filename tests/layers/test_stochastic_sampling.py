"""Gumbel samples, the grid, interpolation: the spec's numbers."""

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.layers.maker import Maker
from sact_tf.layers.stochastic_sampling import (
    MaskSampler,
    Sampling,
    blend,
    grid_prior,
    gumbel,
    relaxed_sample,
    spread,
    taps,
)

MAPS = np.random.default_rng(0).normal(size=(2, 9, 6, 8)).astype("f")


def samples(logit, temperature, count=200_000):
    noise = gumbel(tf.random.stateless_uniform([count, 2], [1, 2]))
    return relaxed_sample(tf.fill([count], logit), temperature, noise).numpy()


def logit_of(probability):
    return float(np.log(probability / (1 - probability)))


@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.03])
def test_values_of_one_half_have_the_probability_of_the_logit(temperature):
    assert abs(np.mean(samples(3.0, temperature) >= 0.5) - 0.9526) < 0.002


@pytest.mark.parametrize(
    "logit, temperature, mean",
    [
        (3.0, 1.0, 0.886),
        (3.0, 0.03, 0.952),
        (logit_of(0.1), 1.0, 0.184),
        (logit_of(0.1), 0.03, 0.1005),
    ],
)
def test_mean_of_relaxed_samples(logit, temperature, mean):
    assert abs(np.mean(samples(logit, temperature)) - mean) < 0.003


@pytest.mark.parametrize(
    "side, density", [(56, 0.0115), (28, 0.0115), (14, 0.0204), (7, 0.0204)]
)
def test_grid(side, density):
    prior = grid_prior(side, side, 11)
    assert prior[0, 0] and not prior[0, 1]
    assert abs(np.mean(prior) - density) < 1e-4


@pytest.mark.parametrize(
    "sharpness, offset, share, tolerance",
    [
        (3.0, (0, 1), 0.99937, 1e-5),
        (3.0, (1, 1), 0.946, 1e-3),
        (3.0, (0, 2), 0.0022, 1e-4),
        (3.0, (1, 2), 0.0, 1e-4),
        (1.0, (0, 1), 0.9999, 1e-4),
        (1.0, (0, 2), 0.9995, 1e-4),
        (1.0, (0, 3), 0.9944, 1e-4),
        (1.0, (3, 3), 0.6626, 1e-4),
        (0.5, (3, 3), 0.9976, 1e-4),
        (0.5, (0, 4), 0.0, 1e-9),
    ],
)
def test_what_one_sample_becomes_around_it(sharpness, offset, share, tolerance):
    values = np.zeros([1, 9, 9], np.float32)
    values[0, 4, 4] = 1.0
    weighted = 2.5 * values[..., np.newaxis]
    blended = blend(weighted, values, taps(tf.constant(sharpness), 7))
    found = blended[0, 4 + offset[0], 4 + offset[1], 0]
    np.testing.assert_allclose(found, 2.5 * share, atol=2.5 * tolerance)
    np.testing.assert_allclose(blended[0, 4, 4, 0], 2.5)


def test_interpolation_by_definition():
    rng = np.random.default_rng(1)
    values = rng.uniform(size=MAPS.shape[:3]).astype("f")
    distance = np.arange(7) - 3
    square = distance[:, None] ** 2 + distance**2
    kernel = np.float32(4 / (2 * np.pi) * np.exp(-4 * square / 2))
    sums = []
    for maps in (MAPS * values[..., None], values[..., None]):
        full = np.tile(kernel[:, :, None, None], [1, 1, maps.shape[-1], 1])
        sums.append(tf.nn.depthwise_conv2d(maps, full, [1] * 4, "SAME").numpy())
    rebuilt = sums[0] / (sums[1] + 1e-5)
    expected = values[..., None] * MAPS + (1 - values[..., None]) * rebuilt
    found = blend(values[..., None] * MAPS, values, taps(tf.constant(-2.0), 7))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_where_everything_is_sampled_nothing_changes():
    ones = np.ones(MAPS.shape[:3], np.float32)
    np.testing.assert_array_equal(blend(MAPS, ones, taps(tf.constant(3.0), 7)), MAPS)


def test_constants_survive_next_to_samples():
    values = tf.cast(grid_prior(9, 9, 2), tf.float32)[tf.newaxis]
    weighted = 5.0 * values[..., tf.newaxis]
    blended = blend(weighted, values, taps(tf.constant(1.0), 7))
    np.testing.assert_allclose(blended, np.full([1, 9, 9, 1], 5.0), rtol=1e-3)


def sampler(stride=1, number=0, **options):
    return MaskSampler(
        8, stride, number, Sampling.checked(options), make=Maker(), name="mask"
    )


@pytest.mark.parametrize("stride, shape", [(1, (2, 9, 6)), (2, (2, 5, 3))])
def test_fresh_masks(stride, shape):
    layer = sampler(stride)
    mask = layer(MAPS)
    assert mask.values.shape == mask.kept.shape == mask.probability.shape == shape
    np.testing.assert_allclose(mask.probability, np.full(shape, 0.9526), atol=1e-4)
    values = mask.values.numpy()
    assert np.all((values == 0) | (values >= 0.5)) and np.all(values[:, 0, 0] == 1)
    np.testing.assert_array_equal(mask.kept, values >= 0.5)


def test_masks_of_inference_are_always_the_same_and_of_images_alike():
    layer = sampler()
    layer.logits.bias.assign([0.0])
    first = layer(MAPS).values.numpy()
    assert 0.2 < np.mean(first > 0) < 0.8
    np.testing.assert_array_equal(layer(MAPS).values, first)
    np.testing.assert_array_equal(layer(MAPS[1:]).values[0], first[1])
    for other in (sampler(seed=1), sampler(number=1)):
        other.logits.bias.assign([0.0])
        assert np.any(other(MAPS).values.numpy() != first)


def test_without_noise_what_is_likelier_than_not_is_sampled():
    layer = sampler(seed=None)
    for bias, kept in ((0.01, True), (-0.01, False)):
        layer.logits.bias.assign([bias])
        expected = np.full([2, 9, 6], kept)
        expected[:, 0, 0] = True  # The grid.
        np.testing.assert_array_equal(layer(MAPS).kept, expected)


def test_noise_of_training_is_new_for_every_step_and_image():
    layer = sampler()
    steps = [
        layer(MAPS, tf.constant(step, tf.int64), tf.constant(1.0)).values.numpy()
        for step in (0, 1, 0)
    ]
    np.testing.assert_array_equal(steps[0], steps[2])
    assert np.mean(steps[0] == steps[1]) < 0.1  # The grid is alike.
    assert np.mean(steps[0][0] == steps[0][1]) < 0.1


def test_no_gradient_goes_through_the_grid():
    layer = sampler(grid=100)
    with tf.GradientTape() as tape:
        mask = layer(MAPS, tf.constant(0, tf.int64), tf.constant(1.0))
        loss = tf.reduce_sum(mask.values[:, 0, 0])
    gradient = tape.gradient(loss, layer.logits.bias)
    np.testing.assert_array_equal(gradient, [0.0])


def test_spread_does_not_pass_the_edges():
    ones = tf.ones([1, 3, 4, 2])
    kernel = tf.ones([3])
    expected = np.outer([2, 3, 2], [2, 3, 3, 2])
    np.testing.assert_allclose(spread(ones, kernel)[0, ..., 1], expected)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"temperature": 0}, "temperature of masks must be a number above zero"),
        ({"temperature": -1.0}, "temperature"),
        ({"grid": 0}, "grid of masks must be an integer of at least 1"),
        ({"window": 4}, "odd integer"),
        ({"seed": -1}, "seed of masks"),
        ({"step": 3}, "can have the options grid, window"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling.checked(options)
