"""Adaptive sampling: a map seen through a small one, finer where it matters (SSBNet).

A sampling layer brings a map [B, H, W, C] to S x T positions, on which a residual unit
computes, and its inverse brings the result back. Both are separable: products with one
matrix for the lines and one for the columns,

    z = Y x X^T        Y: [S, H], X: [T, W]
    y = V f U^T        V: [H, S], U: [W, T]

whose rows sum to one, so that constants survive. The matrices of an axis follow from
the axis' marginal p of the saliency, one number for each line (or column), summing to
one. Nothing is drawn by chance, and shapes do not depend on what is in the image.

The paper's equation 10 is not at hand: how matrices come from marginals is this
package's choice, of which there are three (SAMPLERS), and the printed FLOPs and
parameters of the paper's tables are met by all of them.
"""

import math
import numbers
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sact_tf.layers.maker import Made, Maker

#: What is left of a map's sides by default: 16, 8 and 4 of 28, 14 and 7.
DEFAULT_SHARE = 4 / 7
#: Standard deviation of the saliency kernel's first values: nearly uniform.
INITIAL_SALIENCY = 0.01
#: Full width at half maximum of the attraction's kernel over the side of the map, as
#: in Recasens et al. (2018): 13 of 31.
ATTRACTION_WIDTH = 13 / 31


#: The least saliency of a line that is no padding: what float32 still tells from none
#: among sums of up to one.
_LEAST = 1e-6


class AxisMatrices(NamedTuple):
    """What lines (or columns) are sampled by.

    Attributes:
      sample: [B, S, H], rows sum to one.
      inverse: [B, S, H], columns sum to one: the transpose of V, or of U.
    """

    sample: tf.Tensor
    inverse: tf.Tensor

    @property
    def points(self) -> tf.Tensor:
        """Where each sample lies on average, as shares of the side: [B, S]."""
        count = tf.shape(self.sample)[2]
        centres = (tf.range(count, dtype=self.sample.dtype) + 0.5) / tf.cast(
            count, self.sample.dtype
        )
        return tf.linalg.matvec(self.sample, centres)


