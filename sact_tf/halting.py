"""Adaptive Computation Time as pure functions on tensors (Algorithms 1 and 2).

The algorithm decides, unit after unit, where to stop. It is the same whether there is
one decision per image (ACT, decisions of shape [B]) or one per position (SACT,
[B, H, W]): every function here works on decisions of any shape.

    state = start(shape)
    for each unit of the block:
        state, probability = step(state, score, epsilon)  # score None for the last
        output += probability * features
    state.ponder_cost, state.num_units
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class HaltingState(NamedTuple):
    """Where the algorithm stands after some units; all tensors have one shape.

    Attributes:
      cumulative_score: float32, c of Algorithm 2: the sum of the halting scores so far.
      remainder: float32, R of eqn 8: one minus the scores of the units before N.
      ponder_cost: float32, rho: units so far, plus the remainder once halted (eqn 11).
      num_units: int32, N of eqn 7: the units evaluated so far.
      active: bool, a of Algorithm 2: true until the cumulative score reaches
        1 - epsilon.
    """

    cumulative_score: tf.Tensor
    remainder: tf.Tensor
    ponder_cost: tf.Tensor
    num_units: tf.Tensor
    active: tf.Tensor


def start(shape, active: tf.Tensor | None = None) -> HaltingState:
    """The state before the first unit (Algorithm 2, lines 3-9).

    Args:
      shape: shape of the decisions, a list or an int32 tensor.
      active: bool tensor of that shape; positions that are false never take part
        (padding). All take part by default.
    """
    if active is None:
        active = tf.ones(shape, tf.bool)
    return HaltingState(
        cumulative_score=tf.zeros(shape),
        remainder=tf.ones(shape),
        ponder_cost=tf.zeros(shape),
        num_units=tf.zeros(shape, tf.int32),
        active=active,
    )


def step(
    state: HaltingState, score: tf.Tensor | None, epsilon: float
) -> tuple[HaltingState, tf.Tensor]:
    """Takes one unit's halting score into account (Algorithm 2, lines 18-34).

    The comparison is made in float32, equality included: a position halts when its
    cumulative score is >= float32(1 - epsilon). The flags and the number of units are
    constants to differentiation, so d ponder_cost / d score is -1 before the halting
    unit and 0 from it on (eqn 12).

    Args:
      state: the state before this unit.
      score: halting score h in [0, 1], float32, of the shape of the decisions; None
        for a block's last unit, whose score is one (eqn 5).
      epsilon: epsilon of eqn 7.

    Returns:
      The state after the unit, and the unit's probability p (eqn 9): h where the
      computation goes on, the remainder where it halts, zero where it had halted.
    """
    active = state.active
    if score is None:
        cumulative_score = state.cumulative_score + tf.cast(active, tf.float32)
        continues = tf.zeros_like(active)
        score = tf.zeros_like(state.remainder)
    else:
        cumulative_score = state.cumulative_score + tf.where(active, score, 0.0)
        # Not `cumulative < threshold`: a score that is NaN must not look like a halt.
        reached = cumulative_score >= np.float32(1.0 - epsilon)
        continues = active & ~reached
    halts = active & ~continues
    spent = tf.where(continues, score, 0.0)
    ending = tf.where(halts, state.remainder, 0.0)
    after = HaltingState(
        cumulative_score=cumulative_score,
        remainder=state.remainder - spent,
        ponder_cost=state.ponder_cost + tf.cast(active, tf.float32) + ending,
        num_units=state.num_units + tf.cast(active, tf.int32),
        active=continues,
    )
    return after, spent + ending


def share_in_tiles(
    scores: tf.Tensor, tile_size: int, real: tf.Tensor | None = None
) -> tf.Tensor:
    """Gives all positions of a tile the mean of their scores (section 2.3).

    Tiles start at the top left corner; where the sides are not multiples of the tile
    size the last tiles are smaller, and their mean is over the positions they have.

    Args:
      scores: float32 [B, H, W].
      tile_size: k, the side of a tile in positions.
      real: bool [B, H, W], false where the map is padding, which is in no mean; None
        for no padding.

    Returns:
      float32 [B, H, W], constant within each tile.
    """
    if tile_size == 1:
        return scores
    height, width = tf.shape(scores)[1], tf.shape(scores)[2]
    padding = [[0, 0], [0, -height % tile_size], [0, -width % tile_size], [0, 0]]

    def pooled(maps):
        return tf.nn.avg_pool2d(tf.pad(maps, padding), tile_size, tile_size, "VALID")

    maps = scores[..., tf.newaxis]
    counted = tf.ones_like(maps)
    if real is not None:
        counted = tf.cast(real[..., tf.newaxis], tf.float32)
        maps *= counted
    means = tf.math.divide_no_nan(pooled(maps), pooled(counted))
    tiles = tf.repeat(tf.repeat(means, tile_size, axis=1), tile_size, axis=2)
    return tiles[:, :height, :width, 0]
