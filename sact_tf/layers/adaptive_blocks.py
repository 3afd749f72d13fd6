"""Blocks of residual units: plain, ACT and SACT with one interface (section 2)."""

import tensorflow as tf
import tf_keras

from sact_tf import flops as cost
from sact_tf import halting
from sact_tf.geometry import Dense, Images, winograd, within, without_padding
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.calibration import GPU, Calibration
from sact_tf.geometry.control_flow import gpu_is_visible
from sact_tf.geometry.grid import Grid
from sact_tf.layers import execution, halting_scores
from sact_tf.layers.execution import Rule
from sact_tf.layers.series import Series, Stack

#: Where units are computed: everywhere and masked; at active positions; in active
#: tiles; or whichever is fastest.
EXECUTIONS = ("auto", "dense", "positions", "tiles")
#: Side of the tiles where halting scores are not shared within tiles.
TILE_SIZE = 4
#: No price at which packing would pay.
_NEVER = object()


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
        calibration: Calibration | None = None,
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
          calibration: when "auto" packs; None for the defaults.
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
        self._calibration = calibration or Calibration()
        self.built = True

    @property
    def adaptivity(self) -> str:
        """One of "none", "act" and "sact"."""
        return self._adaptivity

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
        valid, positions_before = positions_of(inputs, map_sizes)
        features = first(inputs, training=training, valid=valid)
        if map_sizes is not None:
            map_sizes = self.map_sizes(map_sizes)
        valid, positions = positions_of(features, map_sizes)
        flops = first.flops_on_map(positions_before, positions)
        if self._adaptivity == "none" or not later:
            return self._plain(features, flops, later, training, valid, positions)
        started = valid if self._adaptivity == "sact" else None
        rule = Rule(self._epsilon, self._tile_size, halting_bias, started)
        outcome = self._run(features, training, valid, rule)
        spent = halting.cost(outcome.scores, outcome.flags, started)
        return {
            "output": outcome.output,
            **spent._asdict(),
            "flops": flops + self._flops(outcome.flags, positions, started, valid),
            "positions": positions,
        }

    def _run(self, features, training, valid, rule):
        """The units behind the first one, on the geometry that suits them."""
        units = Series([unit.branch(training, valid) for unit in self.units[1:]])
        logits = self.logits(training, valid)
        per_image = self._adaptivity == "act"
        # Live batch norms need the statistics of all positions.
        live = any(unit.is_live(training) for unit in self.units)
        packing = None if live else self._packing(features, training)
        if live or packing is _NEVER:
            dense = Dense(features, per_image, valid)
            return execution.written_out(dense, units, logits, rule)
        if per_image:
            images = Images(features, valid, conditionals=not training)
            run = execution.written_out if training else execution.loop_over_images
            return run(images, units, logits, rule)
        last = self.units[-1]
        layout = Layout(
            Grid.of(features),
            last.radius,
            self._side,
            valid,
            winograd=self._winograd(features, training),
            conditionals=not training,
        )
        if training:
            return execution.written_out_packed(features, layout, units, logits, rule)
        return execution.loop_over_positions(
            features, layout, units, logits, rule, packing
        )

    def logits(self, training=None, valid=None) -> Series | Stack:
        """The logits of the halting scores as pure functions of a geometry."""
        return halting_scores.logits(self.halting_scores, training, valid)

    @property
    def _side(self):
        if self._execution != "tiles":
            return 1
        return self._tile_size if self._tile_size > 1 else TILE_SIZE

    def _winograd(self, features, training):
        last = self.units[-1]
        return (
            not training
            and self._side == 1
            and last.radius == 1
            and features.dtype == tf.float32
            and winograd.may_pay(last.conv1.filters)
        )

    def _packing(self, features, training):
        """What packing costs: _NEVER to pack, None to pack whenever fewer rows do."""
        if self._execution == "dense":
            return _NEVER
        if self._execution != "auto":
            return None
        known = self._calibration
        if gpu_is_visible() and known.device != GPU:
            return _NEVER
        if self._adaptivity == "act":
            return None
        last = self.units[-1]
        packing = known.packing_cost(
            last.radius,
            last.conv1.filters,
            features.shape[-1],
            last.flops_per_position,
        )
        images, height, width = features.shape[:3]
        rows = (images or 1) * height * width if height and width else None
        if not packing.pays(len(self.units) - 1, rows):
            return _NEVER
        # In training it is always worth it: so much more is saved.
        return None if training else packing

    def _flops(self, flags, positions, started, valid):
        """FLOPs of the units behind the first one, and of all scores: int64 [B]."""
        total = self.units[-1].flops(
            cost.computed_positions(flags, positions, 1, valid),
            cost.computed_positions(flags, positions),
        )
        if started is None:
            started = tf.ones(tf.shape(flags)[1:], tf.bool)
        scored = tf.concat([started[tf.newaxis], flags[:-1]], axis=0)
        return total + self.halting_scores[0].flops(
            cost.scored_images(scored), cost.computed_positions(scored, positions)
        )

    def _plain(self, features, flops, later, training, valid, positions):
        count = len(self.units)
        for unit in later:
            features = unit(features, training=training, valid=valid)
        if later:
            flops += (count - 1) * later[-1].flops_on_map(positions, positions)
        # A SACT block of one unit has nothing to decide, but says so per position.
        decided = tf.shape(features)[: 3 if self._adaptivity == "sact" else 1]
        ran = tf.ones(decided, tf.int32)
        if valid is not None and self._adaptivity == "sact":
            ran = tf.cast(valid, tf.int32)
        features = without_padding(features, valid)
        return record_of_all(features, count, ran, flops, positions)


def record_of_all(
    output: tf.Tensor,
    count: int,
    ran: tf.Tensor,
    flops: tf.Tensor,
    positions: tf.Tensor,
) -> dict:
    """What a block returns whose units all ran; see Block.

    Args:
      output: [B, h, w, C].
      count: L.
      ran: int32, of the shape of the decisions: one, and zero where there is padding.
      flops: int64 [B].
      positions: int64 [B].
    """
    return {
        "output": output,
        "ponder_cost": tf.cast((count + 1) * ran, tf.float32),
        "num_units": count * ran,
        "halting_distribution": tf.one_hot(count * ran - 1, count),
        "flops": flops,
        "positions": positions,
    }


def positions_of(features: tf.Tensor, map_sizes: tf.Tensor | None):
    """Which positions are no padding (None: all), and their number, int64 [B]."""
    if map_sizes is None:
        images, height, width, _ = tf.unstack(tf.shape(features, out_type=tf.int64))
        return None, tf.fill([images], height * width)
    positions = tf.reduce_prod(tf.cast(map_sizes, tf.int64), axis=1)
    return within(map_sizes, features), positions
