import functools

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.layers.adaptive_sampling import NAMES
from sact_tf.layers.maker import Maker
from sact_tf.layers.sampled_blocks import SampledUnit

MAKE = Maker(momentum=0.9, epsilon=1e-3)
MAPS = np.abs(np.random.default_rng(0).normal(size=(2, 9, 6, 8))).astype("f")
#: Units of the depths; sides and channels of the maps of blocks 2 to 4 for 224 pixels.
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SIDES, CHANNELS = (28, 14, 7), (512, 1024, 2048)
#: ResNet-D-50 without any unit but the first of each block, and one later unit, in
#: multiply-adds.
FIRST_UNITS = 4_328_824_832 - 12 * 218_365_952
PLAIN_UNIT = 218_365_952


def unit(sampling="adaptive", size=4, **options):
    layer = SampledUnit(
        8, 2, sampling=sampling, size=size, make=MAKE, name="unit", **options
    )
    layer.conv3_norm.gamma.assign(tf.ones([8]))
    return layer


@functools.cache
def multiply_adds(sampling, size, side, channels):
    layer = SampledUnit(
        channels,
        channels // 4,
        sampling=sampling,
        size=size,
        make=MAKE,
        name="unit",
    )
    flops = layer.seen(tf.zeros([1, side, side, channels])).flops
    weights = sum(v.shape.num_elements() for v in layer.sampler.trainable_weights)
    return int(flops[0]) // 2, weights


def network(depth, sampling, sizes):
    """Billions of multiply-adds of a network, and millions of parameters too many."""
    units = DEPTHS[depth]
    total, parameters = FIRST_UNITS + (units[0] - 1) * PLAIN_UNIT, 0
    for count, size, side, channels in zip(
        units[1:], sizes, SIDES, CHANNELS, strict=True
    ):
        one, weights = multiply_adds(sampling, size, side, channels)
        total += (count - 1) * one
        parameters += (count - 1) * weights
    return total / 1e9, parameters


A_ROWS = {
    (12, 6, 3): (2.61, 3.35, 4.14),
    (16, 8, 4): (2.95, 4.25, 5.61),
    (20, 10, 5): (3.38, 5.40, 7.49),
}
U_ROWS = {
    (12, 6, 3): (2.61, 3.35, 4.13),
    (16, 8, 4): (2.95, 4.25, 5.60),
    (20, 10, 5): (3.38, 5.40, 7.49),
}
ADAPTIVE = {50: 25_587_016, 101: 44_596_552, 152: 60_255_560}
PLAIN = {50: 25_576_264, 101: 44_568_392, 152: 60_212_040}
DEPTHWISE = {50: 25_866_568, 101: 45_328_712, 152: 61_387_080}


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("sizes", A_ROWS)
def test_rows_of_the_supplements_tables(sizes, depth):
    column = list(DEPTHS).index(depth)
    total, parameters = network(depth, "adaptive", sizes)
    assert round(total, 2) == A_ROWS[sizes][column]  # To the printed digit.
    assert PLAIN[depth] + parameters == ADAPTIVE[depth]
    total, parameters = network(depth, "uniform", sizes)
    assert parameters == 0
    # Three of the nine are printed 0.01 higher, as those of the adaptive sampler.
    assert abs(total - U_ROWS[sizes][column]) < 0.01


@pytest.mark.parametrize("depth", DEPTHS)
def test_rows_of_the_other_samplers(depth):
    column = list(DEPTHS).index(depth)
    total, parameters = network(depth, "bilinear", (16, 8, 4))
    assert parameters == 0
    assert abs(total - (2.95, 4.25, 5.61)[column]) < 0.01
    total, parameters = network(depth, "depthwise", (14, 7, 4))
    assert PLAIN[depth] + parameters == DEPTHWISE[depth]
    assert abs(total - (2.74, 3.69, 4.65)[column]) < 0.01


@pytest.mark.parametrize(
    "size, convolutions, samplings, saliency",
    [
        (12, 40_108_032, 2 * 6_881_280, 401_408),
        (16, 71_303_168, 2 * 10_092_544, 401_408),
        (20, 111_411_200, 2 * 13_762_560, 401_408),
    ],
)
def test_parts_of_a_unit(size, convolutions, samplings, saliency):
    adaptive, weights = multiply_adds("adaptive", size, 28, 512)
    assert adaptive == convolutions + samplings + saliency and weights == 512
    assert multiply_adds("uniform", size, 28, 512)[0] == convolutions + samplings


@pytest.mark.parametrize("sampling", NAMES)
def test_unit(sampling):
    layer = unit(sampling, None if sampling == "depthwise" else 0.5)
    outputs = layer(MAPS)
    assert outputs.shape == MAPS.shape and np.abs(outputs - MAPS).max() > 0.1
    seen = layer.seen(tf.constant(MAPS))
    for points in (seen.lines, seen.columns):
        assert np.all(np.diff(points) > 0) and np.all((points > 0) & (points < 1))


@pytest.mark.parametrize("sampling", ["uniform", "bilinear"])
def test_everything_sampled_is_the_ordinary_unit(sampling):
    layer = unit(sampling, 1.0)
    ordinary = super(SampledUnit, layer).call(tf.constant(MAPS))
    np.testing.assert_allclose(layer(MAPS), ordinary, atol=1e-5)


def test_maps_of_one_position():
    layer = unit("adaptive", 0.5)
    assert np.isfinite(layer(MAPS[:, :1, :1])).all()
