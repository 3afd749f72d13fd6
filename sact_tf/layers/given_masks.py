"""Units of a block where a given mask says, and its cost (SBNet).

The first unit of a block runs everywhere: it changes shapes. The mask says where the
others run. SACT needs nothing for that but a mask to start from. Here is the rest: the
units of plain blocks, which no score stops, and ACT's scores, which then belong to
positions.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.calibration import PackingCost
from sact_tf.geometry.control_flow import conditional, loop
from sact_tf.geometry.dense import Dense, all_tiles
from sact_tf.geometry.packed import Packed
from sact_tf.halting import HaltingCost
from sact_tf.layers.execution import Outcome
from sact_tf.layers.halting_scores import GlobalScore
from sact_tf.layers.series import Series


def masked(
    features: tf.Tensor, units: Series, mask: tf.Tensor, valid: tf.Tensor | None
) -> tf.Tensor:
    """Units 2 to L of a plain block, computed everywhere and masked: [B, H, W, C].

    Args:
      features: [B, H, W, C], what the block's first unit gave.
      units: residual branches of units 2 to L.
      mask: bool [B, H, W], where they run.
      valid: bool [B, H, W], false where the map is padding; None for no padding.
    """
    geometry = Dense(features, valid=valid, mask=mask)
    for index in range(len(units)):
        geometry.add(units[index](geometry))
    return geometry.leave()


def packed(
    features: tf.Tensor, layout: Layout, units: Series, mask: tf.Tensor
) -> tf.Tensor:
    """The same on rows, one unit after the other: for training.

    Args:
      features: see `masked`.
      layout: of the rows, without conditionals.
      units: see `masked`.
      mask: see `masked`.
    """
    geometry = Packed.from_map(layout, features, mask)
    for index in range(len(units)):
        geometry.add(units[index](geometry))
    return geometry.leave()


def loop_over_units(
    features: tf.Tensor,
    layout: Layout,
    units: Series,
    mask: tf.Tensor,
    packing: PackingCost | None = None,
) -> tf.Tensor:
    """The same as a loop around one unit: on rows where that pays, or on the map.

    Args:
      features: see `masked`.
      layout: of the rows.
      units: see `masked`.
      mask: see `masked`.
      packing: what packing costs; if None, rows are packed whenever fewer suffice.
    """
    count = len(units)
    if not tf.executing_eagerly():
        units = units.stacked()
    cells = layout.grid.any_in_cell(mask, layout.side)
    running = tf.math.count_nonzero(cells, dtype=tf.int32)
    most = layout.most_rows()
    rows = layout.rows_for(running, most)
    if packing is None:
        pays = rows < most
    else:
        # There is nothing to wait for: the mask is known.
        pays, _ = packing.repays(most, rows, np.float32(np.inf), count)

    def run(geometry, shapes):
        def unit(index, state):
            here = geometry.with_state(state)
            here.add(units[index](here))
            return index + 1, here.state

        _, state = loop(
            lambda index, _: (index < count) & (running > 0),
            unit,
            (tf.constant(0), geometry.state),
            (tf.TensorShape([]), shapes),
        )
        return geometry.with_state(state).leave()

    def on_rows():
        geometry = Packed.from_map(layout, features, mask)
        return run(geometry, geometry.shapes())

    def on_map():
        tiles = all_tiles(features) if layout.winograd else None
        geometry = Dense(features, valid=layout.valid, tiles=tiles, mask=mask)
        shapes = tf.nest.map_structure(lambda x: x.shape, geometry.state)
        return run(geometry, shapes)

    output = conditional(pays & (running > 0), on_rows, on_map)
    output.set_shape(features.shape)
    return output


class PerPosition(NamedTuple):
    """ACT's score as one of every position: the same for all of an image."""

    score: GlobalScore

    def __call__(self, geometry) -> tf.Tensor:
        """Logits of the shape of the decisions, [B, H, W]."""
        logits = self.score.of_running(geometry)[..., tf.newaxis]
        return tf.cast(logits, tf.float32) + tf.zeros(geometry.decisions_shape)


def per_position(scores: Series) -> Series:
    """ACT's scores, each as one of every position."""
    return Series([PerPosition(scores[index]) for index in range(len(scores))])


def of_positions(outcome: Outcome, mask: tf.Tensor) -> Outcome:
    """What came out of a block of ACT, said of positions.

    Args:
      outcome: with one decision for each image, [L - 1, B].
      mask: bool [B, H, W].
    """
    flags = outcome.flags[..., tf.newaxis, tf.newaxis] & mask
    scores = outcome.scores[..., tf.newaxis, tf.newaxis]
    return Outcome(outcome.output, scores + tf.zeros_like(flags, tf.float32), flags)


def cost_of_plain(mask: tf.Tensor, valid: tf.Tensor | None, count: int) -> HaltingCost:
    """What a plain block costs: L units where the mask is true, one elsewhere.

    Args:
      mask: bool [B, H, W].
      valid: bool [B, H, W], false where the map is padding, which costs nothing; None
        for no padding.
      count: L.
    """
    units = tf.where(mask, count, 1)
    remainder = tf.ones_like(units)
    if valid is not None:
        remainder = tf.cast(valid, tf.int32)
        units *= remainder
    return HaltingCost(
        ponder_cost=tf.cast(units + remainder, tf.float32),
        num_units=units,
        halting_distribution=tf.one_hot(units - 1, count),
    )
