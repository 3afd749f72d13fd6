"""Second stage: what is in the proposed regions, and where exactly.

Shapes: B images, N regions of each, K classes, D detections of each image.
"""

import tensorflow as tf
import tf_keras
from official.vision.modeling.layers import detection_generator

from sact_tf.detection.config import NUM_BLOCKS, STRIDE, FasterRCNNConfig
from sact_tf.detection.precision import in_float32
from sact_tf.detection.proposals import Proposals, narrow
from sact_tf.detection.targets import BOX_WEIGHTS
from sact_tf.layers.convolution import Convolution
from sact_tf.layers.crop_and_resize import crop_and_resize
from sact_tf.layers.normalization import BatchNormalization
from sact_tf.models.blocks import make_block


class RegionHeads(tf_keras.layers.Layer):
    """Crops, block 4, a global mean, and the class and the box of every region.

    The block's units may be adaptive, too; its ponder cost is not penalised.
    """

    def __init__(self, config: FasterRCNNConfig, *, name: str = "box_head", dtype=None):
        """Creates the layer and its variables.

        Args:
          config: of the detector.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        self._config = config
        network = config.backbone
        norm = network.layer_options(dtype)["batch_norm"]
        self.block = make_block(
            network, NUM_BLOCKS, stride=config.head_stride, dtype=dtype
        )
        channels = network.channels(NUM_BLOCKS)
        with tf.name_scope("head"):  # Of the network that the block is of.
            self.norm = BatchNormalization(
                channels, name="postnorm", dtype=dtype, **norm
            )
        options = {
            "use_bias": True,
            "weight_decay": config.weight_decay,
            "dtype": dtype,
        }
        count = config.num_classes
        with tf.name_scope(name):
            self.classes = narrow(
                Convolution(channels, count, 1, name="classes", **options), 0.01
            )
            self.boxes = narrow(
                Convolution(channels, 4 * count, 1, name="boxes", **options), 0.001
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
        self, features, regions, map_sizes=None, training=None, halting_bias=None
    ) -> dict[str, tf.Tensor]:
        """Classifies regions and says where exactly the objects are.

        Args:
          features: [B, h, w, C], of the feature extractor.
          regions: float32 [B, N, 4], in pixels, with static N.
          map_sizes: see `crop_and_resize`.
          training: see Block.
          halting_bias: optional number, or one for each image [B]; see Block.

        Returns:
          A dict of float32: class_logits [B, N, K] and box_outputs [B, N, 4 K],
          relative to the regions.
        """
        config = self._config
        crops = crop_and_resize(
            features,
            regions,
            stride=STRIDE,
            crop_size=config.crop_size,
            pool_size=config.pool_size,
            crops_at_once=config.crops_at_once,
            map_sizes=map_sizes,
        )
        count = crops.shape[1]
        crops = tf.reshape(crops, [-1, *crops.shape[2:]])
        if halting_bias is not None:
            each = tf.broadcast_to(halting_bias, tf.shape(regions)[:1])
            halting_bias = tf.repeat(each, count)
        record = self.block(crops, training=training, halting_bias=halting_bias)
        x = tf.nn.relu(self.norm(record["output"], training=training))
        x = tf.reduce_mean(x, axis=[1, 2])

        def outputs(layer):
            values = tf.cast(layer(x), tf.float32)
            return tf.reshape(values, [-1, count, layer.filters])

        return {
            "class_logits": outputs(self.classes),
            "box_outputs": outputs(self.boxes),
        }


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
