"""Blocks whose units compute on a sampled, smaller map (SSBNet)."""

import numbers
from collections.abc import Iterable
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sact_tf.geometry import Dense, Extent, without_padding
from sact_tf.layers.adaptive_blocks import record_of_all
from sact_tf.layers.adaptive_sampling import (
    DEPTHWISE,
    DepthwiseSampler,
    SeparableSampler,
)
from sact_tf.layers.arguments import FromArguments
from sact_tf.layers.maker import Maker
from sact_tf.layers.post_activation_units import PostActivationUnit


class Seen(NamedTuple):
    """What came out of a sampled unit.

    Attributes:
      output: [B, H, W, C].
      flops: int64 [B].
      lines, columns: where it sampled; see adaptive_sampling.Sampled.
    """

    output: tf.Tensor
    flops: tf.Tensor
    lines: tf.Tensor
    columns: tf.Tensor


class SampledUnit(PostActivationUnit):
    """relu(x + restore(f(sample(x)))): all three convolutions on the small map.

    Sampled is the unit's whole input, so every unit may look elsewhere, and what it
    does not see goes on through the shortcut.
    """

    def __init__(
        self,
        channels: int,
        bottleneck_channels: int,
        *,
        sampling: str,
        size: int | float | None,
        make: Maker,
        name: str,
    ):
        """Creates the unit and its variables.

        Args:
          channels: C of input and output, four times the bottleneck's.
          bottleneck_channels: channels of the 3x3 convolution.
          sampling: one of adaptive_sampling.NAMES.
          size: samples of each side, an integer or a share of the side.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(channels, bottleneck_channels, make=make, name=name)
        with tf.name_scope(name):
            if sampling == DEPTHWISE:
                self.sampler = DepthwiseSampler(
                    channels, size, make=make, name="sampler"
                )
            else:
                self.sampler = SeparableSampler(
                    sampling, channels, size, make=make, name="sampler"
                )

    def call(self, inputs, training=None, valid=None):
        """Runs the unit: [B, H, W, C] -> [B, H, W, C]."""
        return self.seen(inputs, training, valid).output

    def seen(self, inputs, training=None, valid=None, extent=None) -> Seen:
        """Runs the unit and says what it saw.

        Args:
          inputs: [B, H, W, C].
          training: whether batch norms use the statistics of the batch.
          valid: bool [B, H, W], false where the map is padding; None for no padding.
          extent: of the maps, for FLOPs; all of them by default.
        """
        sampled = self.sampler(inputs, training=training, valid=valid)
        residual = self.branch(training).behind(sampled.maps, Dense(sampled.maps))
        output = tf.nn.relu(inputs + sampled.restore(residual))
        sizes = tf.cast((extent or Extent.whole(inputs)).sizes, tf.int64)
        down, across = (tf.cast(n, tf.int64) for n in self.sampler.sizes(inputs))
        positions = tf.fill(tf.shape(sizes)[:1], down * across)
        return Seen(
            without_padding(output, valid),
            self.sampler.flops(inputs, sizes) + self.flops(positions, positions),
            sampled.lines,
            sampled.columns,
        )


class SampledBlock(FromArguments, tf_keras.layers.Layer):
    """A block whose first unit is an ordinary one, and the others are sampled.

    Returns what a plain Block does, and beside it where its units sampled:

      sample_lines, sample_columns: float32 [B, L - 1, S] and [B, L - 1, T], as shares
        of height and width.

    How many samples there are follows from the size of the maps of the batch. Padding
    is never sampled, but an image in a larger, padded batch gets more samples than
    alone.
    """

    def __init__(self, units: list, *, name: str, dtype=None):
        """Creates a block from its parts.

        Args:
          units: a PostActivationUnit that may change the shape, then SampledUnits.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        self.units = units
        self.halting_scores = []
        self.built = True

    def call(self, inputs, training=None, halting_bias=None, extent=None):
        """Runs the block; see the class for what it returns.

        Args:
          inputs: [B, H, W, C].
          training: whether batch norms use the statistics of the batch.
          halting_bias: nothing halts; taken for the sake of other blocks.
          extent: see Block.
        """
        del halting_bias
        first, *later = self.units
        before = extent or Extent.whole(inputs)
        features = first(inputs, training=training, valid=before.valid(inputs))
        extent = before.strided(first.stride)
        valid, positions = extent.valid(features), extent.positions
        flops = first.flops_on_map(before.positions, positions)
        images = tf.shape(features)[:1]
        lines, columns = [], []
        for unit in later:
            seen = unit.seen(features, training, valid, extent)
            features = seen.output
            flops += seen.flops
            for points, of_unit in ((lines, seen.lines), (columns, seen.columns)):
                shape = tf.concat([images, tf.shape(of_unit)[1:]], axis=0)
                points.append(tf.broadcast_to(of_unit, shape))
        record = record_of_all(
            without_padding(features, valid),
            len(self.units),
            tf.ones(images, tf.int32),
            flops,
            positions,
        )
        if later:
            record["sample_lines"] = tf.stack(lines, axis=1)
            record["sample_columns"] = tf.stack(columns, axis=1)
        return record


def resolve_sizes(
    sampling: str | None, sizes, blocks: int
) -> tuple[int | float, ...] | None:
    """Sampling sizes of all blocks but the first.

    Args:
      sampling: one of adaptive_sampling.NAMES; None for no sampling.
      sizes: what the user gave: None, a share for all blocks, or for each block but the
        first an integer (samples of each side) or a share of the side in (0, 1].
      blocks: of the network.

    Returns:
      None for a default, which the sampler knows, else what was given, as a tuple.

    Raises:
      ValueError: they are of the wrong number or out of range, or there is no sampling.
    """
    if sizes is None:
        return None
    received = f"Received: sampling_sizes={sizes!r}"
    if sampling is None:
        raise ValueError(f"sampling_sizes need a sampling, as 'adaptive'. {received}")
    if isinstance(sizes, numbers.Real):
        sizes = (sizes,) * (blocks - 1)
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise ValueError(f"sampling_sizes must be numbers. {received}")
    sizes = tuple(sizes)
    if len(sizes) != blocks - 1:
        raise ValueError(
            f"sampling_sizes must be {blocks - 1}, one for each block but the first. "
            f"{received}"
        )
    if not all(map(_is_size, sizes)):
        raise ValueError(
            "sampling_sizes must be integers of at least 1 (samples of each side), or "
            f"shares of the side, more than 0.0 and up to 1.0. {received}"
        )
    return tuple(
        int(size) if isinstance(size, numbers.Integral) else float(size)
        for size in sizes
    )


def _is_size(size):
    if isinstance(size, bool):
        return False
    if isinstance(size, numbers.Integral):
        return size >= 1
    return isinstance(size, numbers.Real) and 0 < size <= 1
