"""The kernel of a convolution and what can be done with it, as pure functions."""

from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry.maps import nine_to_one


class Filter(NamedTuple):
    """Kernel and bias of a convolution of stride one, in the type of the features.

    Attributes:
      kernel: [1, 1, C, C'] or [3, 3, C, C'].
      bias: [C'], or None.
    """

    kernel: tf.Tensor
    bias: tf.Tensor | None = None

    def __call__(self, maps: tf.Tensor) -> tf.Tensor:
        """Convolves maps [B, H, W, C], with zeros beyond the edges ("SAME")."""
        if self.kernel.shape[0] == 3 and self.kernel.shape[3] == 1:
            return self._biased(single_output(maps, self.kernel))
        return self._biased(tf.nn.conv2d(maps, self.kernel, 1, "SAME"))

    def on_tiles(self, tiles: tf.Tensor) -> tf.Tensor:
        """Convolves tiles that bring a halo of one: [t, k + 2, k + 2, C] -> k x k."""
        return self._biased(tf.nn.conv2d(tiles, self.kernel, 1, "VALID"))

    def on_neighbours(self, neighbours: tf.Tensor) -> tf.Tensor:
        """Convolves positions that come with all neighbours (im2col GEMM).

        Args:
          neighbours: [1, n, 1, 9 C], in the order of the kernel's places.

        Returns:
          [1, n, 1, C'].
        """
        kernel = tf.reshape(self.kernel, [1, 1, -1, self.kernel.shape[3]])
        return self._biased(tf.nn.conv2d(neighbours, kernel, 1, "SAME"))

    def _biased(self, outputs):
        return outputs if self.bias is None else tf.nn.bias_add(outputs, self.bias)


def single_output(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The 3x3 convolution with one output channel, without nine-fold copies of C.

    Every position is projected onto nine numbers, one for each place in the kernel;
    then each position adds up nine neighbours' numbers. Several times faster than the
    general convolution, whose matrix product would have one column.

    Args:
      maps: [B, H, W, C].
      kernel: [3, 3, C, 1].

    Returns:
      [B, H, W, 1].
    """
    taps = tf.reshape(kernel, [1, 1, 9, kernel.shape[2]])
    numbers = tf.nn.conv2d(maps, tf.transpose(taps, [0, 1, 3, 2]), 1, "VALID")
    return tf.nn.conv2d(numbers, nine_to_one(maps.dtype), 1, "SAME")
