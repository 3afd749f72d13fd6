"""Floating point operations per image, counted as the paper counts them (section 4.1).

Convolutions only, two operations per multiply-add. A residual unit that runs at some
positions only (the perforated convolution) pays for its first convolution at the
active positions dilated 3x3, and for the others at the active positions.
"""

import tensorflow as tf

from sact_tf.geometry.maps import dilate


def convolution(kernel_shape, positions: tf.Tensor | int) -> tf.Tensor:
    """FLOPs of a convolution evaluated at some positions.

    Args:
      kernel_shape: [height, width, input channels, output channels].
      positions: number of output positions, an integer or an integer tensor (for
        instance [B]: one number per image).

    Returns:
      int64 tensor of the shape of `positions`.
    """
    per_position = 2
    for side in kernel_shape:
        per_position *= int(side)
    return tf.cast(positions, tf.int64) * per_position


def computed_positions(
    flags: tf.Tensor,
    positions: tf.Tensor,
    radius: int = 0,
    valid: tf.Tensor | None = None,
) -> tf.Tensor:
    """Positions of each image that convolutions are evaluated at, in several units.

    Args:
      flags: bool [L, B] (ACT) or [L, B, H, W] (SACT), what is active in each unit.
      positions: int64 [B], all positions of each image's map.
      radius: how far around the active positions as well.
      valid: bool [B, H, W], false where the map is padding; None for no padding.

    Returns:
      int64 [B], the sum over units.
    """
    if flags.shape.rank == 2:
        return tf.math.count_nonzero(flags, axis=0) * positions
    shape = tf.shape(flags)
    merged = tf.reshape(flags, tf.concat([[-1], shape[2:]], axis=0))
    computed = tf.reshape(dilate(merged, radius), shape)
    if valid is not None:
        computed &= valid
    # Counted as integers: a float32 sum is exact only up to 2**24 positions.
    return tf.math.count_nonzero(computed, axis=[0, 2, 3])


def scored_images(flags: tf.Tensor) -> tf.Tensor:
    """How many halting scores of each image are evaluated: int64 [B].

    Args:
      flags: bool [L, B] (ACT) or [L, B, H, W] (SACT, whose global score is always
        paid), what is active in each unit that has a score.
    """
    if flags.shape.rank == 2:
        return tf.math.count_nonzero(flags, axis=0)
    shape = tf.shape(flags, out_type=tf.int64)
    return tf.fill(shape[1:2], shape[0])
