"""Which of some flags are true, on a GPU: the host is not asked how many there are.

`tf.where` waits for the device to know the size of what it returns. Where the host
knows the number already, or asks for several numbers at once, this does not. Indices
are int64: TensorFlow keeps int32 in the host's memory, and computes it there.
"""

import tensorflow as tf

INDEX = tf.int64


def running_sum(flags: tf.Tensor) -> tf.Tensor:
    """How many flags [n] are true up to each: int64 [n]."""
    # Float32, which is exact up to 2**24: GPUs have no running sums of integers.
    return tf.cast(tf.cumsum(tf.cast(flags, tf.float32)), INDEX)


def numbers(sums: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Where flags are true, in order: int64 [count].

    Args:
      sums: int64 [n], how many are true up to each.
      count: int32 scalar; if there are fewer, the last one is repeated.
    """
    wanted = tf.range(tf.size(tf.fill([count], 0.0), out_type=INDEX)) + 1
    return tf.searchsorted(sums, tf.minimum(wanted, sums[-1]), out_type=INDEX)
