"""The two heads: region proposals, and classes and boxes of the proposals."""

import tensorflow as tf
import tf_keras

from sact_tf.layers.adaptive_blocks import Block
from sact_tf.layers.convolution import Convolution
from sact_tf.layers.normalization import BatchNormalization


class RegionProposalHead(tf_keras.layers.Layer):
    """A 3x3 convolution and, for every anchor, a score and a box. No batch norm."""

    def __init__(
        self,
        input_channels: int,
        num_anchors: int,
        *,
        filters: int = 512,
        weight_decay: float = 0.0,
        name: str = "region_proposals",
        dtype=None,
    ):
        """Creates the layer and its variables.

        Args:
          input_channels: C of the features.
          num_anchors: A, anchors of each position.
          filters: channels of the 3x3 convolution.
          weight_decay: see Convolution.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        options = {"use_bias": True, "weight_decay": weight_decay, "dtype": dtype}
        with tf.name_scope(name):
            self.conv = Convolution(input_channels, filters, 3, name="conv", **options)
            self.scores = _small(
                Convolution(filters, num_anchors, 1, name="scores", **options), 0.01
            )
            self.boxes = _small(
                Convolution(filters, 4 * num_anchors, 1, name="boxes", **options), 0.01
            )
        self.built = True

    def call(self, features):
        """Maps features [B, h, w, C] to logits [B, h w A] and boxes [B, h w A, 4]."""
        x = tf.nn.relu(self.conv(features))
        batch = tf.shape(features)[0]
        logits = tf.reshape(self.scores(x), [batch, -1])
        boxes = tf.reshape(self.boxes(x), [batch, -1, 4])
        return tf.cast(logits, tf.float32), tf.cast(boxes, tf.float32)


class BoxHead(tf_keras.layers.Layer):
    """Block 4, a global mean, and the class and the box of every proposal.

    The block's units may be adaptive, too; its ponder cost is not penalised.
    """

    def __init__(
        self,
        block: Block,
        norm: BatchNormalization,
        channels: int,
        num_classes: int,
        *,
        weight_decay: float = 0.0,
        name: str = "box_head",
        dtype=None,
    ):
        """Creates the layer from a network's last block, which it shares.

        Args:
          block: the block.
          norm: batch norm of what the block gives, followed by a ReLU.
          channels: C of what the block gives.
          num_classes: K, the background, class 0, included.
          weight_decay: see Convolution.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        self.block = block
        self.norm = norm
        options = {"use_bias": True, "weight_decay": weight_decay, "dtype": dtype}
        with tf.name_scope(name):
            self.classes = _small(
                Convolution(channels, num_classes, 1, name="classes", **options), 0.01
            )
            self.boxes = _small(
                Convolution(channels, 4 * num_classes, 1, name="boxes", **options),
                0.001,
            )
        self.built = True

    def call(self, crops, training=None, halting_bias=None):
        """Classifies proposals and says where exactly the objects are.

        Args:
          crops: [B, N, s, s, C], with static N and C.
          training: see Block.
          halting_bias: optional number, or one for each image [B]; see Block.

        Returns:
          Class logits [B, N, K] and boxes relative to the proposals [B, N, 4 K],
          float32.
        """
        count = crops.shape[1]
        features = tf.reshape(crops, [-1, *crops.shape[2:]])
        if halting_bias is not None:
            each = tf.broadcast_to(halting_bias, tf.shape(crops)[:1])
            halting_bias = tf.repeat(each, count)
        record = self.block(features, training=training, halting_bias=halting_bias)
        features = tf.nn.relu(self.norm(record["output"], training=training))
        features = tf.reduce_mean(features, axis=[1, 2])

        def outputs(layer):
            values = tf.cast(layer(features), tf.float32)
            return tf.reshape(values, [-1, count, layer.filters])

        return outputs(self.classes), outputs(self.boxes)


def _small(convolution, deviation):
    """Gives a convolution a narrow normal distribution, as Faster R-CNN's have."""
    initializer = tf_keras.initializers.RandomNormal(stddev=deviation)
    convolution.kernel.assign(initializer(convolution.kernel.shape))
    return convolution
