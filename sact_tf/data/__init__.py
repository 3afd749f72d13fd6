"""Data sets and what is done to images before they reach a network."""

from sact_tf.data import digit_scenes

__all__ = ["digit_scenes"]
