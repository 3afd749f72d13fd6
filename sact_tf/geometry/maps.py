"""Operations on maps that geometries have in common."""

import functools

import numpy as np
import tensorflow as tf

# [3, 3, 9, 1]: to each place in the kernel its number.
_NINE_TO_ONE = np.eye(9).reshape(3, 3, 9, 1)


def dilate(mask: tf.Tensor, radius: int) -> tf.Tensor:
    """Positions within `radius` (in both directions) of one that is true.

    Args:
      mask: bool [B, H, W].
      radius: zero or more.

    Returns:
      bool [B, H, W].
    """
    return _dilating(radius)(mask) if radius else mask


@functools.cache
def _dilating(radius):
    """`dilate` as a function: traced once."""

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None], tf.bool)], autograph=False
    )
    def dilating(mask):
        # Several times faster than max pooling, which takes no bool.
        shape = tf.shape(mask)
        margin = [radius, radius]
        mask = tf.pad(mask, [[0, 0], margin, margin])
        wider = tf.add(shape, [0, 0, 2 * radius])
        for step, size in (([0, 1, 0], wider), ([0, 0, 1], shape)):
            mask = functools.reduce(
                tf.logical_or,
                [
                    tf.slice(mask, [i * axis for axis in step], size)
                    for i in range(2 * radius + 1)
                ],
            )
        return mask

    return dilating


def within(sizes: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """Which positions of maps belong to images, and are no padding.

    Args:
      sizes: int32 [B, 2], height and width of each map without the padding at the
        bottom and on the right.
      maps: [B, H, W, C].

    Returns:
      bool [B, H, W].
    """
    rows = tf.range(tf.shape(maps)[1]) < sizes[:, :1]
    columns = tf.range(tf.shape(maps)[2]) < sizes[:, 1:]
    return rows[:, :, tf.newaxis] & columns[:, tf.newaxis]


def without_padding(maps: tf.Tensor, valid: tf.Tensor | None, value=0.0) -> tf.Tensor:
    """Maps [B, H, W, C] with a value wherever `valid` is false, if that is given."""
    if valid is None:
        return maps
    return tf.where(valid[..., tf.newaxis], maps, tf.cast(value, maps.dtype))


def mean_over_positions(maps: tf.Tensor, valid: tf.Tensor | None) -> tf.Tensor:
    """Mean of maps [B, H, W, C], without their padding: [B, C]."""
    if valid is None:
        return tf.reduce_mean(maps, axis=[1, 2])
    count = tf.math.count_nonzero(valid, axis=[1, 2], dtype=tf.int32)
    total = tf.reduce_sum(without_padding(maps, valid), axis=[1, 2])
    return total / tf.cast(count, maps.dtype)[:, tf.newaxis]


def nine_to_one(dtype) -> tf.Tensor:
    """Kernel [3, 3, 9, 1] that adds up, for each place in it, that place's number."""
    return tf.constant(_NINE_TO_ONE, dtype)


def ten_to_one(dtype) -> tf.Tensor:
    """The same kernel for ten numbers, of which the last counts nowhere."""
    return tf.constant(np.pad(_NINE_TO_ONE, [[0, 0], [0, 0], [0, 1], [0, 0]]), dtype)


def linear_score(
    maps: tf.Tensor,
    kernel: tf.Tensor,
    offset: tf.Tensor,
    valid: tf.Tensor | None = None,
) -> tf.Tensor:
    """A 3x3 convolution with one output plus a projection of the global mean.

    Every position is projected onto ten numbers: one for each place in the 3x3 kernel,
    which its neighbours add up, and one for the mean. So the features are read once,
    and not copied nine-fold.

    Args:
      maps: [B, H, W, C].
      kernel: float32 [10, C].
      offset: float32 [10], added to the ten numbers; as zero as everything else outside
        of the map.
      valid: bool [B, H, W], false where the map is padding; None for no padding.

    Returns:
      float32 [B, H, W].
    """
    shape = tf.shape(maps)
    rows = tf.reshape(maps, [-1, maps.shape[-1]])
    numbers = tf.matmul(rows, tf.cast(kernel, maps.dtype), transpose_b=True)
    numbers = tf.cast(numbers, tf.float32) + offset
    numbers = tf.reshape(numbers, tf.concat([shape[:3], [10]], axis=0))
    numbers = without_padding(numbers, valid)
    local = tf.nn.conv2d(numbers, ten_to_one(tf.float32), 1, "SAME")
    means = mean_over_positions(numbers[..., 9:], valid)
    return tf.squeeze(local, 3) + tf.expand_dims(means, 1)
