"""The Model Garden's own detectors on an adaptive backbone, as they are served."""

import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from official.core import config_definitions as cfg
from official.core import exp_factory
from official.vision.serving.detection import DetectionModule

from sact_tf.model_garden import runs
from sact_tf.serving import checks

#: Experiments by a field that only their models have.
_EXPERIMENTS = {
    "roi_generator": "sact_fasterrcnn_fpn_coco",
    "head": "sact_retinanet_coco",
}


def is_run(path: str | os.PathLike) -> bool:
    """Whether a run is of such a detector.

    Args:
      path: see `runs.load`.

    Raises:
      FileNotFoundError: there is no checkpoint, or no params.yaml.
    """
    return _experiment(runs.locate(path)[2]) is not None


def params_of(path: str | os.PathLike) -> cfg.ExperimentConfig:
    """The experiment that a run of such a detector is of.

    Raises:
      FileNotFoundError: there is no checkpoint, or no params.yaml.
      ValueError: the run is of something else.
    """
    folder, _, found = runs.locate(path)
    name = _experiment(found)
    if name is None:
        raise ValueError(
            f"{folder} is no run of a detector with a feature pyramid on sact_resnet, "
            "such as those of sact_retinanet_coco and sact_fasterrcnn_fpn_coco"
        )
    params = exp_factory.get_exp_config(name)
    params.override(found, is_strict=False)
    return params


def _experiment(params):
    model = params.get("task", {}).get("model", {})
    backbone = model.get("backbone", {})
    if "decoder" not in model or "sact_resnet" not in backbone:
        return None
    return next((name for key, name in _EXPERIMENTS.items() if key in model), None)


class PyramidDetector(DetectionModule):
    """A Garden detector with its trained weights; see `serving.export.Servable`.

    The graph is the Garden's: images of a request are of one size, and brought to
    `task.model.input_size`. Boxes are in pixels of the images as they came. Two
    signatures:

      serving_default: JPEG or PNG files, strings [B].
      tensors: decoded images, uint8 [B, H, W, 3].
    """

    def __init__(self, path: str | os.PathLike, limits: checks.Limits | None = None):
        """Builds the detector, and reads its weights.

        Args:
          path: of the run; see `runs.load`.
          limits: of which the size of batches goes into the server's configuration; the
            Garden's graph refuses nothing.

        Raises:
          FileNotFoundError: there is no checkpoint, or no params.yaml.
          ValueError: the run is of something else, or its checkpoint does not fit.
        """
        params = params_of(path)
        super().__init__(
            params,
            batch_size=None,
            input_image_size=list(params.task.model.input_size[:2]),
            input_type="image_bytes",
            input_name="images",
        )
        folder, checkpoint, _ = runs.locate(path)
        # The decoder and the heads make their variables when they are called.
        size = [1, *self._padded_size]
        self.serve(tf.zeros([*size, 3], tf.uint8))
        runs.restore(self.model, checkpoint, folder)
        self.limits = limits or checks.Limits()

    def serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detects objects in images uint8 [B, H, W, 3]."""
        found = super().serve(images)
        size, _, scale, _ = tf.unstack(found.pop("image_info"), axis=1)
        boxes = found["detection_boxes"] / tf.tile(scale, [1, 2])[:, tf.newaxis]
        # Nothing in the padding that makes it a square.
        boxes = tf.minimum(boxes, tf.tile(size, [1, 2])[:, tf.newaxis])
        return {**found, "detection_boxes": boxes}

    @property
    def arguments(self) -> dict:
        """Of the backbone."""
        return self.model.backbone.get_config()

    @property
    def signatures(self) -> dict:
        """The functions to export, by name."""
        names = {"image_bytes": "serving_default", "image_tensor": "tensors"}
        return self.get_inference_signatures(names)

    @property
    def documentation(self) -> dict[str, str]:
        """What inputs and outputs mean, by name."""
        return {
            "images": "serving_default: JPEG or PNG files; tensors: decoded images, "
            "RGB. All of a request have one size.",
            "detection_boxes": "[ymin, xmin, ymax, xmax] in pixels of the image.",
            "detection_scores": "Descending.",
            "detection_classes": "Numbers, as in the annotations.",
            "num_detections": "How many of the boxes there are.",
        }

    def warmup_requests(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Requests (signature, inputs by name) that exercise all of the graph."""
        size = [*self._input_image_size, 3]
        image = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        file = tf.io.encode_jpeg(image).numpy()
        yield "serving_default", {"images": np.array([file], object)}
        yield "tensors", {"images": image[np.newaxis]}
