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


def active_positions(
    active: tf.Tensor,
    positions: tf.Tensor,
    radius: int = 0,
    real: tf.Tensor | None = None,
) -> tf.Tensor:
    """Positions of each image that a convolution is evaluated at.

    Args:
      active: bool [B] (ACT) or [B, H, W] (SACT).
      positions: int64 [B], all positions of each image's map.
      radius: how far around the active positions as well.
      real: bool [B, H, W], false where the map is padding; None for no padding.

    Returns:
      int64 [B].
    """
    if active.shape.rank == 1:
        return tf.cast(active, tf.int64) * positions
    # Counted as integers: a float32 sum is exact only up to 2**24 positions.
    computed = dilate(active, radius)
    if real is not None:
        computed &= real
    return tf.math.count_nonzero(computed, axis=[1, 2])


def active_images(active: tf.Tensor) -> tf.Tensor:
    """One for every image whose halting scores are evaluated: int64 [B].

    Args:
      active: bool [B] (ACT) or [B, H, W] (SACT, whose global score is always paid).
    """
    if active.shape.rank == 1:
        return tf.cast(active, tf.int64)
    return tf.ones(tf.shape(active)[:1], tf.int64)
