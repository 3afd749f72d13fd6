"""A detector as it is served: images in; objects, and what finding them cost, out."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from sact_tf.data import preprocessing
from sact_tf.serving import checks, servable

if TYPE_CHECKING:  # Slow to import, with all of the Model Garden.
    from sact_tf.detection.faster_rcnn import FasterRCNN

#: Images in a request, by default: a detector takes them one after the other.
MAX_BATCH_SIZE = 8
#: Pixels of the shorter side of an image, at least, by default.
MIN_SIDE = 32
#: In requests, of num_proposals or proposal_threshold: what the export says.
AS_EXPORTED = -1


class Detector(servable.ImageServable):
    """A `FasterRCNN` as it is served; see `servable.ImageServable`.

    Images run one after the other, each at its own size and without padding, as in
    evaluation: the answer for one does not depend on the others of its batch.

    There are two more signatures, which say how many regions of an image are looked at:

      limited, limited_explain: serving_default and explain with `num_proposals` and
        `proposal_threshold`.

    They are not inputs of the others, since REST clients must give all inputs.
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
        num_proposals: int | None = None,
        proposal_threshold: float | None = None,
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
          num_proposals: regions of an image that are looked at, unless a request says
            otherwise; by default as many as the detector proposes.
          proposal_threshold: regions of a lower score are not, unless a request says
            otherwise; by default that of the detector.

        Raises:
          ValueError: an argument is out of range, or the labels are not one for each
            class.
        """
        if not MIN_SIDE <= shorter_side <= longer_side:
            raise ValueError(
                f"shorter_side must be at least {MIN_SIDE} and not above longer_side. "
                f"Received: {shorter_side}, {longer_side}"
            )

        # There, since there is a detector; see above.
        from sact_tf.detection import config

        most = detector.config.num_proposals
        if num_proposals is None:
            num_proposals = most
        if proposal_threshold is None:
            proposal_threshold = detector.config.proposal_threshold
        config.check_num_proposals(num_proposals, most)
        config.check_proposal_threshold(proposal_threshold)

        def answer(prepared, halting_bias, explain, number=None, threshold=None):
            images, sizes = prepared
            if number is None:
                number = tf.fill(tf.shape(halting_bias), num_proposals)
                threshold = tf.fill(tf.shape(halting_bias), float(proposal_threshold))

            def detect(arguments):
                image, size, bias, number, threshold = arguments
                image = tf.ensure_shape(image.to_tensor(), [None, None, 3])
                seen = tf.cast(tf.shape(image)[:2], tf.float32)
                found = detector.detect(
                    image[tf.newaxis],
                    seen[tf.newaxis],
                    halting_bias=bias,
                    num_proposals=number,
                    proposal_threshold=threshold,
                )
                return self._outputs(found, seen, size, explain)

            outputs = tf.map_fn(
                detect,
                (images, sizes, halting_bias, number, threshold),
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
            detector.halting_adaptivity,
        )
        self.shorter_side = shorter_side
        self.longer_side = longer_side
        self.max_detections = detector.config.max_detections
        self.block_names = [block.name for block in detector.extractor.blocks]
        self.warmup_sizes = [(shorter_side, longer_side), (longer_side, shorter_side)]
        # Blocks of other networks decide for the whole image.
        self._spatial = detector.extractor.adaptivity == "sact"
        self._most_proposals = most
        self.num_proposals = num_proposals
        self.proposal_threshold = float(proposal_threshold)
        self.limited = self._limited_signature(answer, explain=False)
        self.limited_explain = self._limited_signature(answer, explain=True)

    @property
    def signatures(self) -> dict:
        """The functions to export, by name."""
        limited = {"limited": self.limited, "limited_explain": self.limited_explain}
        return {**super().signatures, **limited}

    def warmup_requests(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Requests (signature, inputs by name) that exercise all of the graph."""
        for signature, inputs in super().warmup_requests():
            yield signature, inputs
            if len(inputs["images"]) == 1 and signature != "tensors":
                more = {
                    "num_proposals": np.array([AS_EXPORTED], np.int32),
                    "proposal_threshold": np.array([AS_EXPORTED], np.float32),
                }
                name = (
                    "limited" if signature == "serving_default" else "limited_explain"
                )
                yield name, {**inputs, **more}

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
            "num_proposals": "One number, or one for each image: how many regions of "
            "it are looked at, the best-scored ones; fewer cost less. 1 to "
            f"{self._most_proposals}; -1 for {self.num_proposals}, the default.",
            "proposal_threshold": "One number, or one for each image: regions of a "
            "lower score are not looked at. 0 to 1; -1 for "
            f"{self.proposal_threshold}, the default.",
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
            "head_ponder_cost": "What the image cost: residual units and remainders of "
            "the region heads, mean over regions.",
            "head_flops": "What the image cost: floating point operations of all "
            "convolutions of the region heads, all regions together.",
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

    def _limited_signature(self, answer: Callable, explain: bool):
        zero = tf.constant([0.0])
        number = tf.constant([AS_EXPORTED])
        share = tf.constant([float(AS_EXPORTED)])
        specs = [
            *self._specs("encoded"),
            tf.TensorSpec(None, tf.int32, "num_proposals"),
            tf.TensorSpec(None, tf.float32, "proposal_threshold"),
        ]

        @tf.function(input_signature=specs, autograph=False)
        def signature(
            images, halting_bias=zero, num_proposals=number, proposal_threshold=share
        ):
            count = tf.shape(images)[0]

            def given(name, values, usual, low, high):
                must = f"{low} to {high}, or {AS_EXPORTED} for {usual}"
                values = checks.number_per_image(
                    name,
                    values,
                    count,
                    lambda v: ((v >= low) & (v <= high)) | (v == AS_EXPORTED),
                    must,
                )
                return tf.where(values == AS_EXPORTED, usual, values)

            return answer(
                *self._read("encoded", images, halting_bias),
                explain,
                given(
                    "num_proposals",
                    num_proposals,
                    self.num_proposals,
                    1,
                    self._most_proposals,
                ),
                given(
                    "proposal_threshold",
                    proposal_threshold,
                    self.proposal_threshold,
                    0.0,
                    1.0,
                ),
            )

        return signature

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
            "head_ponder_cost": tf.TensorSpec([], tf.float32),
            "head_flops": tf.TensorSpec([], tf.int64),
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
            "head_ponder_cost": found["record"]["head"]["ponder_cost"][0],
            "head_flops": found["record"]["head"]["flops"][0],
        }
        for key, value in servable.costs(found["record"], explain).items():
            of_image = value[0]
            if of_image.shape.rank:
                of_image = tf.RaggedTensor.from_tensor(of_image)
            outputs[key] = of_image
        if explain:
            outputs["map_size"] = tf.cast(seen, tf.int32)
        return outputs
