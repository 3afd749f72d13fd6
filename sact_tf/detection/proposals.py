"""First stage: the best-scored boxes that do not cover each other much.

Shapes: B images, h x w positions of their maps, A = h w (anchors of each position)
anchors, N proposals.
"""

from typing import NamedTuple

import tensorflow as tf
import tf_keras
from official.vision.ops import box_ops, nms

from sact_tf.detection import anchors as anchor_boxes
from sact_tf.detection.config import NUM_BLOCKS, STRIDE, FasterRCNNConfig
from sact_tf.layers.arguments import FromArguments, made_by
from sact_tf.layers.convolution import Convolution


class Proposals(NamedTuple):
    """Proposals of a batch; what is not there is zero.

    Attributes:
      boxes: float32 [B, N, 4], [ymin, xmin, ymax, xmax] in pixels.
      scores: float32 [B, N], descending.
      valid: bool [B, N].
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    valid: tf.Tensor

    def best(self, number=None, threshold=None) -> "Proposals":
        """The same, of which fewer are valid.

        Args:
          number: how many of each image, at most: integers, one or [B]; all by default.
          threshold: proposals of a lower score are not: one number or [B].
        """
        valid = self.valid
        if number is not None:
            rank = tf.range(tf.shape(valid)[1])
            valid &= rank < tf.reshape(tf.cast(number, tf.int32), [-1, 1])
        if threshold is not None:
            valid &= self.scores >= tf.reshape(tf.cast(threshold, tf.float32), [-1, 1])
        return self._replace(valid=valid)


class FirstStage(NamedTuple):
    """What the first stage says.

    Attributes:
      anchors: float32 [A, 4], in pixels.
      eligible: bool [B, A], anchors of the image and not of its padding.
      logits: float32 [B, A], of there being an object.
      boxes: float32 [B, A, 4], relative to the anchors.
      proposals: the best of them.
    """

    anchors: tf.Tensor
    eligible: tf.Tensor
    logits: tf.Tensor
    boxes: tf.Tensor
    proposals: Proposals


class ProposalGenerator(FromArguments, tf_keras.layers.Layer):
    """A 3x3 convolution and, for every anchor, a score and a box. No batch norm."""

    makers = made_by(config=FasterRCNNConfig.of)

    def __init__(
        self, config: FasterRCNNConfig, *, name: str = "region_proposals", dtype=None
    ):
        """Creates the layer and its variables.

        Args:
          config: of the detector.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        self._config = config
        inputs = config.backbone.channels(NUM_BLOCKS - 1)
        filters, anchors = config.proposal_filters, config.num_anchors
        make = config.backbone.maker(dtype)
        with tf.name_scope(name):
            self.conv = make.conv(inputs, filters, 3, use_bias=True, name="conv")
            self.scores = narrow(
                make.conv(filters, anchors, 1, use_bias=True, name="scores"), 0.01
            )
            self.boxes = narrow(
                make.conv(filters, 4 * anchors, 1, use_bias=True, name="boxes"), 0.01
            )
        self.built = True

    def call(self, features, image_shapes) -> FirstStage:
        """Says where objects may be.

        Args:
          features: [B, h, w, C], activated.
          image_shapes: float32 [B, 2], height and width of each image without padding.
        """
        config = self._config
        anchors = anchor_boxes.grid(
            tf.shape(features)[1:3],
            stride=STRIDE,
            sizes=config.anchor_sizes,
            aspect_ratios=config.aspect_ratios,
        )
        eligible = anchor_boxes.on_images(anchors, image_shapes, stride=STRIDE)
        x = tf.nn.relu(self.conv(features))
        batch = tf.shape(features)[0]
        logits = tf.cast(tf.reshape(self.scores(x), [batch, -1]), tf.float32)
        boxes = tf.cast(tf.reshape(self.boxes(x), [batch, -1, 4]), tf.float32)
        proposals = propose(
            anchors,
            logits,
            boxes,
            image_shapes,
            eligible=eligible,
            num_proposals=config.num_proposals,
            pre_nms_top_k=config.pre_nms_top_k,
            nms_iou_threshold=config.proposal_nms_iou,
        )
        return FirstStage(anchors, eligible, logits, boxes, proposals)


def propose(
    anchors: tf.Tensor,
    logits: tf.Tensor,
    encoded: tf.Tensor,
    image_shapes: tf.Tensor,
    *,
    eligible: tf.Tensor,
    num_proposals: int = 300,
    pre_nms_top_k: int = 6000,
    nms_iou_threshold: float = 0.7,
) -> Proposals:
    """Decodes boxes, clips them to the image, and suppresses the lesser of two.

    The Model Garden's own generator does the same, but asks for maps of static size.

    Args:
      anchors: float32 [A, 4], in pixels.
      logits: float32 [B, A], of there being an object.
      encoded: float32 [B, A, 4], boxes relative to the anchors.
      image_shapes: float32 [B, 2], height and width of each image without padding.
      eligible: bool [B, A]; no proposals come from other anchors.
      num_proposals: N.
      pre_nms_top_k: how many boxes take part in non-maximum suppression.
      nms_iou_threshold: the lesser of two boxes goes if their intersection over union
        is as large.

    Returns:
      Proposals of which each is at least one pixel high and wide. They carry no
      gradient.
    """
    encoded = tf.stop_gradient(encoded)
    boxes = box_ops.decode_boxes(encoded, anchors[tf.newaxis])
    boxes = box_ops.clip_boxes(boxes, image_shapes[:, tf.newaxis])
    sides = boxes[..., 2:] - boxes[..., :2]
    eligible &= tf.reduce_all(sides >= 1.0, axis=-1)
    scores = tf.where(eligible, tf.sigmoid(tf.stop_gradient(logits)), -1.0)
    # Suppression takes a box of zeros for one that is suppressed already.
    boxes = tf.where(eligible[..., tf.newaxis], boxes, 0.0)
    top = tf.minimum(tf.shape(scores)[1], pre_nms_top_k)
    boxes, scores = box_ops.top_k_boxes(boxes, scores, k=top)
    missing = tf.maximum(num_proposals - top, 0)
    scores = tf.pad(scores, [[0, 0], [0, missing]], constant_values=-1.0)
    boxes = tf.pad(boxes, [[0, 0], [0, missing], [0, 0]])
    scores, boxes = nms.sorted_non_max_suppression_padded(
        scores, boxes, num_proposals, nms_iou_threshold
    )
    return Proposals(boxes, scores, boxes[..., 2] > 0)


def narrow(convolution: Convolution, deviation: float) -> Convolution:
    """Gives a convolution a narrow normal distribution, as Faster R-CNN's have."""
    initializer = tf_keras.initializers.RandomNormal(stddev=deviation)
    convolution.kernel.assign(initializer(convolution.kernel.shape))
    return convolution
