"""Faster R-CNN with a plain, ACT or SACT feature extractor (section 4.2).

Shapes: B images of H x W pixels, maps of h x w positions, A anchors, N regions of each
image, M objects, K classes (the background, class 0, included), D detections. Boxes are
[ymin, xmin, ymax, xmax] in pixels.
"""

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf.checkpoints.transfer import Parts
from sact_tf.detection.config import (
    NUM_BLOCKS,
    STRIDE,
    FasterRCNNConfig,
    check_num_proposals,
    check_proposal_threshold,
)
from sact_tf.detection.proposals import ProposalGenerator
from sact_tf.detection.regions import DetectionFilter, RegionHeads
from sact_tf.detection.targets import RegionSampler
from sact_tf.detection.training import DetectorTraining
from sact_tf.geometry import Extent, without_padding
from sact_tf.models import options
from sact_tf.models.backbone import Backbone
from sact_tf.models.cost_record import with_maps

#: Of `detect`: images, image_shapes and halting_bias; and masks.
_SIGNATURE = [
    tf.TensorSpec([None, None, None, 3], tf.float32),
    tf.TensorSpec([None, 2], tf.float32),
    tf.TensorSpec([None], tf.float32),
    tf.TensorSpec([None], tf.int32),
    tf.TensorSpec([None], tf.float32),
]
_MASK = tf.TensorSpec([None, None, None], tf.bool)


