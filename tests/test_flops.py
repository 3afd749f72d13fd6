import functools

import numpy as np
import pytest
import tensorflow as tf

import sact_tf
from sact_tf import flops
from tests import golden

# The supplement's table 1: FLOPs of the non-adaptive networks at 224 and at 352 pixels.
PUBLISHED = [
    ((3, 4, 6, 3), "8.18e9", "2.02e10"),  # ResNet-50, and ACT 0.005's baseline
    ((3, 4, 23, 3), "1.56e10", "3.85e10"),  # ResNet-101
    ((3, 3, 3, 3), "6.43e9", "1.59e10"),
    ((3, 4, 14, 3), "1.17e10", "2.88e10"),
    ((3, 4, 18, 3), "1.34e10", "3.31e10"),
    ((3, 2, 4, 3), "6.43e9", "1.59e10"),
    ((2, 4, 13, 3), "1.08e10", "2.67e10"),
    ((3, 4, 20, 3), "1.43e10", "3.53e10"),
]


@functools.lru_cache(maxsize=2)
def plain_network(units):
    return sact_tf.ResNet(units=units, adaptivity="none")


def plain_flops(units, size):
    model = plain_network(units)
    trace = tf.function(lambda x: model(x, training=False, with_record=True)["flops"])
    # FLOPs depend on the size alone: the convolutions are pruned from this graph.
    return int(trace(tf.zeros([1, size, size, 3]))[0])


@pytest.mark.parametrize("depth, units", [(50, (3, 4, 6, 3)), (101, (3, 4, 23, 3))])
@pytest.mark.parametrize("size", [224, 352])
def test_equal_to_the_authors_integers(depth, units, size):
    expected = np.load(golden.SAMPLES / "flops_vanilla.npz")
    assert plain_flops(units, size) == expected[f"resnet{depth}_{size}/flops"]


@pytest.mark.parametrize("size", [224, 352])
def test_blocks_equal_the_authors_integers(size):
    expected = np.load(golden.SAMPLES / "flops_vanilla.npz")
    model = sact_tf.ResNet(units=50, adaptivity="none")
    record = model.introspect(tf.zeros([1, size, size, 3]))
    for block in record["blocks"]:
        key = f"resnet50_{size}/{block['name']}/flops"
        assert int(block["flops"][0]) == np.ravel(expected[key])[0]


@pytest.mark.parametrize("units, at_224, at_352", PUBLISHED)
def test_published_baselines_to_three_digits(units, at_224, at_352):
    for size, published in ((224, at_224), (352, at_352)):
        ours = float(f"{plain_flops(units, size):.2e}")
        assert ours == float(published), f"{units} at {size}: {ours} != {published}"


def test_two_operations_per_multiply_add():
    counted = flops.convolution([3, 3, 5, 7], tf.constant([2, 10], tf.int64))
    np.testing.assert_array_equal(counted, [2 * 315 * 2, 2 * 315 * 10])
    assert counted.dtype == tf.int64


MASK = np.random.default_rng(1).uniform(size=(2, 5, 7)) < 0.3


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_computed_positions(radius):
    near = np.zeros_like(MASK)
    for image, y, x in np.argwhere(MASK):
        rows = slice(max(y - radius, 0), y + radius + 1)
        near[image, rows, max(x - radius, 0) : x + radius + 1] = True
    counts = flops.computed_positions(
        tf.constant(MASK)[tf.newaxis], tf.constant([35, 35], tf.int64), radius
    )
    np.testing.assert_array_equal(counts, near.sum(axis=(1, 2)))
    assert counts.dtype == tf.int64
    np.testing.assert_array_equal(
        flops.scored_images(tf.constant([MASK, MASK])), [2, 2]
    )


def test_computed_images():
    active = tf.constant([True, False])
    positions = tf.constant([35, 35], tf.int64)
    counts = flops.computed_positions(active[tf.newaxis], positions, radius=1)
    np.testing.assert_array_equal(counts, [35, 0])
    np.testing.assert_array_equal(
        flops.scored_images(tf.stack([active, active])), [2, 0]
    )
