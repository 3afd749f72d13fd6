"""How the units of a block are run, written out one after the other.

Every unit is in the graph anew: simple, without control flow, and what TensorFlow and
XLA fuse best. For inference in which halting decides what is computed, see `loops`.
"""

from typing import NamedTuple

import tensorflow as tf

from sact_tf import halting
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.dense import Dense
from sact_tf.geometry.images import Images
from sact_tf.geometry.packed import Packed
from sact_tf.halting import HaltingState
from sact_tf.layers import halting_scores
from sact_tf.layers.series import Series


class Rule(NamedTuple):
    """When a position halts, but for the score.

    Attributes:
      epsilon: of eqn 7.
      tile_size: side of the tiles that share a score.
      halting_bias: see halting_scores.score.
      started: bool, of the shape of the decisions, where the computation begins; None
        for everywhere.
    """

    epsilon: float
    tile_size: int = 1
    halting_bias: tf.Tensor | None = None
    started: tf.Tensor | None = None

    def start(self, geometry) -> HaltingState:
        """The state before the first score."""
        return halting.start(geometry.decisions_shape, self.started)

    def step(self, state: HaltingState, geometry, logit):
        """The state after a score of the geometry's features, and the score."""
        score = halting_scores.score(logit(geometry), self.halting_bias)
        if self.tile_size > 1:
            score = halting.share_in_tiles(score, self.tile_size, self.started)
        return halting.step(state, score, self.epsilon), score


class Outcome(NamedTuple):
    """What came out of a block.

    Attributes:
      output: [B, H, W, C].
      scores: float32 [L - 1, ...], the scores of all units but the last.
      flags: bool [L - 1, ...], what was active after each of them.
    """

    output: tf.Tensor
    scores: tf.Tensor
    flags: tf.Tensor


def written_out(geometry, units: Series, logits: Series, rule: Rule) -> Outcome:
    """Units 2 to L one after the other, on a geometry that keeps everything.

    Args:
      geometry: Dense, or Images without conditionals.
      units: residual branches of units 2 to L.
      logits: of units 1 to L - 1.
      rule: when positions halt.
    """
    state, scores, flags = rule.start(geometry), [], []
    for index in range(len(units)):
        state, score = rule.step(state, geometry, logits[index])
        last = index == len(units) - 1
        geometry.halt(state.active, state.remainder, last)
        if isinstance(geometry, Images):
            geometry.shrink()
        geometry.add(units[index](geometry))
        scores.append(score)
        flags.append(state.active)
    return Outcome(geometry.leave(), tf.stack(scores), tf.stack(flags))


def written_out_packed(
    features: tf.Tensor, layout: Layout, units: Series, logits: Series, rule: Rule
) -> Outcome:
    """Units 2 to L one after the other, packed at each of them: for training.

    Args:
      features: [B, H, W, C], what the block's first unit gave.
      layout: without conditionals.
      units: residual branches of units 2 to L.
      logits: of units 1 to L - 1.
      rule: when positions halt.
    """
    geometry = Dense(features, valid=layout.valid)
    state, scores, flags = rule.start(geometry), [], []
    for index in range(len(units)):
        state, score = rule.step(state, geometry, logits[index])
        if index:
            geometry.halt(state.active, state.remainder)
            geometry.shrink()
        else:
            geometry = Packed.from_map(
                layout, features, state.active, features, state.remainder
            )
        geometry.add(units[index](geometry))
        scores.append(score)
        flags.append(state.active)
    return Outcome(geometry.leave(), tf.stack(scores), tf.stack(flags))
