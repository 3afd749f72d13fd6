"""The units of a block under masks of given shares."""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf
import tf_keras

from sact_tf.cli.benchmark import masks as active_sets
from sact_tf.cli.benchmark import settings
from sact_tf.cli.benchmark.timing import Result, fastest, traced, waited
from sact_tf.geometry import Dense, Packed, calibration, winograd
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.control_flow import gpu_is_visible
from sact_tf.geometry.dense import all_tiles
from sact_tf.geometry.grid import Grid
from sact_tf.layers.maker import Maker
from sact_tf.layers.residual_units import BasicUnit, BottleneckUnit

#: Units in a row that calibrations run.
CALIBRATION_UNITS = 6
_MAKE = Maker()


def units(flags) -> list[Result]:
    """The units of a block that keep its shape, under masks of given shares."""
    height, width = settings.SIZES[flags.image_size or "600x848"]
    stride = 2 ** (flags.block + 1)
    shape = (flags.batch_size, -(-height // stride), -(-width // stride))
    narrow = 64 * 2 ** (flags.block - 1)
    layers = bottlenecks(narrow, settings.UNITS[flags.block - 1] - 1)
    features = tf.random.normal([*shape, 4 * narrow])
    features = tf.cast(features, tf_keras.mixed_precision.global_policy().compute_dtype)
    sides = [int(side) for side in flags.tiles.split(",") if side]
    known = calibration.resolved(None) or calibration.Calibration()
    packing = known.packing_cost(1, narrow, 4 * narrow, layers[-1].flops_per_position)
    dense = {"plain": plain_units(layers), "masked": masked_units(layers)}
    functions = {
        "positions": packed_units(layers),
        **{f"tiles {side}": packed_units(layers, side) for side in sides},
        "auto": packed_units(layers, packing=packing),
    }
    functions = {
        **{name: traced(run, flags.jit) for name, run in dense.items()},
        **{name: traced(run) for name, run in functions.items()},
    }
    positions = shape[0] * shape[1] * shape[2]
    flops = float(positions * sum(layer.flops_per_position for layer in layers))
    results = []
    for share in settings.SHARES:
        masks = tf.constant(active_sets.masks(flags.masks, shape, share, len(layers)))
        left = active_sets.flops_left(masks, narrow)
        candidates = {
            name: functools.partial(waited, function, features, masks)
            for name, function in functions.items()
        }
        seconds = fastest(candidates, flags.turns, f"{share:.0%} active")
        note = f"{share:.0%} active"
        for name, value in seconds.items():
            results.append(
                Result(name, 1e3 * value, left, seconds["plain"] / value, note)
            )
        results[-len(seconds)].flops_left = 1.0
        for result in results[-len(seconds) :]:
            result.flops = flops * result.flops_left
    return results


def bottlenecks(width: int, count: int = CALIBRATION_UNITS) -> list[BottleneckUnit]:
    """Units of block 2 to 4, that keep the shape, with small residuals."""
    layers = [
        BottleneckUnit(4 * width, width, make=_MAKE, name=f"unit{index}")
        for index in range(count)
    ]
    for layer in layers:
        _make_small(layer.conv3)
    return layers


def basic_units(width: int, count: int = CALIBRATION_UNITS) -> list[BasicUnit]:
    """The same of the cifar family."""
    layers = [
        BasicUnit(width, width, make=_MAKE, name=f"unit{index}")
        for index in range(count)
    ]
    for layer in layers:
        _make_small(layer.conv2)
    return layers


def _make_small(convolution):
    """Small residuals: features stay of one size through many units."""
    convolution.kernel.assign(0.1 * convolution.kernel)


def plain_units(layers: Sequence) -> Callable:
    """Units on the map, as a plain network has them."""

    def run(features, masks):
        del masks
        for layer in layers:
            features = layer(features, training=False)
        return features

    return run


def masked_units(layers: Sequence, **options) -> Callable:
    """Units on the map, under one mask, or one for each."""

    def run(features, masks):
        geometry = Dense(features, **options)
        for index, layer in enumerate(layers):
            if index < masks.shape[0]:
                # Each position gives what it has when it halts: nothing to add up.
                geometry.halt(masks[index])
            geometry.add(layer.branch()(geometry))
        return geometry.leave()

    return run


def packed_units(layers: Sequence, side: int = 1, packing=None) -> Callable:
    """Units on rows, packed where the mask leaves some out, and that pays."""
    radius, width = layers[0].radius, layers[0].conv1.filters
    whole = tf_keras.mixed_precision.global_policy().compute_dtype == "float32"
    by_tiles = side == 1 and radius == 1 and whole and winograd.may_pay(width)

    def run(features, masks):
        on_gpu = side > 1 and gpu_is_visible()
        layout = Layout(
            Grid.of(features), radius, side, winograd=by_tiles, on_gpu=on_gpu
        )
        most = layout.most_rows()
        cells = layout.grid.any_in_cell(masks[0], side)
        running = tf.math.count_nonzero(cells, dtype=tf.int32)
        rows = layout.rows_for(running, most)
        pays = rows < most
        if packing:
            pays, _ = packing.repays(most, rows, 0.0, len(layers))

        def packed():
            geometry = Packed.from_map(layout, features, masks[0])
            for index, layer in enumerate(layers):
                if 0 < index < masks.shape[0]:
                    geometry.halt(masks[index])
                    geometry.shrink()
                geometry.add(layer.branch()(geometry))
            return geometry.leave()

        def on_map():
            tiles = all_tiles(features) if by_tiles else None
            return masked_units(layers, tiles=tiles)(features, masks)

        return tf.cond(
            running > 0, lambda: tf.cond(pays, packed, on_map), lambda: features
        )

    return run
