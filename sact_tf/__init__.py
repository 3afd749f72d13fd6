"""Spatially Adaptive Computation Time for residual networks, in TensorFlow 2 / Keras.

Equations, algorithms, sections and tables named in docstrings are those of Figurnov et
al., "Spatially Adaptive Computation Time for Residual Networks", CVPR 2017.
"""

import importlib

from sact_tf.checkpoints.authors import (
    load_authors_checkpoint,
    save_authors_checkpoint,
)
from sact_tf.checkpoints.files import load_model
from sact_tf.models.resnet import ResNet

__version__ = "0.1.0"

__all__ = [
    "ResNet",
    "load_authors_checkpoint",
    "load_model",
    "save_authors_checkpoint",
]

_SUBPACKAGES = (
    "checkpoints",
    "data",
    "detection",
    "distribution",
    "evaluation",
    "folder_training",
    "masks",
    "model_garden",
    "serving",
    "training",
    "visualization",
)


def __getattr__(name: str):
    # `sact_tf.training.fit` after `import sact_tf` alone, without its cost before.
    if name in _SUBPACKAGES:
        return importlib.import_module(f"sact_tf.{name}")
    raise AttributeError(f"module 'sact_tf' has no attribute {name!r}")
