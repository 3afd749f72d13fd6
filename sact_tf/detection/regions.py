"""Second stage: what is in the proposed regions, and where exactly.

Shapes: B images, N regions of each, K classes, D detections of each image; R regions of
all images together.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf
import tf_keras
from official.vision.modeling.layers import detection_generator

from sact_tf.detection.config import NUM_BLOCKS, STRIDE, FasterRCNNConfig
from sact_tf.detection.precision import in_float32
from sact_tf.detection.proposals import Proposals, narrow
from sact_tf.detection.targets import BOX_WEIGHTS
from sact_tf.geometry.buckets import bucket
from sact_tf.layers.arguments import FromArguments, made_by
from sact_tf.layers.crop_and_resize import crop_and_resize
from sact_tf.models.blocks import make_block
from sact_tf.models.cost_record import per_image, ponder_loss


class RegionHeads(FromArguments, tf_keras.layers.Layer):
    """Crops, block 4, a global mean, and the class and the box of every region.

    The block's units may halt, too: for a region, or for each position of one. Then
    head_tau times its ponder cost (eqn 13) is in `losses` exactly once for each call:
    the mean over the regions of an image, and over images.
    """

    makers = made_by(config=FasterRCNNConfig.of)

    def __init__(self, config: FasterRCNNConfig, *, name: str = "box_head", dtype=None):
        """Creates the layer and its variables.

        Args:
          config: of the detector.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        self._config = config
        network = config.head_network
        make = network.maker(dtype)
        self.block = make_block(
            network, NUM_BLOCKS, stride=config.head_stride, dtype=dtype
        )
        channels = network.channels(NUM_BLOCKS)
        with tf.name_scope("head"):  # Of the network that the block is of.
            self.norm = make.norm(channels, name="postnorm")
        count = config.num_classes
        with tf.name_scope(name):
            self.classes = narrow(
                make.conv(channels, count, 1, use_bias=True, name="classes"), 0.01
            )
            self.boxes = narrow(
                make.conv(channels, 4 * count, 1, use_bias=True, name="boxes"), 0.001
            )
        self.built = True

    def preactivated(self, features):
        """Features [B, h, w, C] as block 4 sees them.

        Pre-activation networks leave them neither normalised nor rectified. The block's
        first batch norm, with its moving statistics, does that for both stages.
        """
        norm = self.block.units[0].preact
        return norm.bound(training=False).activated(features, tf.nn.relu)

    def call(
        self,
        features,
        regions,
        valid,
        extent=None,
        training=None,
        halting_bias=None,
        skip=False,
    ) -> dict:
        """Classifies regions and says where exactly the objects are.

        Args:
          features: [B, h, w, C], of the feature extractor.
          regions: float32 [B, N, 4], in pixels, with static N.
          valid: bool [B, N], which of them there are. What is said of others means
            nothing, and they are in no cost.
          extent: see `crop_and_resize`.
          training: see Block.
          halting_bias: optional number, or one for each image [B]; see Block.
          skip: whether to leave out regions that are not valid; zeros are said of them.
            Without, batch norms that learn along and gradients have static shapes.

        Returns:
          A dict of

            class_logits float32 [B, N, K] and box_outputs float32 [B, N, 4 K],
              relative to the regions;
            record: what the valid regions cost. flops int64 [B], of all convolutions of
              this layer, summed over regions; ponder_cost and num_units float32 [B],
              mean over regions (and over their positions); num_regions int32 [B].
        """
        config = self._config
        rows = _Rows.of_valid(regions, valid) if skip else _Rows.of_all(regions)
        crops = crop_and_resize(
            features,
            rows.boxes,
            stride=STRIDE,
            crop_size=config.crop_size,
            pool_size=config.pool_size,
            crops_at_once=config.crops_at_once,
            extent=extent,
            images=rows.images,
        )
        if halting_bias is not None:
            each = tf.broadcast_to(halting_bias, tf.shape(regions)[:1])
            halting_bias = tf.gather(each, rows.images)
        record = self.block(crops, training=training, halting_bias=halting_bias)
        x = tf.nn.relu(self.norm(record["output"], training=training))
        x = tf.reduce_mean(x, axis=[1, 2])

        cost = self._cost(record, rows, valid)
        if config.head_tau:
            self.add_loss(ponder_loss(cost["ponder_cost"], config.head_tau))
        return {
            "class_logits": rows.by_image(tf.cast(self.classes(x), tf.float32)),
            "box_outputs": rows.by_image(tf.cast(self.boxes(x), tf.float32)),
            "record": cost,
        }

    def _cost(self, record, rows, valid):
        """What `call` returns as record, from that of the block."""
        count = tf.math.count_nonzero(valid, axis=1, dtype=tf.int32)

        def total(values):
            values = rows.by_image(values)
            return tf.reduce_sum(tf.where(valid, values, tf.zeros_like(values)), axis=1)

        def mean(values):
            values = total(per_image(values, record))
            return tf.math.divide_no_nan(values, tf.cast(count, tf.float32))

        layers = self.classes.flops(1) + self.boxes.flops(1)
        return {
            "flops": total(record["flops"] + layers),
            "ponder_cost": mean(record["ponder_cost"]),
            "num_units": mean(record["num_units"]),
            "num_regions": count,
        }


