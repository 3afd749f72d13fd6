"""What anchors and regions should say, given the objects in the image."""

from typing import NamedTuple

import tensorflow as tf
from official.vision.modeling.layers import roi_sampler
from official.vision.ops import box_ops
from official.vision.utils.object_detection import (
    balanced_positive_negative_sampler as sampler,
)

from sact_tf.detection.config import FasterRCNNConfig
from sact_tf.detection.precision import in_float32
from sact_tf.detection.proposals import Proposals

#: Scales of what the second stage says about boxes, as in the Model Garden.
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class AnchorTargets(NamedTuple):
    """What the region proposal network is trained to say.

    Attributes:
      labels: int32 [B, A]: 1 for an object, 0 for background, -1 where the anchor is
        not in the sample.
      boxes: float32 [B, A, 4], objects relative to the anchors labelled 1; else zero.
    """

    labels: tf.Tensor
    boxes: tf.Tensor


def anchor_targets(
    anchors: tf.Tensor,
    boxes: tf.Tensor,
    *,
    eligible: tf.Tensor,
    positive_iou: float = 0.7,
    negative_iou: float = 0.3,
    num_samples: int = 256,
    positive_fraction: float = 0.5,
) -> AnchorTargets:
    """Labels a random sample of anchors, as in the paper of Faster R-CNN.

    Positive are those whose intersection over union with some object is `positive_iou`
    or more, and the best ones of each object; negative are others below `negative_iou`
    with every object. The Model Garden's labeller does the same for a number of anchors
    that is known in advance.

    Args:
      anchors: float32 [A, 4], in pixels.
      boxes: float32 [B, M, 4] with M >= 1, objects in pixels; rows of -1 are none.
      eligible: bool [B, A]; other anchors are not labelled.
      positive_iou: see above.
      negative_iou: see above.
      num_samples: how many anchors of an image are labelled, at most.
      positive_fraction: share of positive ones among these, at most.

    Returns:
      The targets.
    """
    sample = sampler.BalancedPositiveNegativeSampler(
        positive_fraction=positive_fraction, is_static=False
    )

    def of_image(inputs):
        boxes, eligible = inputs
        # Rows that are no objects get -1, as do anchors that are not eligible.
        iou = box_ops.bbox_overlap(anchors[tf.newaxis], boxes[tf.newaxis])[0]
        iou = tf.where(eligible[:, tf.newaxis], iou, -1.0)
        best = tf.reduce_max(iou, axis=1)
        # Several may be the best one; rounding must not choose among them.
        favourite = (iou > tf.reduce_max(iou, axis=0) - 1e-5) & (iou > 0)
        positive = (best >= positive_iou) | tf.reduce_any(favourite, axis=1)
        negative = (best < negative_iou) & ~positive & eligible
        chosen = sample.subsample(positive | negative, num_samples, positive)
        labels = tf.where(chosen, tf.cast(positive, tf.int32), -1)
        matched = tf.gather(boxes, tf.argmax(iou, axis=1))
        encoded = box_ops.encode_boxes(matched, anchors, weights=[1.0] * 4)
        return labels, tf.where((labels == 1)[:, tf.newaxis], encoded, 0.0)

    count = anchors.shape[0]
    labels, encoded = tf.map_fn(
        of_image,
        (boxes, eligible),
        fn_output_signature=(
            tf.TensorSpec([count], tf.int32),
            tf.TensorSpec([count, 4], tf.float32),
        ),
    )
    return AnchorTargets(labels, encoded)


class RegionSampler:
    """Chooses regions to train the second stage on, and says what it should say."""

    def __init__(self, config: FasterRCNNConfig):
        """Takes `num_sampled` and `foreground_fraction` from a detector's config."""
        self._config = config
        with in_float32():
            self.layer = roi_sampler.ROISampler(
                num_sampled_rois=config.num_sampled,
                foreground_fraction=config.foreground_fraction,
            )

    def __call__(
        self, proposals: Proposals, boxes: tf.Tensor, classes: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Samples among the proposals and the objects themselves.

        Args:
          proposals: of the first stage.
          boxes: float32 [B, M, 4], objects in pixels, rows of -1 for none; B is static.
          classes: integers [B, M], their classes, -1 for none.

        Returns:
          Regions float32 [B, N, 4], in pixels; and a dict of class_targets int32 [B, N]
          and box_targets float32 [B, N, 4], relative to the regions. No gradients.

        Raises:
          ValueError: there are fewer than `num_sampled`, or B is not known.
        """
        if boxes.shape[0] is None:
            raise ValueError(
                "The number of images must be known before a detector is trained: "
                "dataset.batch(size, drop_remainder=True). Received: boxes of the "
                f"shape {boxes.shape}"
            )
        available = self._config.num_proposals + (boxes.shape[1] or 0)
        if self._config.num_sampled > available:
            raise ValueError(
                "num_sampled cannot be more than num_proposals and the boxes of an "
                f"image. Received: {self._config.num_sampled} of {available}"
            )
        # The sampler leaves out boxes of -1, unless there are too few others.
        regions = tf.where(proposals.valid[..., tf.newaxis], proposals.boxes, -1.0)
        classes = tf.cast(classes, tf.int32)
        regions, matched, classes, _ = self.layer(regions, boxes, classes)
        encoded = box_ops.encode_boxes(matched, regions, weights=list(BOX_WEIGHTS))
        objects = (classes > 0)[..., tf.newaxis]
        targets = {
            "class_targets": classes,
            "box_targets": tf.where(objects, encoded, 0.0),
        }
        return tf.stop_gradient(regions), tf.nest.map_structure(
            tf.stop_gradient, targets
        )
