"""Floating point operations per image, counted as the paper counts them (section 4.1).

Convolutions only, two operations per multiply-add. A residual unit that runs at some
positions only (the perforated convolution) pays for its first convolution at the
active positions dilated 3x3, and for the others at the active positions.
"""

import tensorflow as tf


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
