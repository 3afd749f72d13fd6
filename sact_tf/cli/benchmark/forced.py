"""Networks whose positions halt where a benchmark says."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sact_tf.cli.benchmark.masks import spread
from sact_tf.layers.series import Stack


class ForcedLogit(NamedTuple):
    """A halting score at its full price that halts where it is told to.

    Attributes:
      logit: the score's own.
      unit: int32 scalar, whose score it is, counted from one.
      num_units: gives int32 [B, H, W], the units to run at each position.
    """

    logit: Callable
    unit: tf.Tensor
    num_units: Callable

    def __call__(self, geometry):
        """A score of one at the last unit of a position, next to nothing before."""
        logit = tf.cast(self.logit(geometry), tf.float32)
        stops = self.num_units() <= self.unit
        # 0 * logit: what is computed must not be optimised away.
        return tf.where(stops, 30.0, -4.595) + 0.0 * logit


def force_halting(model, maps: list[tuple[int, int]], means, kind, batch=1) -> Callable:
    """Makes the positions of a network halt at units with given means.

    Ranked positions use units evenly spread around the mean, from as few to as many as
    the block allows, so that some halt at almost every unit.

    Returns:
      A function that, given a random generator, changes the masks a little.
    """
    blocks = list(zip(model.blocks, maps, means, strict=False))
    chosen = []
    for block, (height, width), mean in blocks:
        count, shape = len(block.units), (batch, height, width)
        chosen.append(tf.Variable(_num_units(kind, shape, mean, count)))
        block.logits = functools.partial(
            _forced, block.logits, len(block.halting_scores), chosen[-1]
        )

    def change(rng: np.random.Generator) -> None:
        for (block, (height, width), mean), variable in zip(
            blocks, chosen, strict=True
        ):
            count, shape = len(block.units), (batch, height, width)
            other = np.clip(mean * rng.uniform(0.97, 1.03), 1, count)
            variable.assign(_num_units(kind, shape, other, count))

    return change


def _forced(logits, count, num_units, training=None, valid=None):
    """A block's logits, forced."""
    own = logits(training, valid)
    if not isinstance(own, Stack):
        own = own.stacked()
    forced = ForcedLogit(own.whole, tf.range(1, count + 1), num_units.read_value)
    return Stack(forced, count, own.tables)


def _num_units(kind, shape, mean, count):
    """Units of each position, int32 of a shape [B, H, W], with a mean over all."""
    reach = min(mean - 1, count - mean)
    wanted = mean + reach * (1 - 2 * spread(kind, shape))
    # Rounded all alike, so that contours stay smooth, and so that the mean stays.
    rounded = [np.floor(wanted + offset) for offset in np.linspace(0, 1, 101)]
    num_units = min(rounded, key=lambda units: abs(units.mean() - mean))
    return np.clip(num_units, 1, count).astype(np.int32)


def map_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Heights and widths of the maps of blocks 1 to 4."""
    sizes = []
    for stride in (4, 8, 16, 32):
        sizes.append((-(-height // stride), -(-width // stride)))
    return sizes
