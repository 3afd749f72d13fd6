"""Data sets and what is done to images before they reach a network."""

from sact_tf.data import (
    augmentation,
    cat2000,
    decoding,
    digit_scenes,
    image_files,
    preprocessing,
    sources,
)

__all__ = [
    "augmentation",
    "cat2000",
    "decoding",
    "digit_scenes",
    "image_files",
    "preprocessing",
    "sources",
]
