"""Adaptive Computation Time as pure functions on tensors (Algorithms 1 and 2).

The algorithm decides, unit after unit, where to stop. It is the same whether there is
one decision per image (ACT, decisions of shape [B]) or one per position (SACT,
[B, H, W]): every function here works on decisions of any shape. What stopping costs is
written down once, when all units have run, from their scores and flags:

    state = start(shape)
    for each unit of the block but the last:
        state = step(state, score, epsilon)
        scores += [score]; flags += [state.active]
    cost(scores, flags)
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class HaltingState(NamedTuple):
    """Where the algorithm stands after some units; all tensors have one shape.

    Attributes:
      cumulative_score: float32, c of Algorithm 2: the sum of the halting scores so far.
        Means nothing where the computation has halted.
      remainder: float32, R of eqn 8 where the computation goes on: one minus the scores
        so far. Zero elsewhere.
      active: bool, a of Algorithm 2: true until the cumulative score reaches
        1 - epsilon.
    """

    cumulative_score: tf.Tensor
    remainder: tf.Tensor
    active: tf.Tensor


class HaltingCost(NamedTuple):
    """What a block of L units cost; decisions are of any shape.

    Attributes:
      ponder_cost: float32, rho = N + R (eqn 11).
      num_units: int32, N of eqn 7: the units evaluated.
      halting_distribution: float32 [..., L], p (eqn 9): the score where the computation
        goes on, the remainder where it halts, zero where it had halted.
    """

    ponder_cost: tf.Tensor
    num_units: tf.Tensor
    halting_distribution: tf.Tensor


def start(shape, active: tf.Tensor | None = None) -> HaltingState:
    """The state before the first unit (Algorithm 2, lines 3-9).

    Args:
      shape: shape of the decisions: a list of integers and scalars, or an int32 tensor.
      active: bool tensor of that shape; positions that are false never take part
        (padding). All take part by default.
    """
    if active is None:
        active = tf.ones(shape, tf.bool)
    return HaltingState(tf.zeros(shape), tf.ones(shape), active)


def step(state: HaltingState, score: tf.Tensor, epsilon: float) -> HaltingState:
    """Takes one unit's halting score into account (Algorithm 2, lines 18-34).

    The comparison is made in float32, equality included: a position halts when its
    cumulative score is >= float32(1 - epsilon). The flags are constants to
    differentiation.

    Args:
      state: the state before this unit's score.
      score: halting score h in [0, 1], float32, of the shape of the decisions. Means
        nothing where the computation has halted.
      epsilon: epsilon of eqn 7.
    """
    cumulative_score = state.cumulative_score + score
    # Not `cumulative < threshold`: a score that is NaN must not look like a halt.
    reached = cumulative_score >= np.float32(1.0 - epsilon)
    active = state.active & ~reached
    # A sum of equal shapes: the gradient of `-` would ask for them at run time.
    remainder = tf.where(active, tf.add_n([state.remainder, -score]), 0.0)
    return HaltingState(cumulative_score, remainder, active)


def cost(
    scores: tf.Tensor, flags: tf.Tensor, started: tf.Tensor | None = None
) -> HaltingCost:
    """What the computation cost.

    A block's last unit has no score: it is one (eqn 5). So d ponder_cost / d score is
    -1 before the halting unit and 0 from it on (eqn 12).

    Args:
      scores: float32 [L - 1, ...], the scores of all units but the last.
      flags: bool [L - 1, ...], where the computation goes on after each of them.
      started: bool, of the shape of the decisions, where it began; None for everywhere.
    """
    if started is None:
        started = tf.ones(tf.shape(flags)[1:], tf.bool)
    before = tf.concat([started[tf.newaxis], flags], axis=0)  # [L, ...]
    after = tf.concat([flags, tf.zeros_like(started)[tf.newaxis]], axis=0)
    nothing = tf.zeros_like(started[tf.newaxis], tf.float32)
    spent = tf.concat([tf.where(flags, scores, 0.0), nothing], axis=0)
    remainder = 1.0 - tf.cumsum(spent, exclusive=True)
    ending = tf.where(before & ~after, remainder, 0.0)
    # Not in int32, whose sums TensorFlow takes on the host where there is a GPU.
    count = tf.reduce_sum(tf.cast(before, tf.float32), axis=0)
    last = len(flags.shape) - 1
    return HaltingCost(
        ponder_cost=count + tf.reduce_sum(ending, axis=0),
        num_units=tf.cast(count, tf.int32),
        halting_distribution=tf.transpose(spent + ending, [*range(1, last + 1), 0]),
    )


def share_in_tiles(
    scores: tf.Tensor, tile_size: int, valid: tf.Tensor | None = None
) -> tf.Tensor:
    """Gives all positions of a tile the mean of their scores (section 2.3).

    Tiles start at the top left corner; where the sides are not multiples of the tile
    size the last tiles are smaller, and their mean is over the positions they have.

    Args:
      scores: float32 [B, H, W].
      tile_size: k, the side of a tile in positions.
      valid: bool [B, H, W], false where the map is padding, which is in no mean; None
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
    if valid is not None:
        counted = tf.cast(valid[..., tf.newaxis], tf.float32)
        maps *= counted
    means = tf.math.divide_no_nan(pooled(maps), pooled(counted))
    tiles = tf.repeat(tf.repeat(means, tile_size, axis=1), tile_size, axis=2)
    return tiles[:, :height, :width, 0]
