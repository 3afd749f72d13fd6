"""Blocks of residual units: plain, ACT and SACT with one interface (section 2)."""

import tensorflow as tf
import tf_keras

from sact_tf import halting
from sact_tf.geometry import Dense


class Block(tf_keras.layers.Layer):
    """A block of residual units that halts nowhere, once per image, or per position.

    Called with a map, a block returns a dict that says what came out and what it cost:

      output: [B, h, w, C].
      ponder_cost: float32, rho = N + R (eqn 11).
      num_units: int32, N, the units evaluated.
      halting_distribution: float32 [..., L], p (eqn 9).
      flops: int64 [B].

    Ponder cost and units have the shape of the decisions: [B, h, w] for SACT, [B]
    otherwise. A plain block is the special case h = 0, ..., 0, 1 (section 2.2): N = L
    and R = 1.
    """

    def __init__(
        self,
        units: list,
        halting_scores: list,
        adaptivity: str,
        *,
        epsilon: float = 0.01,
        tile_size: int = 1,
        name: str,
        dtype=None,
    ):
        """Creates a block from its parts.

        Args:
          units: residual units; the first may change the shape, and is never masked.
          halting_scores: one halting score for each unit but the last, global (ACT) or
            spatial (SACT); an empty list for a plain block.
          adaptivity: "none" (plain), "act" or "sact".
          epsilon: epsilon of eqn 7.
          tile_size: side of the tiles that share a halting score (SACT only).
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        self.units = units
        self.halting_scores = halting_scores
        self._adaptivity = adaptivity
        self._epsilon = epsilon
        self._tile_size = tile_size
        self.built = True

    def call(self, inputs, training=None, halting_bias=None):
        """Runs the block; see the class for what it returns.

        Args:
          inputs: [B, H, W, C].
          training: whether batch norms use the statistics of the batch.
          halting_bias: optional scalar added to every halting logit.
        """
        first, *later = self.units
        features = first(inputs, training=training)
        flops = first.flops_on_map(_positions(inputs), _positions(features))
        if self._adaptivity == "none":
            return self._plain(features, flops, later, training)
        spatial = self._adaptivity == "sact"
        geometry = Dense(features, per_image=not spatial)
        state = halting.start(geometry.decisions_shape)
        probabilities = []
        for index, unit in enumerate(self.units):
            if index:
                geometry.add(unit.residual(geometry, training))
                flops += unit.flops(geometry.count(dilation=1), geometry.count())
            score = None
            if index < len(self.halting_scores):
                scorer = self.halting_scores[index]
                score = scorer(geometry, training=training, halting_bias=halting_bias)
                flops += scorer.flops(geometry)
                if spatial:
                    score = halting.share_in_tiles(score, self._tile_size)
            state, probability = halting.step(state, score, self._epsilon)
            geometry.accumulate(probability)
            geometry.halt(state.active)
            probabilities.append(probability)
        return {
            "output": geometry.leave(),
            "ponder_cost": state.ponder_cost,
            "num_units": state.num_units,
            "halting_distribution": tf.stack(probabilities, axis=-1),
            "flops": flops,
        }

    def _plain(self, features, flops, later, training):
        positions = _positions(features)
        for unit in later:
            features = unit(features, training=training)
            flops += unit.flops_on_map(positions, positions)
        count = len(self.units)
        images = tf.shape(features)[:1]
        last = tf.one_hot(tf.fill(images, count - 1), count)
        return {
            "output": features,
            "ponder_cost": tf.fill(images, count + 1.0),
            "num_units": tf.fill(images, count),
            "halting_distribution": last,
            "flops": flops,
        }


def _positions(features: tf.Tensor) -> tf.Tensor:
    """Positions of each image's map, int64 [B]."""
    shape = tf.shape(features, out_type=tf.int64)
    return tf.fill(shape[:1], shape[1] * shape[2])
