"""Blocks whose units are computed where masks sample them, interpolated elsewhere."""

import math
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sact_tf.geometry import Extent, without_padding
from sact_tf.geometry.control_flow import conditional, gpu_is_visible, is_for_xla
from sact_tf.geometry.sampled import Sampled
from sact_tf.layers.arguments import FromArguments, made_by
from sact_tf.layers.maker import Maker
from sact_tf.layers.normalization import FixedNorm
from sact_tf.layers.post_activation_units import PostActivationUnit
from sact_tf.layers.stochastic_sampling import Mask, MaskSampler, Sampling, blend

#: Weights of the two masks' mean probabilities in the loss: about the shares of FLOPs
#: that they decide on.
MASK_WEIGHTS = (0.25, 0.75)
#: Width from which on the last convolution is computed at sampled positions only.
LEAST_WIDTH = 256
#: Width from which on rows may be faster than masks.
LEAST_WIDTH_OF_ROWS = 128
#: Share of the work that must be left out for rows to be faster than masks.
PAYS_BELOW = 0.75


class Drawing(NamedTuple):
    """How the masks of a step are drawn: at inference with neither of the two.

    Attributes:
      step: int64 scalar, number of the training step.
      temperature: float32 scalar.
    """

    step: tf.Tensor | None = None
    temperature: tf.Tensor | None = None


class Drawn(NamedTuple):
    """What came out of a unit.

    Attributes:
      output: [B, H', W', C'].
      masks: of its first convolution, [B, H, W], and of the others, [B, H', W'].
      sparsity: float32 [B], what the loss counts.
      densities: float32 [B, 2], sampled shares of the two masks.
      flops: int64 [B], of what is sampled.
    """

    output: tf.Tensor
    masks: tuple[Mask, Mask]
    sparsity: tf.Tensor
    densities: tf.Tensor
    flops: tf.Tensor


