import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import Extent
from sact_tf.geometry.sampled import Sampled
from sact_tf.layers import stochastic_blocks
from sact_tf.layers.convolution import Convolution
from sact_tf.layers.maker import Maker
from sact_tf.layers.stochastic_blocks import (
    StochasticBlock,
    StochasticUnit,
    counted_multiply_adds,
)
from sact_tf.layers.stochastic_sampling import Sampling

MAKE = Maker(momentum=0.9, epsilon=1e-3)
MAPS = np.abs(np.random.default_rng(0).normal(size=(2, 9, 6, 8))).astype("f")
KEPT = np.random.default_rng(1).uniform(size=(2, 9, 6)) < 0.4


def unit(stride=1, width=2, execution="dense", bias=0.0, channels=8, **options):
    layer = StochasticUnit(
        channels,
        width,
        stride=stride,
        sampling=Sampling.checked({"grid": 4, **options}),
        execution=execution,
        make=MAKE,
        name="unit",
    )
    rng = np.random.default_rng(3)
    for norm in (layer.conv1_norm, layer.conv2_norm, layer.conv3_norm):
        norm.gamma.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(rng.normal(size=norm.beta.shape))
        norm.moving_mean.assign(rng.normal(size=norm.beta.shape) / 4)
    for weight in layer.weights:
        if weight.shape.rank == 4:
            weight.assign(rng.normal(size=weight.shape) / 4)
    for mask in (layer.mask1, layer.mask2):
        mask.logits.bias.assign([bias])
    return layer


def test_rows_of_given_positions():
    chosen = Sampled.of(tf.constant(KEPT))
    rows = chosen.rows(tf.constant(MAPS))
    assert rows.shape[1] >= KEPT.sum()
    back = chosen.on_map(rows)
    np.testing.assert_array_equal(back, np.where(KEPT[..., None], MAPS, 0))


@pytest.mark.parametrize("stride, height, width", [(1, 9, 6), (2, 9, 6), (2, 8, 7)])
def test_convolution_at_given_positions(stride, height, width):
    maps = np.random.default_rng(2).normal(size=[2, height, width, 8]).astype("f")
    layer = Convolution(
        8, 5, 3, stride=stride, explicit_padding=stride > 1, name="conv"
    )
    everywhere = layer(maps).numpy()
    kept = np.random.default_rng(4).uniform(size=everywhere.shape[:3]) < 0.4
    chosen = Sampled.of(tf.constant(kept))
    found = chosen.on_map(chosen.convolve(tf.constant(maps), layer.values(), stride))
    np.testing.assert_allclose(
        found, np.where(kept[..., None], everywhere, 0), atol=1e-5
    )


def test_no_position_at_all():
    chosen = Sampled.of(tf.zeros([2, 9, 6], tf.bool))
    np.testing.assert_array_equal(
        chosen.on_map(chosen.rows(tf.constant(MAPS))), np.zeros_like(MAPS)
    )


