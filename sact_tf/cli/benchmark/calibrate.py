"""When packing pays on this machine, for execution="auto"."""

import functools
import math

import numpy as np
import tensorflow as tf

from sact_tf.cli.benchmark import units
from sact_tf.cli.benchmark.device import Device
from sact_tf.cli.benchmark.masks import masks
from sact_tf.cli.benchmark.timing import fastest, traced, waited
from sact_tf.geometry import Packed, calibration
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.control_flow import gpu_is_visible
from sact_tf.geometry.grid import Grid


def calibrate(turns: int) -> calibration.Calibration:
    """When packing pays on this machine."""
    # Maps of an image of 600 x 848, or their like for the networks of small images.
    thresholds = {
        width: _packing_threshold(
            units.bottlenecks(width), (1, *[max(16, 9600 // max(width, 64))] * 2), turns
        )
        for width in (16, 32, 64, 128, 256, 512)
    }
    # Batches of small images.
    basic_thresholds = {
        width: _packing_threshold(units.basic_units(width), (32, 16, 16), turns)
        for width in (16, 32, 64, 128)
    }
    # Block 3 of a small image and block 1 of a large one, for what is fixed and what
    # grows.
    (small, few), (large, many) = (
        _packing_seconds(shape, turns) for shape in ((14, 14, 1024), (150, 212, 256))
    )
    per_value = max((large - small) / (many - few), 1e-12)
    return calibration.Calibration(
        thresholds,
        basic_thresholds,
        flops_per_second=Device().product_rate(),
        seconds=max(small - per_value * few, 1e-6),
        seconds_per_value=per_value,
        device=calibration.GPU if gpu_is_visible() else calibration.CPU,
    )


def _packing_threshold(layers, shape, turns):
    """Active share below which packed units are faster than masked ones."""
    run = _masked_and_packed(layers, shape)
    width = layers[0].conv1.filters
    shares, times = (0.3, 0.5, 0.7, 0.9), []
    for share in shares:
        active = tf.constant(masks("blob", shape, share, units.CALIBRATION_UNITS))
        candidates = {name: functools.partial(f, active) for name, f in run.items()}
        times.append(fastest(candidates, turns, f"width {width}, {share:.0%}"))
    # Packed time is a straight line in the share, masked time a constant.
    slope, start = np.polyfit(shares, [t["positions"] for t in times], 1)
    masked = np.median([t["masked"] for t in times])
    threshold = (masked - start) / slope if slope > 0 else 1.0
    return round(float(np.clip(threshold, 0.05, 1.0)), 3)


def _packing_seconds(shape, turns):
    """Seconds to pack half of a map, and to unpack it; and how many values it has."""
    features = tf.random.normal([1, *shape])
    half = tf.constant(masks("blob", (1, *shape[:2]), 0.5, 1)[0])

    def pack(features, active):
        left = tf.cast(active, tf.float32) / 2

        def packed():
            layout = Layout(Grid.of(features), radius=1)
            geometry = Packed.from_map(layout, features, active, features, left)
            return geometry.leave()

        return tf.cond(tf.reduce_all(active), lambda: features, packed)

    run = functools.partial(waited, traced(pack), features)
    candidates = {
        "half": functools.partial(run, half),
        "all": functools.partial(run, tf.ones_like(half)),
    }
    seconds = fastest(candidates, turns, f"packing {shape[0]} x {shape[1]}")
    return seconds["half"] - seconds["all"], math.prod(shape)


def _masked_and_packed(layers, shape):
    """Functions that run units under masks, one for each way."""
    features = tf.random.normal([*shape, _channels(layers)])
    ways = {
        "masked": units.masked_units(layers),
        "positions": units.packed_units(layers),
    }
    return {
        name: functools.partial(waited, traced(run), features)
        for name, run in ways.items()
    }


def _channels(layers):
    return layers[0].preact.gamma.shape[0]
