"""Faster R-CNN with a plain, ACT or SACT feature extractor (section 4.2)."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf
import tf_keras
from official.vision.modeling.layers import detection_generator, roi_sampler
from official.vision.ops import box_ops

from sact_tf.checkpoints.transfer import Parts
from sact_tf.detection import anchors as anchor_boxes
from sact_tf.detection import proposals as region_proposals
from sact_tf.detection.heads import BoxHead, RegionProposalHead
from sact_tf.geometry import within, without_padding
from sact_tf.layers.crop_and_resize import crop_and_resize
from sact_tf.models.backbone import Backbone
from sact_tf.models.cost_record import with_maps

#: Of the features after block 3.
STRIDE = 16
#: Scales of what the second stage says about boxes, as in the Model Garden.
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@dataclass(frozen=True)
class Settings:
    """What is not learned; the defaults are the paper's (supplement A.2).

    Attributes:
      anchor_sizes, aspect_ratios: see `anchors.grid`.
      num_proposals: of an image.
      pre_nms_top_k: boxes that take part in the proposals' suppression.
      proposal_nms_iou: threshold of the proposals' non-maximum suppression.
      crop_size, pool_size, crops_at_once: see `crop_and_resize`.
      num_sampled: proposals of an image that the second stage is trained on.
      foreground_fraction: share of objects among these, at most.
      detection_nms_iou: threshold of the final suppression, within a class.
      score_threshold: detections have a higher score.
      max_detections: of an image.
    """

    anchor_sizes: Sequence[float] = (64.0, 128.0, 256.0, 512.0)
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    num_proposals: int = 300
    pre_nms_top_k: int = 6000
    proposal_nms_iou: float = 0.7
    crop_size: int = 28
    pool_size: int = 7
    crops_at_once: int = 64
    num_sampled: int = 64
    foreground_fraction: float = 0.25
    detection_nms_iou: float = 0.6
    score_threshold: float = 0.0
    max_detections: int = 100

    @property
    def num_anchors(self) -> int:
        """Anchors of each position."""
        return len(self.anchor_sizes) * len(self.aspect_ratios)


class FasterRCNN(tf_keras.Model):
    """Detects objects; made of a feature extractor and two heads.

    Takes images [B, H, W, 3] in [-1, 1] of any size. A batch of one needs no padding;
    of larger batches, say in `image_shapes` which part of the images is real.
    """

    def __init__(
        self,
        extractor: Backbone,
        proposal_head: RegionProposalHead,
        box_head: BoxHead,
        settings: Settings | None = None,
        name: str = "faster_rcnn",
    ):
        """Puts a detector together.

        Args:
          extractor: root and blocks 1 to 3 of a network.
          proposal_head: for the features of the last level.
          box_head: for crops of these.
          settings: what is not learned.
          name: name of the model.
        """
        super().__init__(name=name)
        self.extractor = extractor
        self.proposal_head = proposal_head
        self.box_head = box_head
        self.settings = settings = settings or Settings()
        with _in_float32():
            self._sampler = roi_sampler.ROISampler(
                num_sampled_rois=settings.num_sampled,
                foreground_fraction=settings.foreground_fraction,
            )
            self._generator = detection_generator.DetectionGenerator(
                pre_nms_score_threshold=settings.score_threshold,
                nms_iou_threshold=settings.detection_nms_iou,
                max_num_detections=settings.max_detections,
                nms_version="batched",
            )
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
    ):
        """Detects objects, or says what a loss needs to know.

        Args:
          images: float [B, H, W, 3].
          image_shapes: float32 [B, 2], height and width of each image without padding;
            H and W by default.
          boxes: float32 [B, M, 4], objects in pixels, rows of -1 for none; for training
            only, when B must be static.
          classes: int32 [B, M], their classes, -1 for none; for training only.
          training: whether to sample proposals for a loss. Without, detections.
          halting_bias: optional scalar, or one number per image [B], added to every
            halting logit; above zero the network stops sooner.

        Returns:
          A dict with

            anchors [A, 4], eligible bool [B, A], proposal_logits [B, A] and
              proposal_boxes [B, A, 4]: of the first stage;
            class_logits [B, N, K] and box_outputs [B, N, 4 K]: of the second;
            class_targets int32 [B, N] and box_targets [B, N, 4], when training; else
            detection_boxes [B, D, 4] in pixels, detection_scores [B, D],
              detection_classes int32 [B, D] and num_detections int32 [B];
            record: what the feature extractor spent: flops int64 [B], ponder_cost [B]
              and blocks (see sact_tf.layers.adaptive_blocks).

        Raises:
          ValueError: no boxes or classes to train on, or fewer than `num_sampled`.
        """
        if training and (boxes is None or classes is None):
            raise ValueError("Training takes boxes and classes of the objects.")
        settings = self.settings
        padded = image_shapes is not None and images.shape[0] != 1
        if image_shapes is None:
            image_shapes = tf.broadcast_to(
                tf.shape(images)[1:3], [tf.shape(images)[0], 2]
            )
        image_shapes = tf.cast(image_shapes, tf.float32)
        record = self.extractor(
            images,
            training=training,
            halting_bias=halting_bias,
            with_record=True,
            image_shapes=image_shapes if padded else None,
        )
        features = record.pop("endpoints")[self.extractor.levels[-1]]
        map_sizes = tf.cast(tf.math.ceil(image_shapes / STRIDE), tf.int32)
        preactivated = self._preactivated(features)
        if padded:
            preactivated = without_padding(preactivated, within(map_sizes, features))
        anchors = anchor_boxes.grid(
            tf.shape(features)[1:3],
            stride=STRIDE,
            sizes=settings.anchor_sizes,
            aspect_ratios=settings.aspect_ratios,
        )
        eligible = anchor_boxes.on_images(anchors, image_shapes, stride=STRIDE)
        logits, encoded = self.proposal_head(preactivated)
        proposals = region_proposals.propose(
            anchors,
            logits,
            encoded,
            image_shapes,
            eligible=eligible,
            num_proposals=settings.num_proposals,
            pre_nms_top_k=settings.pre_nms_top_k,
            nms_iou_threshold=settings.proposal_nms_iou,
        )
        outputs = {
            "anchors": anchors,
            "eligible": eligible,
            "proposal_logits": logits,
            "proposal_boxes": encoded,
            "record": record,
        }
        regions = proposals.boxes
        if training:
            regions, targets = self._sampled(proposals, boxes, classes)
            outputs.update(targets)
        crops = crop_and_resize(
            features,
            regions,
            stride=STRIDE,
            crop_size=settings.crop_size,
            pool_size=settings.pool_size,
            crops_at_once=settings.crops_at_once,
            map_sizes=map_sizes,
        )
        class_logits, box_outputs = self.box_head(
            crops, training=training, halting_bias=halting_bias
        )
        outputs.update(class_logits=class_logits, box_outputs=box_outputs)
        if not training:
            # A proposal that is not there shows background, without any doubt.
            background = tf.one_hot(0, class_logits.shape[2], 0.0, -1e9)
            class_logits = tf.where(
                proposals.valid[..., tf.newaxis], class_logits, background
            )
            outputs.update(
                self._generator(
                    box_outputs, class_logits, regions, image_shapes, list(BOX_WEIGHTS)
                )
            )
            outputs["detection_classes"] = tf.cast(
                outputs["detection_classes"], tf.int32
            )
        return outputs

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.float32),
            tf.TensorSpec([None, 2], tf.float32),
            tf.TensorSpec([None], tf.float32),
        ],
        autograph=False,
    )
    def _detect(self, images, image_shapes, halting_bias):
        outputs = self(
            images,
            image_shapes=image_shapes,
            training=False,
            halting_bias=halting_bias,
        )
        record = with_maps(outputs["record"], tf.shape(images)[1:3])
        names = ("boxes", "scores", "classes")
        detections = {name: outputs[f"detection_{name}"] for name in names}
        return {**detections, "count": outputs["num_detections"], "record": record}

    def detect(self, images, image_shapes=None, halting_bias=0.0) -> dict:
        """Detects objects in images of any size, with one trace for all sizes.

        Args:
          images: as for `call`; a tensor or an array.
          image_shapes: as for `call`.
          halting_bias: as for `call`.

        Returns:
          A dict of tensors: boxes float32 [B, D, 4] in pixels, scores float32 [B, D]
          (descending), classes int32 [B, D], count int32 [B], how many of D there are;
          and record, what the feature extractor spent: as `ResNet.introspect` gives it,
          but for the logits.
        """
        images = tf.convert_to_tensor(images, tf.float32)
        if image_shapes is None:
            image_shapes = [images.shape[1:3]] * len(images)
        result = self._detect(
            images,
            tf.cast(image_shapes, tf.float32),
            tf.broadcast_to(tf.cast(halting_bias, tf.float32), tf.shape(images)[:1]),
        )
        self.extractor.with_names(result["record"])
        return result

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

    def _preactivated(self, features):
        """Features as block 4 sees them.

        Pre-activation networks leave them neither normalised nor rectified. The block's
        first batch norm, with its moving statistics, does that for both heads.
        """
        norm = self.box_head.block.units[0].preact
        return norm.bound(training=False).activated(features, tf.nn.relu)

    def _sampled(self, proposals, boxes, classes):
        """Regions [B, N, 4] to train the second stage on, and what it should say."""
        available = self.settings.num_proposals + (boxes.shape[1] or 0)
        if self.settings.num_sampled > available:
            raise ValueError(
                "num_sampled cannot be more than num_proposals and the boxes of an "
                f"image. Received: {self.settings.num_sampled} of {available}"
            )
        # The sampler leaves out boxes of -1, unless there are too few others.
        regions = tf.where(proposals.valid[..., tf.newaxis], proposals.boxes, -1.0)
        classes = tf.cast(classes, tf.int32)
        regions, matched, classes, _ = self._sampler(regions, boxes, classes)
        encoded = box_ops.encode_boxes(matched, regions, weights=list(BOX_WEIGHTS))
        objects = (classes > 0)[..., tf.newaxis]
        targets = {
            "class_targets": classes,
            "box_targets": tf.where(objects, encoded, 0.0),
        }
        return tf.stop_gradient(regions), tf.nest.map_structure(
            tf.stop_gradient, targets
        )

    @property
    def metrics(self):
        """None: the task makes metrics of the costs that `call` returns."""
        return []

    @property
    def checkpoint_items(self):
        """What is in checkpoints beside the model: the backbone, for other tasks."""
        return {"backbone": self.extractor}


@contextlib.contextmanager
def _in_float32():
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
