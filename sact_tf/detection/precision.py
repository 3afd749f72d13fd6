"""Boxes in float32, whatever the networks compute in."""

import contextlib
from collections.abc import Iterator

import tf_keras


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """Layers made here keep their inputs in float32, whatever the global policy is.

    Those of the Garden that have boxes are made of others, and hand no dtype on to
    them. In 16 bits a box of 1000 pixels would move by several pixels.
    """
    policy = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy("float32")
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)
