"""A detector as it is served: images in; objects, and what finding them cost, out."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from sact_tf.data import preprocessing
from sact_tf.serving import checks, servable

if TYPE_CHECKING:  # Slow to import, with all of the Model Garden.
    from sact_tf.detection.faster_rcnn import FasterRCNN

#: Images in a request, by default: a detector takes them one after the other.
MAX_BATCH_SIZE = 8
#: Pixels of the shorter side of an image, at least, by default.
MIN_SIDE = 32


class Detector(servable.ImageServable):
    """A `FasterRCNN` as it is served; see `servable.ImageServable`.

    Images run one after the other, each at its own size and without padding, as in
    evaluation: the answer for one does not depend on the others of its batch.
    """

    def __init__(
        self,
        detector: "FasterRCNN",
        num_classes: int,
        *,
        shorter_side: int = 600,
        longer_side: int = 1024,
        labels: Sequence[str] | None = None,
        limits: checks.Limits | None = None,
    ):
        """Makes the signatures.

        Args:
          detector: the detector.
          num_classes: the background, class 0, included.
          shorter_side: pixels that the shorter side of every image is brought to ...
          longer_side: ... unless the longer one would then have more pixels than this.
          labels: names of the classes, beginning with that of the background; their
            numbers by default.
          limits: what is refused; by default that of `checks.Limits`, more than
            MAX_BATCH_SIZE images, and images narrower than MIN_SIDE.

        Raises:
          ValueError: an argument is out of range, or the labels are not one for each
            class.
        """
        if not MIN_SIDE <= shorter_side <= longer_side:
            raise ValueError(
                f"shorter_side must be at least {MIN_SIDE} and not above longer_side. "
                f"Received: {shorter_side}, {longer_side}"
            )

        def answer(prepared, halting_bias, explain):
            images, sizes = prepared

            def detect(arguments):
                image, size, bias = arguments
                image = tf.ensure_shape(image.to_tensor(), [None, None, 3])
                seen = tf.cast(tf.shape(image)[:2], tf.float32)
                found = detector.detect(
                    image[tf.newaxis], seen[tf.newaxis], halting_bias=bias
                )
                return self._outputs(found, seen, size, explain)

            outputs = tf.map_fn(
                detect,
                (images, sizes, halting_bias),
                parallel_iterations=1,
                fn_output_signature=self._outputs_spec(explain),
            )
            return {
                # Maps are as large as the images: those of smaller ones are padded.
                key: value.to_tensor() if isinstance(value, tf.RaggedTensor) else value
                for key, value in outputs.items()
            }

        super().__init__(
            "detector",
            detector,
            labels,
            num_classes,
            limits or checks.Limits(MAX_BATCH_SIZE, min_side=MIN_SIDE),
            answer,
            detector.extractor.adaptivity,
        )
        self.shorter_side = shorter_side
        self.longer_side = longer_side
        self.max_detections = detector.config.max_detections
        self.block_names = [block.name for block in detector.extractor.blocks]
        self.warmup_sizes = [(shorter_side, longer_side), (longer_side, shorter_side)]
        # Blocks of other networks decide for the whole image.
        self._spatial = detector.extractor.adaptivity == "sact"

    @property
    def documentation(self) -> dict[str, str]:
        """What the inputs and outputs of all signatures mean, by name."""
        blocks = {
            servable.map_name(name): f"The same for {name} alone, at its resolution: "
            f"the sizes in map_size divided by {4 * 2**index}, rounded up."
            for index, name in enumerate(self.block_names)
        }
        return {
            **super().documentation,
            "num_detections": "How many objects were found; what follows these in the "
            "other outputs is zero or empty.",
            "boxes": "Where the objects are: [ymin, xmin, ymax, xmax] in pixels of the "
            f"image as it was sent, upright. The {self.max_detections} best, best "
            "first.",
            "normalized_boxes": "The same as shares of the image's height and width.",
            "classes": "What they are; 0 is the background.",
            "names": "Their names.",
            "scores": "How sure the detector is, 0 to 1.",
            "ponder_cost": "What the image cost: residual units and remainders of the "
            "feature extractor, mean over positions, sum over blocks.",
            "flops": "What the image cost: floating point operations of all "
            "convolutions of the feature extractor.",
            "ponder_cost_map": "Where the image cost it: ponder cost at each pixel of "
            "the image as the network saw it, resized, all blocks together.",
            **blocks,
            "map_size": "Height and width of the image as the network saw it: of "
            "ponder_cost_map, what lies beyond is padding.",
        }

    @property
    def _prepared_spec(self):
        image = tf.RaggedTensorSpec([None, None, 3], tf.float32, ragged_rank=1)
        return image, tf.TensorSpec([2], tf.float32)

    def _prepare(self, image):
        seen = preprocessing.detection(image, self.shorter_side, self.longer_side)
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        return tf.RaggedTensor.from_tensor(seen, ragged_rank=1), size

    def _outputs_spec(self, explain):
        count = self.max_detections
        spec = {
            "num_detections": tf.TensorSpec([], tf.int32),
            "boxes": tf.TensorSpec([count, 4], tf.float32),
            "normalized_boxes": tf.TensorSpec([count, 4], tf.float32),
            "classes": tf.TensorSpec([count], tf.int32),
            "names": tf.TensorSpec([count], tf.string),
            "scores": tf.TensorSpec([count], tf.float32),
            "ponder_cost": tf.TensorSpec([], tf.float32),
            "flops": tf.TensorSpec([], tf.int64),
        }
        if not explain:
            return spec
        a_map = tf.RaggedTensorSpec([None, None], tf.float32, ragged_rank=1)
        spec |= {"ponder_cost_map": a_map, "map_size": tf.TensorSpec([2], tf.int32)}
        of_block = a_map if self._spatial else tf.TensorSpec([], tf.float32)
        blocks = {servable.map_name(name): of_block for name in self.block_names}
        return spec | blocks

    def _outputs(self, found, seen, size, explain):
        """Of one image: boxes in its own pixels, and nothing where nothing is."""
        scale = seen / size
        there = tf.range(self.max_detections) < found["count"][0]
        boxes = tf.where(there[:, tf.newaxis], found["boxes"][0], 0.0)
        classes = tf.where(there, found["classes"][0], 0)
        outputs = {
            "num_detections": found["count"][0],
            "boxes": boxes / tf.tile(scale, [2]),
            "normalized_boxes": boxes / tf.tile(seen, [2]),
            "classes": classes,
            "names": tf.where(there, self._names_of(classes), ""),
            "scores": tf.where(there, found["scores"][0], 0.0),
        }
        for key, value in servable.costs(found["record"], explain).items():
            of_image = value[0]
            if of_image.shape.rank:
                of_image = tf.RaggedTensor.from_tensor(of_image)
            outputs[key] = of_image
        if explain:
            outputs["map_size"] = tf.cast(seen, tf.int32)
        return outputs