@pytest.mark.parametrize("stride, width", [(1, 2), (2, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("sharpness, least", [(0.7, 1), (3.0, 1), (3.0, 256)])
def test_sparse_inference_is_the_masked_one(
    stride, width, sharpness, least, monkeypatch
):
    monkeypatch.setattr(stochastic_blocks, "LEAST_WIDTH", least)
    monkeypatch.setattr(stochastic_blocks, "LEAST_WIDTH_OF_ROWS", 1)
    # Sharp kernels leave positions to which no sample reaches: offsets count.
    outputs = []
    for execution in ("dense", "positions", "auto"):
        layer = unit(stride, width, execution, grid=100)
        for mask in (layer.mask1, layer.mask2):
            mask.sharpness.assign(sharpness)
        run = tf.function(layer.drawn, autograph=False)
        drawn = run(tf.constant(MAPS))
        assert 0.2 < np.mean(drawn.densities) < 0.8
        outputs.append(drawn.output.numpy())
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)
    np.testing.assert_allclose(outputs[2], outputs[0], atol=1e-5)
    assert np.std(outputs[0]) > 0.1


def test_where_everything_is_sampled_the_unit_is_an_ordinary_one():
    layer = unit(bias=100.0)
    ordinary = super(StochasticUnit, layer).call(tf.constant(MAPS))
    np.testing.assert_allclose(layer(MAPS), ordinary, atol=1e-5)


def test_units_do_not_look_at_what_is_not_sampled():
    layer = unit(execution="positions")
    drawn = layer.drawn(tf.constant(MAPS))
    kept = drawn.masks[1].kept.numpy()
    # The masks do not change, as their kernels are zero.
    for mask in (layer.mask1, layer.mask2):
        mask.logits.kernel.assign(tf.zeros_like(mask.logits.kernel))
    before = layer.drawn(tf.constant(MAPS))
    kept = before.masks[0].kept.numpy()
    changed = np.where(kept[..., None], MAPS, 7.0)
    residuals = []
    for maps in (MAPS, changed.astype("f")):
        after = layer.drawn(tf.constant(maps))
        branch = layer.branch()
        residuals.append(layer._packed(tf.constant(maps), branch, after.masks, None))
    np.testing.assert_array_equal(*residuals)


@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_as_if_it_were_not_there(stride):
    for execution in ("dense", "positions"):
        layer = unit(stride, 3, execution)
        padded = np.pad(MAPS, [(0, 0), (0, 4), (0, 5), (0, 0)], constant_values=1e3)
        valid = np.zeros(padded.shape[:3], bool)
        valid[:, :9, :6] = True
        sizes = tf.constant([[9, 6]] * 2)
        # The same noise for both sizes: none.
        layer = unit(stride, 3, execution, seed=None)
        together = layer.drawn(
            tf.constant(padded), valid=tf.constant(valid), extent=Extent(sizes)
        )
        alone = layer.drawn(tf.constant(MAPS))
        height, width = alone.output.shape[1:3]
        np.testing.assert_allclose(
            together.output[:, :height, :width], alone.output, atol=1e-4
        )
        for one, other in zip(together[2:], alone[2:], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_loss_and_flops_by_definition():
    layer = unit(2, 3)
    drawn = layer.drawn(tf.constant(MAPS))
    first, second = drawn.masks
    expected = 0.25 * np.mean(first.probability, (1, 2))
    expected += 0.75 * np.mean(second.probability, (1, 2))
    np.testing.assert_allclose(drawn.sparsity, expected, rtol=1e-5)
    n1, n2 = (np.sum(mask.kept, (1, 2)) for mask in drawn.masks)
    masks = 9 * 8 * (54 + 15)
    shortcut = 15 * 8 * 12
    parts = n1 * 8 * 3 + n2 * (9 * 3 * 3 + 3 * 12) + masks + shortcut
    np.testing.assert_array_equal(drawn.flops, 2 * parts)
    np.testing.assert_allclose(drawn.densities, np.stack([n1 / 54, n2 / 15], 1))


def test_block_counts_its_training_steps():
    block = StochasticBlock([unit()], name="block")
    outputs = [block(MAPS, training=True)["output"].numpy() for _ in range(2)]
    assert int(block.step) == 2 and np.any(outputs[0] != outputs[1])
    record = block(MAPS)
    assert int(block.step) == 2
    assert record["num_units"].shape == record["ponder_cost"].shape == (2, 9, 6)
    assert record["halting_distribution"].shape == (2, 9, 6, 1)
    assert record["densities"].shape == (2, 1, 2)


def test_their_counter():
    # ResNet-D-50 at 224 pixels: see the network's test for the sums.
    layer = unit(1, 64, channels=256)
    area = 56 * 56
    masks = 9 * 256 * 2 * area
    dense = area * (256 * 64 + 9 * 64 * 64 + 64 * 256) + masks
    assert counted_multiply_adds(layer, (56, 56), (1.0, 1.0)) == dense
    half = (dense - masks) / 2 + masks + 49 * (64 + 256) * area / 4
    assert counted_multiply_adds(layer, (56, 56), (0.5, 0.5)) == half
