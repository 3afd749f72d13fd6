import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import Dense, Extent
from sact_tf.layers.maker import Maker
from sact_tf.layers.post_activation_units import PostActivationUnit

MAKE = Maker(momentum=0.9, epsilon=1e-3)
MAPS = np.abs(np.random.default_rng(0).normal(size=(2, 9, 6, 8))).astype("f")


def unit(stride=1, width=2, scale=1.0):
    layer = PostActivationUnit(8, width, stride=stride, make=MAKE, name="unit")
    layer.conv3_norm.gamma.assign(tf.fill([4 * width], scale))
    return layer


def test_unit_by_definition():
    layer = unit()

    def normed(x):
        return x / np.sqrt(1 + 1e-3)

    x = tf.nn.relu(normed(tf.nn.conv2d(MAPS, layer.conv1.kernel, 1, "SAME")))
    x = tf.nn.relu(normed(tf.nn.conv2d(x, layer.conv2.kernel, 1, "SAME")))
    x = normed(tf.nn.conv2d(x, layer.conv3.kernel, 1, "SAME"))
    np.testing.assert_allclose(layer(MAPS), tf.nn.relu(MAPS + x), atol=1e-5)


def test_residual_of_a_geometry_and_its_gradient_are_those_of_the_relu():
    # Many zeros, and f = 0 everywhere: ties.
    maps = tf.constant(np.maximum(MAPS - 1, 0))
    for scale in (0.0, 1.0):
        layer = unit(scale=scale)
        found = []
        for geometric in (False, True):
            with tf.GradientTape() as tape:
                tape.watch(maps)
                if geometric:
                    geometry = Dense(maps)
                    geometry.add(layer.branch()(geometry))
                    outputs = geometry.features(0)
                else:
                    outputs = layer(maps)
                loss = tf.reduce_sum(outputs**2)
            sources = [maps, *layer.trainable_variables]
            found.append((outputs, *tape.gradient(loss, sources)))
        for value, other in zip(*found, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-4)


def test_unit_begins_as_its_shortcut():
    fresh = PostActivationUnit(8, 2, make=MAKE, name="unit")
    np.testing.assert_array_equal(fresh(MAPS), MAPS)
    changed = unit()
    assert np.abs(changed(MAPS) - MAPS).max() > 0.1
    changed.begin_as_identity()
    np.testing.assert_array_equal(changed(MAPS), MAPS)


@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_as_if_it_were_not_there(stride):
    layer = unit(stride, width=3)
    sizes = np.array([[9, 6], [7, 3]], np.int32)
    padded = MAPS.copy()
    padded[1, 7:] = padded[1, :, 3:] = 1e3
    valid = Extent(tf.constant(sizes)).valid(padded)
    outputs = layer(padded, valid=valid).numpy()
    for image, (height, width) in enumerate(sizes):
        alone = layer(MAPS[image : image + 1, :height, :width])
        size = alone.shape[1:3]
        np.testing.assert_allclose(
            outputs[image, : size[0], : size[1]], alone[0], atol=1e-5
        )


def test_shortcut_pools_windows_of_the_stride():
    layer = unit(2, width=2, scale=0.0)
    layer.shortcut.kernel.assign(np.eye(8)[None, None])
    expected = [MAPS[:, y : y + 2, x : x + 2].mean((1, 2)) for y in (0, 8) for x in [4]]
    outputs = layer(MAPS).numpy() * np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(outputs[:, 0, 2], expected[0], rtol=1e-5)
    # The last line of an odd side is a window of its own.
    np.testing.assert_allclose(outputs[:, 4, 2], expected[1], rtol=1e-5)
