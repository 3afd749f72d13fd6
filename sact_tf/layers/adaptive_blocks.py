"""Blocks of residual units: plain, ACT and SACT with one interface (section 2)."""

import functools

import tensorflow as tf
import tf_keras

from sact_tf import flops as cost
from sact_tf import halting
from sact_tf.geometry import Dense, Images, Packed, within, without_padding
from sact_tf.geometry.calibration import packing_cost, winograd_may_pay

#: Where units are computed: everywhere and masked; at active positions; in active
#: tiles; or whichever is fastest.
EXECUTIONS = ("auto", "dense", "positions", "tiles")
#: Side of the tiles where halting scores are not shared within tiles.
TILE_SIZE = 4


class Block(tf_keras.layers.Layer):
    """A block of residual units that halts nowhere, once per image, or per position.

    Called with a map, a block returns a dict that says what came out and what it cost:

      output: [B, h, w, C].
      ponder_cost: float32, rho = N + R (eqn 11).
      num_units: int32, N, the units evaluated.
      halting_distribution: float32 [..., L], p (eqn 9).
      flops: int64 [B].
      positions: int64 [B], of each image's map.

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
        execution: str = "auto",
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
          execution: where units are computed; one of EXECUTIONS.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        self.units = units
        self.halting_scores = halting_scores
        self._adaptivity = adaptivity
        self._epsilon = epsilon
        self._tile_size = tile_size
        self._execution = execution
        self.built = True

    def map_sizes(self, map_sizes: tf.Tensor) -> tf.Tensor:
        """Sizes of the outputs for inputs of some sizes: integers of any shape."""
        return -(-map_sizes // self.units[0].stride)

    def call(self, inputs, training=None, halting_bias=None, map_sizes=None):
        """Runs the block; see the class for what it returns.

        Args:
          inputs: [B, H, W, C].
          training: whether batch norms use the statistics of the batch.
          halting_bias: optional scalar, or one number per image [B], added to every
            halting logit.
          map_sizes: optional int32 [B, 2], height and width of each image's map without
            padding at the bottom and on the right. Padded positions have halted from
            the start, and their output is zero.
        """
        first, *later = self.units
        real, positions_before = _real(inputs, map_sizes)
        features = first(inputs, training=training, real=real)
        if map_sizes is not None:
            map_sizes = self.map_sizes(map_sizes)
        real, positions = _real(features, map_sizes)
        flops = first.flops_on_map(positions_before, positions)
        if self._adaptivity == "none":
            return self._plain(features, flops, later, training, real, positions)
        spatial = self._adaptivity == "sact"
        geometry = self._geometry(features, training, real)
        state = halting.start(
            geometry.decisions_shape, active=real if spatial else None
        )
        probabilities = []
        for index, unit in enumerate(self.units):
            if index:
                remainder = tf.where(state.active, state.remainder, 0.0)
                left = len(self.units) - index
                geometry.halt(state.active, remainder, left)
                geometry.add(functools.partial(unit.residual, geometry, training))
                flops += unit.flops(
                    cost.active_positions(state.active, positions, 1, real),
                    cost.active_positions(state.active, positions),
                )
            score = None
            if index < len(self.halting_scores):
                scorer = self.halting_scores[index]
                score = geometry.unless_empty(
                    functools.partial(
                        scorer, geometry, training=training, halting_bias=halting_bias
                    ),
                    functools.partial(tf.zeros, geometry.decisions_shape),
                )
                flops += scorer.flops(
                    cost.active_images(state.active),
                    cost.active_positions(state.active, positions),
                )
                if spatial:
                    score = halting.share_in_tiles(score, self._tile_size, real)
            state, probability = halting.step(state, score, self._epsilon)
            probabilities.append(probability)
        return {
            "output": geometry.leave(),
            "ponder_cost": state.ponder_cost,
            "num_units": state.num_units,
            "halting_distribution": tf.stack(probabilities, axis=-1),
            "flops": flops,
            "positions": positions,
        }

    def _geometry(self, features, training, real):
        per_image = self._adaptivity == "act"
        # Live batch norms need the statistics of all positions.
        live = self.units[0].preact.is_live(training)
        if live or self._execution == "dense":
            return Dense(features, per_image, real)
        options = {"real": real, "conditionals": not training}
        if per_image:
            return Images(features, **options)
        last = self.units[-1]
        options["winograd"] = winograd_may_pay(last.conv1.filters)
        if self._execution == "tiles":
            options["side"] = self._tile_size if self._tile_size > 1 else TILE_SIZE
        elif self._execution == "auto":
            packing = packing_cost(
                last.radius,
                last.conv1.filters,
                features.shape[-1],
                last.flops_per_position,
            )
            images, height, width = features.shape[:3]
            rows = (images or 1) * height * width if height and width else None
            if not packing.pays(len(self.units) - 1, rows):
                return Dense(features, per_image, real)
            # In training it is always worth it: so much more is saved.
            options["packing"] = None if training else packing
        return Packed(features, self.units[0].radius, **options)

    def _plain(self, features, flops, later, training, real, positions):
        for unit in later:
            features = unit(features, training=training, real=real)
            flops += unit.flops_on_map(positions, positions)
        count = len(self.units)
        images = tf.shape(features)[:1]
        last = tf.one_hot(tf.fill(images, count - 1), count)
        return {
            "output": without_padding(features, real),
            "ponder_cost": tf.fill(images, count + 1.0),
            "num_units": tf.fill(images, count),
            "halting_distribution": last,
            "flops": flops,
            "positions": positions,
        }


def _real(features: tf.Tensor, map_sizes: tf.Tensor | None):
    """Which positions are no padding (None: all), and their number, int64 [B]."""
    if map_sizes is None:
        shape = tf.shape(features, out_type=tf.int64)
        return None, tf.fill(shape[:1], shape[1] * shape[2])
    positions = tf.reduce_prod(tf.cast(map_sizes, tf.int64), axis=1)
    return within(map_sizes, features), positions