@tf_keras.utils.register_keras_serializable("sact_tf")
class FasterRCNN(DetectorTraining, tf_keras.Model):
    """Detects objects: a feature extractor, region proposals, and region heads.

    Takes images [B, H, W, 3] in [-1, 1] of any size. A batch of one needs no padding;
    of larger batches, say in `image_shapes` which part of the images is real.

    ```python
    network = BackboneConfig(units=50, adaptivity="sact", freeze_batch_norm=True)
    detector = FasterRCNN(FasterRCNNConfig(backbone=network, num_classes=21))
    detector.compile(tf_keras.optimizers.SGD(3e-4, momentum=0.9))
    detector.fit(dataset)  # of (images, {"boxes": ..., "classes": ...})
    found = detector.detect(images)
    ```

    The losses are described in `detection.training` and `detection.losses`.
    """

    def __init__(
        self,
        config: FasterRCNNConfig | None = None,
        name: str = "faster_rcnn",
        dtype=None,
    ):
        """Creates the detector and its variables.

        Args:
          config: what detector it is.
          name: name of the model.
          dtype: dtype or mixed precision policy; the global policy by default. Boxes
            are float32 in any case.
        """
        super().__init__(name=name, dtype=dtype)
        self.config = config = config or FasterRCNNConfig()
        policy = self.dtype_policy
        self.extractor = Backbone(config.backbone, NUM_BLOCKS, dtype=policy)
        self.proposal_head = ProposalGenerator(config, dtype=policy)
        self.box_head = RegionHeads(config, dtype=policy)
        self._sample = RegionSampler(config)
        self._filter = DetectionFilter(config)
        self.built = True

    @tf.autograph.experimental.do_not_convert
    def call(
        self,
        images,
        image_shapes=None,
        boxes=None,
        classes=None,
        training=None,
        halting_bias=None,
        num_proposals=None,
        proposal_threshold=None,
        active_mask=None,
    ):
        """Detects objects, or says what a loss needs to know.

        Args:
          images: float [B, H, W, 3].
          image_shapes: float32 [B, 2], height and width of each image without padding;
            H and W by default.
          boxes: float32 [B, M, 4], objects in pixels, rows of -1 for none; for a
            loss, when B must be static. Without them, detections.
          classes: int32 [B, M], their classes, -1 for none; with boxes.
          training: whether batch norms use the statistics of the batch.
          halting_bias: optional scalar, or one number per image [B], added to every
            halting logit; above zero the network stops sooner.
          num_proposals: integers, one or [B]: how many regions of each image are looked
            at, the best-scored ones; those of the config by default. For detections
            only, as the next one.
          proposal_threshold: numbers, one or [B]: regions of a lower score are not
            looked at; that of the config by default.
          active_mask: optional bool [B, H, W] of the images, or [B, h, w] of the first
            block's map: where the feature extractor computes; see Backbone.run. What
            follows looks everywhere.

        Returns:
          A dict with

            anchors [A, 4], eligible bool [B, A], proposal_logits [B, A] and
              proposal_boxes [B, A, 4]: of the first stage;
            class_logits [B, N, K] and box_outputs [B, N, 4 K]: of the second; zero for
              regions that are not looked at;
            class_targets int32 [B, N] and box_targets [B, N, 4], with boxes; else
            detection_boxes [B, D, 4] in pixels, detection_scores [B, D],
              detection_classes int32 [B, D] and num_detections int32 [B];
            record: what the feature extractor spent: flops int64 [B], ponder_cost [B]
              and blocks (see sact_tf.layers.adaptive_blocks); and head, what the region
              heads spent on regions that there are (see RegionHeads.call). What the
              region proposal network costs, always the same, is in neither.

        Raises:
          ValueError: no boxes or classes to train on, or fewer than `num_sampled`.
        """
        if (boxes is None) != (classes is None) or (training and boxes is None):
            raise ValueError("Training takes boxes and classes of the objects.")
        padded = image_shapes is not None and images.shape[0] != 1
        if image_shapes is None:
            shape = tf.shape(images)
            image_shapes = tf.broadcast_to(shape[1:3], [shape[0], 2])
        image_shapes = tf.cast(image_shapes, tf.float32)
        record = self.extractor(
            images,
            training=training,
            halting_bias=halting_bias,
            with_record=True,
            image_shapes=image_shapes if padded else None,
            active_mask=active_mask,
        )
        features = record.pop("endpoints")[self.extractor.levels[-1]]
        extent = Extent.of_images(image_shapes)._replace(padded=padded).strided(STRIDE)
        activated = self.box_head.preactivated(features)
        activated = without_padding(activated, extent.valid(features))
        first = self.proposal_head(activated, image_shapes)
        if boxes is not None:
            regions, targets = self._sample(first.proposals, boxes, classes)
            valid = regions[..., 2] > 0  # The sampler fills up with rows of -1.
        else:
            if proposal_threshold is None:
                proposal_threshold = self.config.proposal_threshold
            proposals = first.proposals.best(num_proposals, proposal_threshold)
            regions, valid = proposals.boxes, proposals.valid
        second = self.box_head(
            features,
            regions,
            valid,
            extent,
            training,
            halting_bias,
            skip=boxes is None,
        )
        record["head"] = second.pop("record")
        if boxes is None:
            targets = self._filter(
                **second, proposals=proposals, image_shapes=image_shapes
            )
        return {
            "anchors": first.anchors,
            "eligible": first.eligible,
            "proposal_logits": first.logits,
            "proposal_boxes": first.boxes,
            **second,
            **targets,
            "record": record,
        }

    @tf.function(input_signature=_SIGNATURE, autograph=False)
    def _detect(self, images, image_shapes, halting_bias, num_proposals, threshold):
        return self._detected(
            images, image_shapes, halting_bias, num_proposals, threshold
        )

    @tf.function(input_signature=[*_SIGNATURE, _MASK], autograph=False)
    def _detect_with_mask(
        self,
        images,
        image_shapes,
        halting_bias,
        num_proposals,
        threshold,
        active_mask,
    ):
        return self._detected(
            images, image_shapes, halting_bias, num_proposals, threshold, active_mask
        )

    def _detected(
        self,
        images,
        image_shapes,
        halting_bias,
        num_proposals,
        threshold,
        active_mask=None,
    ):
        outputs = self(
            images,
            image_shapes=image_shapes,
            training=False,
            halting_bias=halting_bias,
            num_proposals=num_proposals,
            proposal_threshold=threshold,
            active_mask=active_mask,
        )
        record = with_maps(outputs["record"], tf.shape(images)[1:3])
        names = ("boxes", "scores", "classes")
        detections = {name: outputs[f"detection_{name}"] for name in names}
        return {**detections, "count": outputs["num_detections"], "record": record}

    def detect(
        self,
        images,
        image_shapes=None,
        halting_bias=0.0,
        num_proposals=None,
        proposal_threshold=None,
        active_mask=None,
    ) -> dict:
        """Detects objects in images of any size, with one trace for all sizes.

        Args:
          images: as for `call`; a tensor or an array.
          image_shapes: as for `call`.
          halting_bias: as for `call`.
          num_proposals: as for `call`.
          proposal_threshold: as for `call`.
          active_mask: as for `call`.

        Returns:
          A dict of tensors: boxes float32 [B, D, 4] in pixels, scores float32 [B, D]
          (descending), classes int32 [B, D], count int32 [B], how many of D there are;
          and record, what the feature extractor spent: as `ResNet.introspect` gives it,
          but for the logits, and with head, what the region heads spent (see `call`).

        Raises:
          ValueError: num_proposals or proposal_threshold is out of range, or neither
            one number nor one for each image.
        """
        config = self.config
        options.check_halting_bias(halting_bias, self.halting_adaptivity)
        if num_proposals is None:
            num_proposals = config.num_proposals
        if proposal_threshold is None:
            proposal_threshold = config.proposal_threshold
        images = tf.convert_to_tensor(images, tf.float32)
        for value in _known("num_proposals", num_proposals, images):
            check_num_proposals(value, config.num_proposals)
        for value in _known("proposal_threshold", proposal_threshold, images):
            check_proposal_threshold(value)
        if image_shapes is None:
            image_shapes = [images.shape[1:3]] * len(images)

        def of_each(value, dtype):
            return tf.broadcast_to(tf.cast(value, dtype), tf.shape(images)[:1])

        arguments = (
            images,
            tf.cast(image_shapes, tf.float32),
            of_each(halting_bias, tf.float32),
            of_each(num_proposals, tf.int32),
            of_each(proposal_threshold, tf.float32),
        )
        if active_mask is None:
            result = self._detect(*arguments)
        else:
            mask = options.check_mask(active_mask, images, self.extractor.config)
            result = self._detect_with_mask(*arguments, mask)
        self.extractor.with_names(result["record"])
        return result

    @property
    def halting_adaptivity(self) -> str:
        """Of the feature extractor, or of the region heads if that halts nowhere."""
        own = self.extractor.adaptivity
        if options.has_halting_scores(own):
            return own
        return self.config.head_network.adaptivity

    @property
    def parts(self) -> Parts:
        """The layers of a classification network that are in the detector."""
        extractor, head = self.extractor, self.box_head
        return Parts(
            extractor.family,
            extractor.units,
            extractor.adaptivity,
            extractor.root_layer,
            (*extractor.blocks, head.block),
            head.norm,
        )

    def begin_as_identity(self) -> None:
        """See Backbone.begin_as_identity; of all four blocks."""
        self.extractor.begin_as_identity()
        for unit in self.box_head.block.units:
            unit.begin_as_identity()

    @property
    def checkpoint_items(self):
        """What is in checkpoints beside the model: the backbone, for other tasks."""
        return {"backbone": self.extractor}

    def get_config(self):
        """The constructor's arguments, those of the config one by one."""
        arguments, extractor = self.config.arguments(), self.extractor
        # These may have been set since.
        set_since = ("tau", "freeze_batch_norm")
        network = {name: getattr(extractor, name) for name in set_since}
        arguments["backbone"] = {**arguments["backbone"], **network}
        policy = self.dtype_policy.name
        return {**arguments, "name": self.name, "dtype": policy}

    @classmethod
    def from_config(cls, config):
        """A detector with fresh weights from what `get_config` gave."""
        config = dict(config)
        options = {key: config.pop(key) for key in ("name", "dtype") if key in config}
        return cls(FasterRCNNConfig.of(config), **options)

    def build(self, input_shape):
        """Nothing is left to build: all variables are made with the layers."""
        self._build_input_shape = input_shape


def _known(name, values, images):
    """Numbers for images, as Python's; none while a graph is traced."""
    if tf.is_tensor(values) and not hasattr(values, "numpy"):
        return []
    shape = np.shape(values)
    if shape not in ((), (len(images),)):
        raise ValueError(
            f"{name} must be one number, or one for each image. Received: {name} of "
            f"the shape {shape} for {len(images)} images"
        )
    return np.ravel(values).tolist()
