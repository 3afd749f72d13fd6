"""The examples in docstrings run."""

import ast
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf import annealing, resumable
from sact_tf.detection.config import FasterRCNNConfig
from sact_tf.detection.faster_rcnn import FasterRCNN
from sact_tf.models.backbone import Backbone
from sact_tf.models.config import BackboneConfig

PACKAGE = pathlib.Path(sact_tf.__file__).parent
SMALL = {"units": (1, 1, 1, 1), "base_channels": 2}
IMAGES = np.random.default_rng(0).uniform(-1, 1, [2, 64, 64, 3]).astype("f")


def examples():
    """Docstrings' examples by file and number."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        texts = [
            ast.get_docstring(node) or ""
            for node in ast.walk(tree)
            if isinstance(node, kinds)
        ]
        codes = re.findall(r"^```python\n(.*?)^```", "\n".join(texts), re.M | re.S)
        for number, code in enumerate(codes):
            name = path.relative_to(PACKAGE).with_suffix("").as_posix()
            yield f"{name}-{number}", code


EXAMPLES = dict(examples())


def small(kind, **changes):
    """A class whose objects are smaller than the example says."""
    return lambda **options: kind(**{**options, **changes})


class Small:
    """The package, of which networks are small."""

    ResNet = staticmethod(small(sact_tf.ResNet, **SMALL))


class Saved:
    """Something that can be added to, and says what it has."""

    def add(self, batch):
        """Does nothing."""

    def state(self):
        """Says what it has."""
        return {"count": 1}


class Request:
    """The client's answer of a server that is not there."""

    def __init__(self, server, name):
        assert (server, name) == ("localhost:8500", "sact")

    def predict(self, signature, inputs):
        """Takes what the real one takes."""
        assert signature == "serving_default" and set(inputs) == {"images"}
        return {"names": [["a cat"]], "flops": [1]}


def names(folder):
    """What the examples take for granted."""
    labels = {"classes": np.array([[1], [2]]), "boxes": np.array([[[8.0, 8, 40, 40]]] * 2, "f")}
    of_detectors = tf.data.Dataset.from_tensors((IMAGES, labels))
    of_classes = tf.data.Dataset.from_tensors((IMAGES, np.array([0, 1])))
    return {
        "tf": tf,
        "tf_keras": tf_keras,
        "images": IMAGES,
        "sact_tf": Small,
        "BackboneConfig": small(BackboneConfig, **SMALL),
        "Backbone": Backbone,
        "FasterRCNN": FasterRCNN,
        "FasterRCNNConfig": small(
            FasterRCNNConfig, num_sampled=4, proposal_filters=4, crop_size=7
        ),
        "Client": Request,
        "TemperatureSchedule": annealing.TemperatureSchedule,
        "resumable": resumable,
    }, of_detectors, of_classes
