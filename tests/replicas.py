"""Strategies of several replicas in one process."""

import tensorflow as tf


def mirrored(count: int = 2) -> tf.distribute.MirroredStrategy:
    """A strategy with replicas on logical CPU devices (see conftest).

    The collective operations that are the default for CPUs get into disorder where
    several are under way, and no later one works in the same process.
    """
    return tf.distribute.MirroredStrategy(
        [f"cpu:{index}" for index in range(count)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
