"""What is particular to each layer; see tests/conformance for what is not."""

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import Dense, winograd
from sact_tf.layers.convolution import Convolution
from sact_tf.layers.halting_scores import GlobalHaltingScore, SpatialHaltingScore
from sact_tf.layers.maker import Maker
from sact_tf.layers.normalization import BatchNormalization
from sact_tf.layers.post_activation_units import PostActivationUnit
from sact_tf.layers.residual_units import BasicUnit, BottleneckUnit

NORM = {"momentum": 0.9, "epsilon": 1e-3}
MAKE = Maker(**NORM)
MAPS = np.random.default_rng(0).normal(size=(2, 9, 6, 8)).astype("f")

STRIDED = [(BottleneckUnit, 2), (BasicUnit, 12), (PostActivationUnit, 3)]


def test_one_by_one_convolution_of_vectors_is_that_of_maps():
    layer = Convolution(8, 5, 1, use_bias=True, initial_bias=0.5, name="conv")
    vectors = layer(MAPS.reshape(-1, 8))
    np.testing.assert_allclose(vectors, np.reshape(layer(MAPS), [-1, 5]), atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_surroundings_that_inputs_bring_themselves(bias):
    layer = Convolution(8, 5, 3, use_bias=bias, initial_bias=0.5, name="conv")
    expected = layer(MAPS)
    haloed = np.pad(MAPS, [(0, 0), (1, 1), (1, 1), (0, 0)])
    filters = layer.values()
    np.testing.assert_allclose(filters.on_tiles(haloed), expected, atol=1e-5)
    height, width = MAPS.shape[1:3]
    neighbours = np.concatenate(
        [haloed[:, y : y + height, x : x + width] for y in range(3) for x in range(3)],
        axis=-1,
    )
    rows = filters.on_neighbours(neighbours.reshape(1, -1, 1, 9 * 8))
    np.testing.assert_allclose(
        np.reshape(rows, expected.shape), expected, rtol=1e-4, atol=1e-5
    )
    # The tile of 2x2 in the corner, with everything around it.
    count = len(MAPS)
    around = np.reshape(haloed[:, :4, :4], [count, 16, 8]).transpose(1, 0, 2)
    np.testing.assert_allclose(
        np.transpose(winograd.convolve_tiles(around, filters), [1, 0, 2]),
        np.reshape(expected[:, :2, :2], [count, 4, 5]) - 0.5 * bias,
        atol=1e-5,
    )


def test_explicit_padding_does_not_depend_on_the_stride():
    whole = Convolution(8, 5, 3, name="whole")
    half = Convolution(8, 5, 3, stride=2, explicit_padding=True, name="half")
    half.kernel.assign(whole.kernel)
    np.testing.assert_allclose(half(MAPS), whole(MAPS)[:, ::2, ::2], atol=1e-5)


def test_batch_norm_by_definition():
    layer = BatchNormalization(8, name="norm", **NORM)
    layer.gamma.assign(np.linspace(0.5, 2, 8))
    layer.beta.assign(np.linspace(-1, 1, 8))
    mean, variance = MAPS.mean(axis=(0, 1, 2)), MAPS.var(axis=(0, 1, 2))
    outputs = layer(MAPS, training=True)
    expected = (MAPS - mean) / np.sqrt(variance + 1e-3) * layer.gamma + layer.beta
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    # The biased variance, where tf_keras takes the unbiased one.
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, atol=1e-6)
    for training in (True, False):
        np.testing.assert_allclose(
            layer.bound(training).activated(tf.constant(MAPS), tf.nn.relu),
            tf.nn.relu(layer(MAPS, training=training)),
            atol=1e-6,
        )
    rows = layer(MAPS.reshape(-1, 8), training=False)
    np.testing.assert_allclose(rows, np.reshape(layer(MAPS), [-1, 8]), atol=1e-6)


def test_batch_norm_of_a_single_row():
    layer = BatchNormalization(8, name="norm", **NORM)
    layer(MAPS[:1, 0, 0], training=True)
    np.testing.assert_allclose(layer.moving_variance, np.full(8, 0.9), atol=1e-6)


@pytest.mark.parametrize("kind, width", [(BottleneckUnit, 2), (BasicUnit, 8)])
def test_unit_on_a_geometry_is_the_unit_on_a_map(kind, width):
    layer = kind(8, width, make=MAKE, name="unit")
    unit_input = tf.constant(MAPS)
    geometry = Dense(unit_input)
    geometry.add(layer.branch()(geometry))
    np.testing.assert_allclose(geometry.features(0), layer(unit_input), atol=1e-5)


@pytest.mark.parametrize("height, width", [(8, 8), (9, 6), (7, 7), (1, 1)])
def test_strided_units_round_up(height, width):
    maps = np.zeros([1, height, width, 8], np.float32)
    for kind, channels in STRIDED:
        unit = kind(8, channels, stride=2, make=MAKE, name="unit")
        shape = unit(maps).shape
        assert shape[1:3] == (-(-height // 2), -(-width // 2))


@pytest.mark.parametrize("kind", [GlobalHaltingScore, SpatialHaltingScore])
def test_halting_scores_by_definition(kind):
    layer = kind(8, make=MAKE, name="halting")
    scores = layer(Dense(tf.constant(MAPS), kind is GlobalHaltingScore)).numpy()
    scale = 1 / np.sqrt(1 + 1e-3)
    logits = (MAPS.mean(axis=(1, 2)) * scale) @ layer.global_conv.kernel[0, 0] - 3.0
    if kind is SpatialHaltingScore:
        local = tf.nn.conv2d(MAPS * scale, layer.local_conv.kernel, 1, "SAME")
        logits = logits[:, np.newaxis] + local[..., 0]
    else:
        logits = logits[:, 0]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert scores.dtype == np.float32


def test_halting_scores_start_at_a_bias_of_minus_three():
    for kind in (GlobalHaltingScore, SpatialHaltingScore):
        layer = kind(8, make=MAKE, name="halting")
        zeros = Dense(tf.zeros_like(MAPS), kind is GlobalHaltingScore)
        np.testing.assert_allclose(layer(zeros), 1 / (1 + np.exp(3)), rtol=1e-5)
