"""Blocks of residual units: plain, ACT and SACT with one interface (section 2)."""

import functools

import tensorflow as tf
import tf_keras

from sact_tf import flops as cost
from sact_tf import halting
from sact_tf.geometry import Dense, Extent, Images, winograd, without_padding
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.calibration import GPU, Calibration, from_dict
from sact_tf.geometry.control_flow import gpu_is_visible, is_for_xla
from sact_tf.geometry.grid import Grid
from sact_tf.layers import execution, given_masks, halting_scores, loops
from sact_tf.layers.arguments import FromArguments, made_by
from sact_tf.layers.execution import Rule
from sact_tf.layers.series import Series, Stack

#: Where units are computed: everywhere and masked; at active positions; in active
#: tiles; or whichever is fastest.
EXECUTIONS = ("auto", "dense", "positions", "tiles")
#: Side of the tiles where halting scores are not shared within tiles.
TILE_SIZE = 4
#: No price at which packing would pay.
_NEVER = object()


class Block(FromArguments, tf_keras.layers.Layer):
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

    With a given mask (`active_mask`) both are [B, h, w] in every block. Positions
    outside pass the first unit, which changes shapes, and no more: as if they halted
    there with a score of one, so N = 1, R = 1 and the ponder cost is 2, without a
    gradient. They are neighbours, and in global means, as what has halted is. FLOPs are
    those of what is computed by the mask, in every execution.
    """

    makers = made_by(calibration=functools.partial(from_dict, what="calibration"))

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

    def call(
        self,
        inputs,
        training=None,
        halting_bias=None,
        extent=None,
        active_mask=None,
    ):
        """Runs the block; see the class for what it returns.

        Args:
          inputs: [B, H, W, C].
          training: whether batch norms use the statistics of the batch.
          halting_bias: optional scalar, or one number per image [B], added to every
            halting logit.
          extent: optional Extent of the inputs. Padded positions have halted from the
            start, and their output is zero.
          active_mask: optional bool [B, h, w], of the output: where units behind the
            first one run.
        """
        first, *later = self.units
        before = extent or Extent.whole(inputs)
        features = first(inputs, training=training, valid=before.valid(inputs))
        extent = before.strided(first.stride)
        valid, positions = extent.valid(features), extent.positions
        flops = first.flops_on_map(before.positions, positions)
        if active_mask is not None:
            active_mask = tf.ensure_shape(active_mask, features.shape[:3])
            if valid is not None:
                active_mask &= valid
            if self._adaptivity == "none" or not later:
                return self._plain_with_mask(
                    features, flops, training, valid, positions, active_mask
                )
        if self._adaptivity == "none" or not later:
            return self._plain(features, flops, later, training, valid, positions)
        per_position = self._adaptivity == "sact" or active_mask is not None
        started = valid if per_position else None
        begins = started if active_mask is None else active_mask
        rule = Rule(self._epsilon, self._tile_size, halting_bias, begins)
        outcome = self._run(features, training, valid, rule, active_mask)
        spent = halting.cost(outcome.scores, outcome.flags, started)
        return {
            "output": outcome.output,
            **spent._asdict(),
            "flops": flops + self._flops(outcome.flags, positions, begins, valid),
            "positions": positions,
        }

    def _run(self, features, training, valid, rule, active_mask=None):
        """The units behind the first one, on the geometry that suits them."""
        units = Series([unit.branch(training, valid) for unit in self.units[1:]])
        logits = self.logits(training, valid)
        per_image, given = self._adaptivity == "act", active_mask is not None
        packing = self._packing(features, training, given)
        if packing is _NEVER:
            if not (per_image and given):
                dense = Dense(features, per_image, valid)
                return execution.written_out(dense, units, logits, rule)
            dense = Dense(features, per_image, valid, mask=active_mask)
            rule = rule._replace(started=None)
            outcome = execution.written_out(dense, units, logits, rule)
            return given_masks.of_positions(outcome, active_mask)
        if per_image and not given:
            images = Images(features, valid, conditionals=not training)
            run = execution.written_out if training else loops.loop_over_images
            return run(images, units, logits, rule)
        if per_image:
            logits = given_masks.per_position(logits)
        layout = self._layout(features, training, valid)
        if training:
            return execution.written_out_packed(features, layout, units, logits, rule)
        return loops.loop_over_positions(features, layout, units, logits, rule, packing)

    def _layout(self, features, training, valid):
        """How rows are packed."""
        grid = Grid.of(features)
        known = all(isinstance(size, int) for size in grid)
        return Layout(
            grid,
            self.units[-1].radius,
            self._side,
            valid,
            winograd=self._winograd(features, training),
            conditionals=not training,
            on_gpu=self._side > 1 and known and not training and gpu_is_visible(),
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

    def _packing(self, features, training, given=False):
        """What packing costs: _NEVER to pack, None to pack whenever fewer rows do."""
        # Live batch norms need the statistics of all positions.
        live = any(unit.is_live(training) for unit in self.units)
        if live or self._execution == "dense":
            return _NEVER
        if self._execution != "auto":
            return None
        if is_for_xla():
            return _NEVER
        known = self._calibration
        if gpu_is_visible() and known.device != GPU:
            return _NEVER
        per_image = self._adaptivity == "act"
        if per_image and not given:
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
        pays = packing.pays_with_mask if given else packing.pays
        # A loop leaves images out that have halted, be it only all of them at once.
        if not pays(len(self.units) - 1, rows) and not per_image:
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
        if self._adaptivity == "act" and scored.shape.rank > 2:
            scored = tf.reduce_any(scored, axis=[2, 3])
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

    def _plain_with_mask(self, features, flops, training, valid, positions, mask):
        """The same where a mask is given, which says what is computed."""
        count = len(self.units)
        units = Series([unit.branch(training, valid) for unit in self.units[1:]])
        packing = self._packing(features, training, given=True)
        if packing is _NEVER or count == 1:
            output = given_masks.masked(features, units, mask, valid)
        else:
            layout = self._layout(features, training, valid)
            if training:
                output = given_masks.packed(features, layout, units, mask)
            else:
                output = given_masks.loop_over_units(
                    features, layout, units, mask, packing
                )
        if count > 1:
            flops += (count - 1) * self.units[-1].flops(
                cost.computed_positions(mask[tf.newaxis], positions, 1, valid),
                cost.computed_positions(mask[tf.newaxis], positions),
            )
        return {
            "output": output,
            **given_masks.cost_of_plain(mask, valid, count)._asdict(),
            "flops": flops,
            "positions": positions,
        }


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