class StochasticUnit(PostActivationUnit):
    """relu(shortcut(x) + f(x)), where f is computed at sampled positions.

    One mask says where the first convolution is computed, another where the other two
    are; both depend on the unit's input. Behind each, what was left out is
    interpolated.
    """

    makers = made_by(sampling=Sampling.checked, **PostActivationUnit.makers)

    def __init__(
        self,
        input_channels: int,
        bottleneck_channels: int,
        *,
        stride: int = 1,
        number: int = 0,
        sampling: Sampling = Sampling(),  # noqa: B008 (it is a constant)
        execution: str = "auto",
        make: Maker,
        name: str,
    ):
        """Creates the unit and its variables.

        Args:
          input_channels: C of the input.
          bottleneck_channels: channels of the 3x3 convolution; the unit's output has
            four times as many.
          stride: of the whole unit.
          number: of the unit in its network.
          sampling: what can be chosen about masks.
          execution: at inference, "dense" computes everything and masks, "positions"
            what is sampled, "auto" whichever is faster.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(
            input_channels, bottleneck_channels, stride=stride, make=make, name=name
        )
        self._execution = execution
        with tf.name_scope(name):
            self.mask1, self.mask2 = (
                MaskSampler(
                    input_channels,
                    (1, stride)[index],
                    2 * number + index,
                    sampling,
                    make=make,
                    name=f"mask{index + 1}",
                )
                for index in (0, 1)
            )

    def call(self, inputs, training=None, valid=None):
        """Runs the unit at inference: [B, H, W, C] -> [B, H / stride, ..., C']."""
        return self.drawn(inputs, training=training, valid=valid).output

    def drawn(
        self, inputs, drawing=None, training=None, valid=None, extent=None
    ) -> Drawn:
        """Draws masks, and runs the unit.

        Args:
          inputs: [B, H, W, C].
          drawing: how masks are drawn; at inference by default.
          training: whether batch norms use the statistics of the batch.
          valid: bool [B, H, W], false where the map is padding; None for no padding.
          extent: of the maps, for FLOPs and means; all of them by default.
        """
        inputs = without_padding(inputs, valid)
        behind = self._valid_behind(valid)
        drawing = drawing or Drawing()
        masks = (
            self.mask1(inputs, *drawing, valid=valid),
            self.mask2(inputs, *drawing, valid=behind),
        )
        branch = self.branch(training, valid)

        def masked():
            return self._masked(inputs, branch, masks, valid)

        def packed():
            return self._packed(inputs, branch, masks, valid)

        whole = drawing.step is not None or self.is_live(training)
        if whole or self._execution == "dense" or self._is_slow():
            residual = masked()
        elif self._execution == "positions":
            residual = packed()
        else:
            shares = [tf.reduce_mean(tf.cast(mask.kept, tf.float32)) for mask in masks]
            left = sum(w * s for w, s in zip(MASK_WEIGHTS, shares, strict=True))
            residual = conditional(left < PAYS_BELOW, packed, masked)
        output = tf.nn.relu(self.shortcut_of(inputs, training, valid) + residual)
        extent = extent or Extent.whole(inputs)
        positions = [extent.positions, extent.strided(self.stride).positions]
        counts = [mask.count for mask in masks]
        return Drawn(
            without_padding(output, behind),
            masks,
            sum(
                weight * mask.mean_probability(n)
                for weight, mask, n in zip(MASK_WEIGHTS, masks, positions, strict=True)
            ),
            tf.stack(
                [
                    tf.cast(c / n, tf.float32)
                    for c, n in zip(counts, positions, strict=True)
                ],
                axis=1,
            ),
            self.flops(*counts) + self.flops_of_the_rest(*positions),
        )

    def flops_of_the_rest(self, inputs, outputs):
        """FLOPs of masks and shortcut, from positions of the input and the output."""
        total = self.mask1.logits.flops(inputs) + self.mask2.logits.flops(outputs)
        if self.shortcut is not None:
            total += self.shortcut.flops(outputs)
        return total

    def _is_slow(self):
        """Whether rows are never faster: few channels are quickly computed."""
        few = self.conv2.filters < LEAST_WIDTH_OF_ROWS
        return self._execution == "auto" and (few or gpu_is_visible() or is_for_xla())

    def _masked(self, x, branch, masks, valid):
        """F of the whole map; what is not sampled is thrown away."""
        first, second = (mask.values[..., tf.newaxis] for mask in masks)
        x = tf.nn.relu(branch.conv1_norm(branch.conv1(x)))
        x = blend(tf.cast(first, x.dtype) * x, masks[0].values, self.mask1.kernel)
        x = tf.nn.relu(branch.conv2_norm(branch.conv2(without_padding(x, valid))))
        x = blend(tf.cast(second, x.dtype) * x, masks[1].values, self.mask2.kernel)
        return branch.conv3_norm(branch.conv3(x))

    def _packed(self, x, branch, masks, valid):
        """F from sampled positions.

        Where channels are many the last convolution runs before its input is
        interpolated. Both are linear, and so is its batch norm, but for the offset,
        which is added behind them. Where they are few, four times as many to
        interpolate would cost more than the convolution.
        """
        rows = Sampled.of(masks[0].kept)
        x = rows.rows(x)
        x = tf.nn.relu(branch.conv1_norm(branch.conv1(x)))
        x = rows.on_map(_weighted(x, rows, masks[0]))
        x = without_padding(blend(x, masks[0].values, self.mask1.kernel), valid)
        rows = Sampled.of(masks[1].kept)
        x = rows.convolve(x, self.conv2.values(), self.stride)
        x = tf.nn.relu(branch.conv2_norm(x))
        if self.conv2.filters < LEAST_WIDTH:
            x = rows.on_map(_weighted(x, rows, masks[1]))
            x = blend(x, masks[1].values, self.mask2.kernel)
            return branch.conv3_norm(branch.conv3(x))
        norm: FixedNorm = branch.conv3_norm
        scale, offset = (tf.cast(v, x.dtype) for v in norm.folded())
        x = branch.conv3(x) * scale
        x = rows.on_map(_weighted(x, rows, masks[1]))
        return blend(x, masks[1].values, self.mask2.kernel) + offset


def _weighted(rows, sampled, mask):
    weights = sampled.rows(mask.values[..., tf.newaxis])
    return rows * tf.cast(weights, rows.dtype)


class StochasticBlock(FromArguments, tf_keras.layers.Layer):
    """A block of StochasticUnits.

    Returns what other blocks do (see Block), and beside it what masks say:

      num_units: int32 [B, h, w], how many units sample each position.
      ponder_cost: float32 [B, h, w], how many would on average: sum of probabilities.
      sparsity: float32 [B], what the loss counts, summed over units.
      densities: float32 [B, L, 2], sampled shares of each unit's two masks.

    Nothing halts, so halting_distribution, float32 [B, h, w, L], says which units
    sample a position: shares that sum to one, and zeros where none does.

    Attributes:
      temperature: float32 scalar variable, of the masks in training; it is lowered by
        whoever trains (see sact_tf.annealing.TemperatureSchedule).
    """

    def __init__(self, units: list, *, name: str, dtype=None):
        """Creates a block from its parts.

        Args:
          units: StochasticUnits; the first may change the shape.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        self.units = units
        self.halting_scores = []
        once = {
            "trainable": False,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        with tf.name_scope(name):
            self.temperature = self.add_weight(
                "temperature",
                [],
                tf.float32,
                "ones",
                experimental_autocast=False,
                **once,
            )
            # Of training: its noise goes on where a run is taken up.
            self.step = self.add_weight("step", [], tf.int64, "zeros", **once)
        self.built = True

    def call(self, inputs, training=None, halting_bias=None, extent=None):
        """Runs the block; see the class for what it returns.

        Args:
          inputs: [B, H, W, C].
          training: whether masks are soft, and batch norms use the statistics of the
            batch.
          halting_bias: nothing halts; taken for the sake of other blocks.
          extent: see Block.
        """
        del halting_bias
        drawing = Drawing()
        if training:
            drawing = Drawing(tf.identity(self.step), tf.identity(self.temperature))
            self.step.assign_add(1)
        features, drawn = inputs, []
        extent = extent or Extent.whole(inputs)
        for unit in self.units:
            valid = extent.valid(features)
            drawn.append(unit.drawn(features, drawing, training, valid, extent))
            features = drawn[-1].output
            extent = extent.strided(unit.stride)
        seconds = [each.masks[1] for each in drawn]
        sampled = tf.stack([tf.cast(mask.kept, tf.int32) for mask in seconds], -1)
        count = tf.reduce_sum(sampled, axis=-1)
        shares = tf.math.divide_no_nan(
            tf.cast(sampled, tf.float32), tf.cast(count, tf.float32)[..., tf.newaxis]
        )
        return {
            "output": features,
            "ponder_cost": tf.add_n([mask.probability for mask in seconds]),
            "num_units": count,
            "halting_distribution": shares,
            "flops": tf.add_n([each.flops for each in drawn]),
            "positions": extent.positions,
            "sparsity": tf.add_n([each.sparsity for each in drawn]),
            "densities": tf.stack([each.densities for each in drawn], axis=1),
        }


def counted_multiply_adds(
    unit: StochasticUnit, size: tuple[int, int], densities
) -> float:
    """Multiply-adds of a unit as the counter of SSIN's code has them.

    Interpolation is counted at r (1 - r) of the positions with a whole window: 49 for
    each channel, and on the unit's wide output behind the second mask.

    Args:
      unit: the unit.
      size: height and width of its input.
      densities: r of the two masks, means over a data set.
    """
    stride, window = unit.stride, unit.mask1.window
    inputs = math.prod(size)
    outputs = math.prod(-(-side // stride) for side in size)
    first, second = (float(r) for r in densities)
    dense = int(unit.flops_of_the_rest(inputs, outputs)) / 2
    narrow, wide = unit.conv2.filters, unit.conv3.filters
    return (
        dense
        + int(unit.conv1.flops(inputs)) / 2 * first
        + int(unit.conv2.flops(outputs) + unit.conv3.flops(outputs)) / 2 * second
        + window**2 * narrow * inputs * first * (1 - first)
        + window**2 * wide * outputs * second * (1 - second)
    )
