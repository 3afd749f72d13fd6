"""Samplers: known matrices, what constants become, and gradients to the saliency."""

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.layers import adaptive_sampling as sampling
from sact_tf.layers.adaptive_sampling import (
    DepthwiseSampler,
    SeparableSampler,
    attraction,
    marginals,
    overlap,
    quantiles,
    restore,
    sample,
)
from sact_tf.layers.maker import Maker

MAPS = np.random.default_rng(0).normal(size=(2, 9, 6, 8)).astype("f")
MAKE = Maker(momentum=0.9, epsilon=1e-3)
EVERY = [overlap, quantiles, attraction]


def of_one(matrices):
    return matrices.sample[0].numpy(), matrices.inverse[0].numpy().T


def saliency(height, width, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return tf.constant(scale * rng.normal(size=[1, height, width]))


@pytest.mark.parametrize(
    "marginal, size, expected, inverse",
    [
        (
            [0.7, 0.1, 0.1, 0.1],
            2,
            [[1, 0, 0, 0], [0.4, 0.2, 0.2, 0.2]],
            [[5 / 7, 2 / 7], [0, 1], [0, 1], [0, 1]],
        ),
        (
            [0.4, 0.3, 0.2, 0.1],
            3,
            [[1, 0, 0, 0], [0.2, 0.8, 0, 0], [0, 0.1, 0.6, 0.3]],
            [[5 / 6, 1 / 6, 0], [0, 8 / 9, 1 / 9], [0, 0, 1], [0, 0, 1]],
        ),
    ],
)
def test_overlap_by_hand(marginal, size, expected, inverse):
    found = of_one(overlap(tf.constant([marginal], tf.float64), size))
    np.testing.assert_allclose(found[0], expected, atol=1e-9)
    np.testing.assert_allclose(found[1], inverse, atol=1e-9)


def test_where_uniform_overlap_and_interpolation_differ_and_where_not():
    uniform = tf.fill([1, 7], 1 / 7)
    area, linear = of_one(overlap(uniform, 4))[0], of_one(quantiles(uniform, 4))[0]
    np.testing.assert_allclose(area[0], [4 / 7, 3 / 7, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(area[1], [0, 1 / 7, 4 / 7, 2 / 7, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(area[2:], area[1::-1, ::-1], atol=1e-6)
    np.testing.assert_allclose(linear[0], [0.625, 0.375, 0, 0, 0, 0, 0], atol=1e-6)
    uniform = tf.fill([1, 4], 1 / 4)
    for one, other in zip(
        of_one(overlap(uniform, 2)), of_one(quantiles(uniform, 2)), strict=True
    ):
        if one.shape == (2, 4):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_uniform_quantiles_are_bilinear_interpolation():
    lines, columns = (quantiles(tf.fill([1, n], 1 / n), n // 2) for n in (9, 6))
    small = sample(MAPS, lines.sample, columns.sample)
    np.testing.assert_allclose(small, tf.image.resize(MAPS, (4, 3)), atol=1e-5)
    large = restore(small, lines.inverse, columns.inverse)
    np.testing.assert_allclose(large, tf.image.resize(small, (9, 6)), atol=1e-5)


def test_means_of_areas_by_hand():
    maps = np.arange(9.0).reshape(1, 3, 3, 1)
    lines, columns = (overlap(m, 2) for m in marginals(tf.zeros([1, 3, 3], tf.float64)))
    small = sample(maps, lines.sample, columns.sample)
    expected = [[4 / 3, 8 / 3], [16 / 3, 20 / 3]]
    np.testing.assert_allclose(small[0, ..., 0], expected)
    large = restore(small, lines.inverse, columns.inverse)
    expected = [[4 / 3, 2, 8 / 3], [10 / 3, 4, 14 / 3], [16 / 3, 6, 20 / 3]]
    np.testing.assert_allclose(large[0, ..., 0], expected)


def test_gradient_to_the_saliency():
    maps = np.arange(9.0).reshape(1, 3, 3, 1)
    values = [[0.3, -0.2, 0.1], [0.5, 0, -0.4], [0.2, 0.1, -0.3]]
    given = tf.constant([values], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(given)
        lines, columns = (overlap(marginal, 2) for marginal in marginals(given))
        small = sample(maps, lines.sample, columns.sample)
        large = restore(small, lines.inverse, columns.inverse)
        loss = tf.reduce_mean(large**2)
    np.testing.assert_allclose(loss, 18.440066825, rtol=1e-9)
    gradient = tape.gradient(loss, given)
    expected = [
        [-0.57677, -0.76665, -0.14949],
        [-0.88662, -1.04686, -0.16472],
        [1.56784, 0.85599, 1.16728],
    ]
    np.testing.assert_allclose(gradient[0], expected, atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(gradient), 0, atol=1e-9)


@pytest.mark.parametrize("matrices", EVERY)
@pytest.mark.parametrize("height, size", [(9, 4), (5, 5), (7, 1), (1, 1)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 200.0])
def test_constants_survive_whatever_the_saliency(matrices, height, size, scale):
    for marginal in marginals(tf.cast(saliency(height, height, 1, scale), tf.float32)):
        found = matrices(marginal, size)
        assert found.sample.shape == [1, size, height]
        assert found.inverse.shape == [1, size, height]
        for rows in (found.sample, tf.transpose(found.inverse, [0, 2, 1])):
            np.testing.assert_allclose(tf.reduce_sum(rows, axis=2), 1.0, atol=1e-5)
            assert np.all(rows.numpy() >= 0)
        points = found.points.numpy()[0]
        assert np.all(np.diff(points) >= -1e-6) and 0 <= points[0] <= points[-1] <= 1


@pytest.mark.parametrize("matrices", [overlap, quantiles])
def test_as_many_uniform_samples_as_positions_are_the_identity(matrices):
    for rows in matrices(tf.fill([1, 7], 1 / 7), 7):
        np.testing.assert_allclose(rows[0], np.eye(7), atol=2e-6)


@pytest.mark.parametrize("matrices", EVERY)
def test_samples_go_where_the_saliency_is(matrices):
    peak = tf.constant([[0.02] * 6 + [0.44, 0.44]])
    points = matrices(peak, 4).points[0]
    uniform = matrices(tf.fill([1, 8], 1 / 8), 4).points[0]
    assert np.all(points[1:] > uniform[1:] + 0.05)


def test_symmetries():
    given, x = saliency(5, 5), np.random.default_rng(1).normal(size=[1, 5, 5, 2])

    def small(values, maps):
        lines, columns = (overlap(marginal, 3) for marginal in marginals(values))
        return sample(maps, lines.sample, columns.sample).numpy()

    expected = small(given, x)
    np.testing.assert_allclose(small(given + 3.0, x), expected)
    turned = small(tf.transpose(given, [0, 2, 1]), x.transpose(0, 2, 1, 3))
    np.testing.assert_allclose(turned.transpose(0, 2, 1, 3), expected)


@pytest.mark.parametrize("kind", sampling.SAMPLERS)
@pytest.mark.parametrize("size", [3, 0.5, 1.0])
def test_layer(kind, size):
    layer = SeparableSampler(kind, 8, size, make=MAKE, name="sampler")
    seen = layer(MAPS)
    down, across = layer.sizes(MAPS)
    assert seen.maps.shape == [2, down, across, 8]
    restored = seen.restore(seen.maps[..., :5])
    assert restored.shape == [2, 9, 6, 5]


def test_constant_saliency_is_the_uniform_sampler():
    adaptive = SeparableSampler("adaptive", 8, 4, make=MAKE, name="a")
    adaptive.saliency.kernel.assign(tf.zeros_like(adaptive.saliency.kernel))
    uniform = SeparableSampler("uniform", 8, 4, make=MAKE, name="u")
    np.testing.assert_array_equal(adaptive(MAPS).maps, uniform(MAPS).maps)
    assert uniform.weights == []


@pytest.mark.parametrize("kind", ["adaptive", "uniform", "quantiles", "bilinear"])
def test_padding_is_not_sampled(kind):
    layer = SeparableSampler(kind, 8, 3, make=MAKE, name="sampler")
    padded = np.pad(MAPS, [(0, 0), (0, 4), (0, 5), (0, 0)], constant_values=1e3)
    valid = np.zeros(padded.shape[:3], bool)
    valid[:, :9, :6] = True
    seen, alone = layer(padded, valid=tf.constant(valid)), layer(MAPS)
    np.testing.assert_allclose(seen.maps, alone.maps, atol=1e-3)
    restored = seen.restore(seen.maps)[:, :9, :6]
    np.testing.assert_allclose(restored, alone.restore(alone.maps), atol=1e-3)


def test_depthwise_layer():
    layer = DepthwiseSampler(8, make=MAKE, name="sampler")
    assert [w.shape for w in layer.trainable_weights] == [[5, 5, 8, 1], [8], [8]]
    seen = layer(MAPS)
    assert seen.maps.shape == [2, 5, 3, 8] and layer.sizes(MAPS) == (5, 3)
    assert seen.restore(seen.maps).shape == MAPS.shape
    taps = MAPS[0, 2:7, 1:6, 0] * layer.kernel[..., 0, 0]
    expected = np.sum(taps) / np.sqrt(1 + 1e-3)
    # "SAME" begins one position before an even side, and two before an odd one.
    np.testing.assert_allclose(seen.maps[0, 2, 1, 0], expected, rtol=1e-4)
    with pytest.raises(ValueError, match="leaves 5 of a map"):
        DepthwiseSampler(8, 4, make=MAKE, name="sampler")(MAPS)


def test_more_samples_than_positions_are_refused():
    layer = SeparableSampler("adaptive", 8, 7, make=MAKE, name="sampler")
    with pytest.raises(ValueError, match="than the map has: 6 along axis 2"):
        layer(MAPS)
