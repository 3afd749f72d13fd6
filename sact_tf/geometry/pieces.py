"""What geometries have in common."""

import tensorflow as tf

#: Features in parts, each with the channels on its last axis.
Pieces = list[tf.Tensor]


def dilate(mask: tf.Tensor, radius: int) -> tf.Tensor:
    """Positions within `radius` (in both directions) of one that is true.

    Args:
      mask: bool [B, H, W].
      radius: zero or more.

    Returns:
      bool [B, H, W].
    """
    if not radius:
        return mask
    values = tf.cast(mask, tf.float32)[..., tf.newaxis]
    return tf.nn.max_pool2d(values, 2 * radius + 1, 1, "SAME")[..., 0] > 0


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