class _Rows(NamedTuple):
    """Regions of all images together, all of them or some.

    Attributes:
      boxes: float32 [R, 4], in pixels.
      images: int32 [R], which image each is of.
      places: int64 [r, 2], image and number there of the first r of them, the others
        only fill up; None for all regions in their order.
      shape: int32 [2], B and N.
    """

    boxes: tf.Tensor
    images: tf.Tensor
    places: tf.Tensor | None
    shape: tf.Tensor

    @classmethod
    def of_all(cls, regions: tf.Tensor) -> _Rows:
        """All regions [B, N, 4]."""
        shape = tf.shape(regions)[:2]
        images = tf.repeat(tf.range(shape[0]), regions.shape[1])
        return cls(tf.reshape(regions, [-1, 4]), images, None, shape)

    @classmethod
    def of_valid(cls, regions: tf.Tensor, valid: tf.Tensor) -> _Rows:
        """The valid ones, filled up to one of few sizes with boxes of zeros."""
        shape = tf.shape(regions)[:2]
        places = tf.where(valid)
        count = tf.shape(places)[0]
        size = bucket(tf.maximum(count, 1))
        missing = tf.minimum(size, tf.reduce_prod(shape)) - count
        boxes = tf.pad(tf.gather_nd(regions, places), [[0, missing], [0, 0]])
        images = tf.pad(tf.cast(places[:, 0], tf.int32), [[0, missing]])
        return cls(boxes, images, places, shape)

    def by_image(self, values: tf.Tensor) -> tf.Tensor:
        """Values [R, ...] of the rows as [B, N, ...]; zero for other regions."""
        shape = tf.concat([self.shape, tf.shape(values)[1:]], axis=0)
        if self.places is None:
            return tf.reshape(values, shape)
        values = values[: tf.shape(self.places)[0]]
        return tf.scatter_nd(self.places, values, tf.cast(shape, tf.int64))


class DetectionFilter:
    """From what is said of every region to the objects of an image."""

    def __init__(self, config: FasterRCNNConfig):
        """Takes score_threshold, detection_nms_iou and max_detections from a config."""
        with in_float32():
            self.layer = detection_generator.DetectionGenerator(
                pre_nms_score_threshold=config.score_threshold,
                nms_iou_threshold=config.detection_nms_iou,
                max_num_detections=config.max_detections,
                nms_version="batched",
            )

    def __call__(
        self,
        class_logits: tf.Tensor,
        box_outputs: tf.Tensor,
        proposals: Proposals,
        image_shapes: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Leaves the best ones, within a class, that do not cover each other much.

        Args:
          class_logits: float32 [B, N, K].
          box_outputs: float32 [B, N, 4 K].
          proposals: the regions.
          image_shapes: float32 [B, 2], which boxes are clipped to.

        Returns:
          A dict: detection_boxes [B, D, 4] in pixels, detection_scores [B, D],
          detection_classes int32 [B, D] and num_detections int32 [B].
        """
        # A proposal that is not there shows background, without any doubt.
        background = tf.one_hot(0, class_logits.shape[2], 0.0, -1e9)
        there = proposals.valid[..., tf.newaxis]
        found = self.layer(
            box_outputs,
            tf.where(there, class_logits, background),
            proposals.boxes,
            image_shapes,
            list(BOX_WEIGHTS),
        )
        names = ("detection_boxes", "detection_scores", "num_detections")
        classes = tf.cast(found["detection_classes"], tf.int32)
        return {
            **{name: found[name] for name in names},
            "detection_classes": classes,
        }
