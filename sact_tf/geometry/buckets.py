"""Matrices of rows come in few sizes.

oneDNN compiles code for every shape that it meets, which takes as long as a convolution
of some hundred rows, and images bring masks of ever new sizes. So matrices are filled
up to the next of some hundred sizes, a few per cent apart.
"""

import numpy as np
import tensorflow as tf

from sact_tf.geometry.control_flow import gpu_is_visible

#: Up to 256 they are multiples of 8; then every octave has 16.
SIZES = np.concatenate(
    [np.arange(0, 256, 8), *(np.arange(16, 32) << octave for octave in range(4, 26))]
).astype(np.int32)


def bucket(count: tf.Tensor, multiple: int = 1) -> tf.Tensor:
    """The smallest size that a number of rows fits into: int32 scalar.

    Of a multiple of a number, the next multiple at least as large as that size.
    """
    if gpu_is_visible():
        # The host knows the number, and would wait for a GPU to look it up.
        with tf.device("cpu:0"):
            size = _looked_up(count)
    else:
        size = _next_size(count)
    return size if multiple == 1 else -(-size // multiple) * multiple


def _looked_up(count):
    return tf.gather(SIZES, tf.searchsorted(SIZES, tf.reshape(count, [1])))[0]


# A function: traced once.
_next_size = tf.function(
    _looked_up, input_signature=[tf.TensorSpec([], tf.int32)], autograph=False
)