def marginals(
    saliency: tf.Tensor, valid: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """A softmax over all positions, summed along lines and along columns.

    Args:
      saliency: [B, H, W], logits.
      valid: bool [B, H, W], false where the map is padding, which gets nothing; None
        for no padding.

    Returns:
      [B, H] and [B, W], each summing to one; no line has nothing, but for padding.
    """
    if valid is not None:
        saliency = tf.where(valid, saliency, saliency.dtype.min)
    shape = tf.shape(saliency)
    flat = tf.reshape(saliency, tf.stack([shape[0], shape[1] * shape[2]]))
    mass = tf.reshape(tf.nn.softmax(flat), shape)
    found = []
    for others in (2, 1):
        least = tf.constant(_LEAST, saliency.dtype)
        if valid is not None:
            least *= tf.cast(tf.reduce_any(valid, axis=others), saliency.dtype)
        found.append(tf.maximum(tf.reduce_sum(mass, axis=others), least))
    return tuple(found)


def overlap(marginal: tf.Tensor, size) -> AxisMatrices:
    """Each sample owns 1 / S of the saliency, and is the mean of what lies under it.

    A line with much saliency is copied into several samples (zoom), lines with little
    are averaged; none is skipped. A uniform marginal gives means of areas, and the
    identity for S = H.

    Args:
      marginal: [B, H], positive, summing to one.
      size: S, an integer or a scalar.
    """
    edges = _cumulated(marginal)[:, tf.newaxis]  # [B, 1, H + 1]
    ends = tf.range(size + 1) / tf.cast(size, tf.int32)
    ends = tf.cast(ends, marginal.dtype)[tf.newaxis, :, tf.newaxis]
    # How far each line is passed by the end of each sample.
    passed = tf.maximum(tf.minimum(ends, edges[..., 1:]), edges[..., :-1])
    shared = passed[:, 1:] - passed[:, :-1]  # [B, S, H]
    # Lines of padding are in no sample.
    total = tf.reduce_sum(shared, axis=1, keepdims=True)
    inverse = tf.math.divide_no_nan(shared, total)
    return AxisMatrices(shared * tf.cast(size, shared.dtype), inverse)


def quantiles(marginal: tf.Tensor, size) -> AxisMatrices:
    """Samples interpolate between the two lines next to the quantiles (i + 1/2) / S.

    A uniform marginal gives bilinear interpolation both ways.

    Args:
      marginal: [B, H], positive, summing to one.
      size: S, an integer or a scalar.
    """
    height = tf.shape(marginal)[1]
    edges = _cumulated(marginal)
    dtype = marginal.dtype
    steps = (tf.range(size, dtype=dtype) + 0.5) / tf.cast(size, dtype)
    low = edges[:, tf.newaxis, :-1]
    mass = tf.maximum(edges[:, tf.newaxis, 1:] - low, 1e-12)
    passed = (steps[tf.newaxis, :, tf.newaxis] - low) / mass
    points = tf.reduce_sum(tf.clip_by_value(passed, 0.0, 1.0), axis=2) - 0.5  # [B, S]
    # No interpolation with what is behind the last line with saliency: padding.
    lines = tf.range(height, dtype=dtype)
    last = tf.reduce_max(tf.where(marginal > 0, lines, 0), axis=1, keepdims=True)
    points = tf.minimum(points, last)
    middles = (edges[:, :-1] + edges[:, 1:]) / 2
    places = middles * tf.cast(size, dtype) - 0.5  # [B, H]
    return AxisMatrices(_hats(points, height), _transposed_hats(places, size))


def attraction(
    marginal: tf.Tensor, size, width: float = ATTRACTION_WIDTH
) -> AxisMatrices:
    """Samples of a regular grid are drawn towards saliency near them.

    Sample i lies at the mean of all lines, weighted by their saliency times a Gaussian
    of their distance from its place on the grid (Recasens et al., 2018, for each axis).
    Beyond the edges the marginal goes on as at the edge.

    Args:
      marginal: [B, H], positive, summing to one.
      size: S, an integer or a scalar.
      width: of the Gaussian at half of its maximum, over H.
    """
    dtype, height = marginal.dtype, tf.shape(marginal)[1]
    side = tf.cast(height, dtype)
    grid = (tf.range(size, dtype=dtype) + 0.5) * side / tf.cast(size, dtype) - 0.5
    deviation = width * side / math.sqrt(8 * math.log(2))
    lines = tf.range(-height, 2 * height)
    kept = tf.gather(marginal, tf.clip_by_value(lines, 0, height - 1), axis=1)
    lines = tf.cast(lines, dtype)
    near = tf.exp(-tf.square((lines - grid[:, tf.newaxis]) / deviation) / 2)
    weights = kept[:, tf.newaxis] * near  # [B, S, 3 H]
    total = tf.reduce_sum(weights, axis=2)
    points = tf.linalg.matvec(weights, lines) / tf.maximum(total, 1e-30)
    # Points only grow along the grid, so between two of them lines find their place.
    gaps = tf.maximum(points[:, 1:] - points[:, :-1], 1e-6)[:, tf.newaxis]
    passed = tf.range(height, dtype=dtype)[:, tf.newaxis] - points[:, tf.newaxis, :-1]
    places = tf.reduce_sum(tf.clip_by_value(passed / gaps, 0.0, 1.0), axis=2)
    return AxisMatrices(_hats(points, height), _transposed_hats(places, size))


def _cumulated(marginal):
    """Saliency before each line, and behind the last, which is all: [B, H + 1]."""
    sums = tf.cumsum(marginal, axis=1)
    return tf.pad(sums / sums[:, -1:], [[0, 0], [1, 0]])


def _hats(points, count):
    """Weights of linear interpolation at points [B, n] of `count` places."""
    points = tf.clip_by_value(points, 0.0, tf.cast(count - 1, points.dtype))
    places = tf.range(count, dtype=points.dtype)
    return tf.nn.relu(1.0 - tf.abs(points[..., tf.newaxis] - places))


def _transposed_hats(points, count):
    return tf.linalg.matrix_transpose(_hats(points, count))


def sample(maps: tf.Tensor, lines: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Brings maps to a smaller size: Y x X^T.

    Args:
      maps: [B, H, W, C].
      lines: [B, S, H], or [1, S, H] for all images.
      columns: [B, T, W], or [1, T, W].

    Returns:
      [B, S, T, C].
    """
    # The large product first: a matrix product of whole lines.
    return _along_columns(_along_lines(maps, lines), columns)


def restore(maps: tf.Tensor, lines: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Brings maps back to their size: V f U^T, from the transposes of V and U.

    Args:
      maps: [B, S, T, C].
      lines: [B, S, H], or [1, S, H] for all images.
      columns: [B, T, W], or [1, T, W].

    Returns:
      [B, H, W, C].
    """
    return _along_lines(_along_columns(maps, columns, True), lines, True)


def _along_lines(maps, matrix, transposed=False):
    shape = tf.shape(maps)
    flat = tf.reshape(maps, tf.stack([shape[0], shape[1], shape[2] * maps.shape[3]]))
    matrix = tf.cast(matrix, maps.dtype)
    outputs = tf.matmul(matrix, flat, transpose_a=transposed)
    side = 2 if transposed else 1
    sides = [shape[0], tf.shape(matrix)[side], shape[2], maps.shape[3]]
    outputs = tf.reshape(outputs, tf.stack(sides))
    outputs.set_shape([maps.shape[0], matrix.shape[side], *maps.shape[2:]])
    return outputs


def _along_columns(maps, matrix, transposed=False):
    matrix = tf.cast(matrix, maps.dtype)[:, tf.newaxis]
    return tf.matmul(matrix, maps, transpose_a=transposed)


#: Functions of a marginal and a size, by the name of the sampler; and whether it has a
#: saliency, or samples uniformly.
SAMPLERS: dict[str, tuple[Callable, bool]] = {
    "adaptive": (overlap, True),
    "uniform": (overlap, False),
    "bilinear": (quantiles, False),
    "quantiles": (quantiles, True),
    "attraction": (attraction, True),
}
#: All names; this one has no matrices.
DEPTHWISE = "depthwise"
NAMES = (*SAMPLERS, DEPTHWISE)


class Restoration(NamedTuple):
    """Brings what was computed on a sampled map, [B, S, T, C], back to [B, H, W, C].

    Attributes:
      lines, columns: see `restore`.
    """

    lines: tf.Tensor
    columns: tf.Tensor

    def __call__(self, maps: tf.Tensor) -> tf.Tensor:
        """The inverse sampling."""
        return restore(maps, self.lines, self.columns)


class Sampled(NamedTuple):
    """A map as a sampler sees it.

    Attributes:
      maps: [B, S, T, C].
      lines, columns: where the samples lie, as shares of the sides: float32 [B, S] and
        [B, T], or [1, S] and [1, T] for all images.
      restore: brings [B, S, T, C'] back to [B, H, W, C'].
    """

    maps: tf.Tensor
    lines: tf.Tensor
    columns: tf.Tensor
    restore: Callable[[tf.Tensor], tf.Tensor]


class SeparableSampler(Made, tf_keras.layers.Layer):
    """Sampling by matrices that follow from a saliency, or from none.

    The saliency is a 1x1 convolution with one output and no bias (a softmax over all
    positions follows, which takes no notice of one), computed once for both ways.
    """

    def __init__(
        self,
        kind: str,
        channels: int,
        size: int | float,
        *,
        make: Maker,
        name: str,
    ):
        """Creates the layer and its variables.

        Args:
          kind: one of SAMPLERS.
          channels: C of the maps.
          size: samples of each side: an integer, or a share of the side.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(name=name, dtype=make.dtype)
        self._matrices, adaptive = SAMPLERS[kind]
        self._size = size
        self.saliency = None
        if adaptive:
            with tf.name_scope(name):
                self.saliency = make.conv(
                    channels,
                    1,
                    1,
                    initial_kernel=INITIAL_SALIENCY,
                    name="saliency",
                )
        self.built = True

    def call(self, maps, training=None, valid=None) -> Sampled:
        """Samples maps [B, H, W, C].

        Args:
          maps: the maps.
          training: nothing depends on it.
          valid: bool [B, H, W], false where the map is padding, where nothing is
            sampled; None for no padding.

        Raises:
          ValueError: there would be more samples than positions.
        """
        del training
        if self.saliency is not None:
            # Cumulative sums want all of float32.
            saliency = tf.cast(self.saliency(maps)[..., 0], tf.float32)
        else:
            saliency = tf.zeros_like(maps[:1, :, :, 0], tf.float32)
            if valid is not None:
                saliency = tf.zeros(tf.shape(maps)[:3])
        sizes = self.sizes(maps)
        if isinstance(self._size, numbers.Integral) and None in maps.shape[1:3]:
            # Known at run time only.
            tf.debugging.assert_less_equal(
                self._size,
                tf.reduce_min(tf.shape(maps)[1:3]),
                message="There can be no more samples than the map has.",
            )
        lines, columns = self._of_axes(marginals(saliency, valid), sizes)
        return Sampled(
            sample(maps, lines.sample, columns.sample),
            lines.points,
            columns.points,
            Restoration(lines.inverse, columns.inverse),
        )

    def _of_axes(self, marginals, sizes):
        """Matrices of lines and of columns; of square maps both at once."""
        lines, columns = marginals
        square = lines.shape[1] is not None and lines.shape[1] == columns.shape[1]
        if not square or sizes[0] != sizes[1]:
            return [
                self._matrices(*pair) for pair in zip(marginals, sizes, strict=True)
            ]
        both = self._matrices(tf.concat(marginals, axis=0), sizes[0])
        halves = (tf.split(matrices, 2) for matrices in both)
        return [AxisMatrices(*pair) for pair in zip(*halves, strict=True)]

    def sizes(self, maps) -> tuple:
        """Samples of each side of maps: integers where the side is known."""
        return tuple(sample_size(self._size, maps, axis) for axis in (1, 2))

    def flops(self, maps, sizes: tf.Tensor) -> tf.Tensor:
        """FLOPs of sampling, of its inverse and of the saliency, for each image.

        Args:
          maps: [B, H, W, C], what is sampled.
          sizes: int64 [B, 2], of the maps without padding.

        Returns:
          int64 [B].
        """
        down, across = (tf.cast(size, tf.int64) for size in self.sizes(maps))
        height, width = sizes[:, 0], sizes[:, 1]
        one_way = down * width * (height + across)
        total = 2 * 2 * one_way * maps.shape[3]
        if self.saliency is not None:
            total += self.saliency.flops(height * width)
        return total


class DepthwiseSampler(Made, tf_keras.layers.Layer):
    """A depthwise convolution of stride two, and bilinear interpolation back (HBONet).

    5x5, without bias or activation, with a batch norm: so its parameters are those of
    the table.
    """

    def __init__(
        self,
        channels: int,
        size: int | float | None = None,
        *,
        make: Maker,
        name: str,
    ):
        """Creates the layer and its variables.

        Args:
          channels: C of the maps.
          size: of each side's samples, which must be what comes out; None for that.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(name=name, dtype=make.dtype)
        self._size = size
        decay = make.weight_decay
        with tf.name_scope(name):
            self.kernel = self.add_weight(
                "kernel",
                [5, 5, channels, 1],
                initializer=tf_keras.initializers.VarianceScaling(2.0 * channels),
                regularizer=(tf_keras.regularizers.L2(decay / 2) if decay else None),
            )
            self.norm = make.norm(channels, name=f"{name}_norm")
        self.built = True

    def call(self, maps, training=None, valid=None) -> Sampled:
        """See SeparableSampler; every second position, whatever is there."""
        self.sizes(maps)
        kernel = tf.cast(self.kernel, self.compute_dtype)
        small = tf.nn.depthwise_conv2d(maps, kernel, [1, 2, 2, 1], "SAME")
        behind = None if valid is None else valid[:, ::2, ::2]
        small = self.norm.bound(training, behind)(small)
        size = tf.shape(maps)[1:3]

        def restore(values):
            enlarged = tf.image.resize(values, size)
            enlarged.set_shape([*maps.shape[:3], values.shape[3]])
            return tf.cast(enlarged, values.dtype)

        lines, columns = (
            (tf.range(count, dtype=tf.float32)[tf.newaxis] + 0.5)
            / tf.cast(count, tf.float32)
            for count in (tf.shape(small)[1], tf.shape(small)[2])
        )
        return Sampled(small, lines, columns, restore)

    def sizes(self, maps) -> tuple:
        """See SeparableSampler."""
        sides = tuple(
            tf.shape(maps)[axis] if maps.shape[axis] is None else maps.shape[axis]
            for axis in (1, 2)
        )
        halves = tuple((side + 1) // 2 for side in sides)
        if isinstance(self._size, numbers.Integral):
            wrong = [
                half for half in halves if isinstance(half, int) and half != self._size
            ]
            if wrong:
                raise ValueError(
                    f"The depthwise sampler leaves {wrong[0]} of a map of the shape "
                    f"{maps.shape}. Received: a sampling size of {self._size}. Leave "
                    "sampling_sizes out for it"
                )
        return halves

    def flops(self, maps, sizes):
        """See SeparableSampler; interpolating back counts for nothing."""
        positions = tf.reduce_prod((sizes + 1) // 2, axis=1)
        return 2 * positions * self.kernel.shape.num_elements()


def sample_size(size: int | float, maps: tf.Tensor, axis: int):
    """Samples of one side of maps.

    Args:
      size: an integer, or a share of the side, of which at least one sample is left.
      maps: [B, H, W, C].
      axis: 1 or 2.

    Returns:
      An integer where the side is known, or does not matter; else an int32 scalar.

    Raises:
      ValueError: there would be more samples than positions.
    """
    side = maps.shape[axis]
    if isinstance(size, numbers.Integral):
        if side is not None and size > side:
            raise ValueError(
                f"There can be no more samples than the map has: {side} along axis "
                f"{axis}. Received: a sampling size of {size}; maps {maps.shape}. Give "
                "smaller sampling_sizes, or shares of the sides, as 0.57"
            )
        return int(size)
    if side is not None:
        return max(1, round(size * side))
    scaled = tf.round(size * tf.cast(tf.shape(maps)[axis], tf.float32))
    return tf.maximum(tf.cast(scaled, tf.int32), 1)
