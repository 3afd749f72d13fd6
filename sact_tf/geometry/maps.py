"""Operations on maps that geometries have in common."""

import functools

import tensorflow as tf


def dilate(mask: tf.Tensor, radius: int) -> tf.Tensor:
    """Positions within `radius` (in both directions) of one that is true.

    Args:
      mask: bool [B, H, W].
      radius: zero or more.

    Returns:
      bool [B, H, W].
    """
    side = 2 * radius + 1
    # Several times faster than max pooling, which takes no bool.
    for axis in (1, 2):
        padding = [[0, 0], [0, 0], [0, 0]]
        padding[axis] = [radius, radius]
        padded, size = tf.pad(mask, padding), tf.shape(mask)[axis]
        shifted = [
            padded[:, i : i + size] if axis == 1 else padded[:, :, i : i + size]
            for i in range(side)
        ]
        mask = functools.reduce(tf.logical_or, shifted)
    return mask


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


def without_padding(maps: tf.Tensor, real: tf.Tensor | None, value=0.0) -> tf.Tensor:
    """Maps [B, H, W, C] with a value wherever `real` is false, if that is given."""
    if real is None:
        return maps
    return tf.where(real[..., tf.newaxis], maps, tf.cast(value, maps.dtype))


def mean_over_positions(maps: tf.Tensor, real: tf.Tensor | None) -> tf.Tensor:
    """Mean of maps [B, H, W, C], without their padding: [B, C]."""
    if real is None:
        return tf.reduce_mean(maps, axis=[1, 2])
    count = tf.math.count_nonzero(real, axis=[1, 2], dtype=tf.int32)
    total = tf.reduce_sum(without_padding(maps, real), axis=[1, 2])
    return total / tf.cast(count, maps.dtype)[:, tf.newaxis]


def nine_to_one(dtype) -> tf.Tensor:
    """Kernel [3, 3, 9, 1] that adds up, for each place in it, that place's number."""
    return tf.reshape(tf.eye(9, dtype=dtype), [3, 3, 9, 1])


def ten_to_one(dtype) -> tf.Tensor:
    """The same kernel for ten numbers, of which the last counts nowhere."""
    return tf.pad(nine_to_one(dtype), [[0, 0], [0, 0], [0, 1], [0, 0]])


def project(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Every position's scalar products with the rows of a kernel.

    Args:
      maps: [B, H, W, C].
      kernel: [K, C].

    Returns:
      float32 [B, H, W, K].
    """
    shape = tf.shape(maps)
    rows = tf.reshape(maps, [-1, maps.shape[-1]])
    numbers = tf.matmul(rows, tf.cast(kernel, maps.dtype), transpose_b=True)
    numbers = tf.reshape(numbers, [*tf.unstack(shape[:3]), kernel.shape[0]])
    return tf.cast(numbers, tf.float32)


def linear_score(
    maps: tf.Tensor,
    kernel: tf.Tensor,
    offset: tf.Tensor,
    real: tf.Tensor | None = None,
) -> tf.Tensor:
    """Dense.linear_score of maps [B, H, W, C], of which `real` are no padding."""
    numbers = without_padding(project(maps, kernel) + offset, real)
    local = tf.nn.conv2d(numbers, ten_to_one(tf.float32), 1, "SAME")[..., 0]
    means = mean_over_positions(numbers, real)[:, 9]
    return local + means[:, tf.newaxis, tf.newaxis]
