"""ResNet-D: deep stem, pooled shortcuts, activation behind the sum (He et al., 2019).

The networks of SSBNet and SSIN. The family "resnet_d" is for photographs, with the
depths that are usual; "resnet_d_small" has a stem of stride two instead of four and a
quarter of the width, for images of 32 to 128 pixels.
"""

import tensorflow as tf
import tf_keras

from sact_tf.geometry import within, without_padding
from sact_tf.layers.arguments import FromArguments
from sact_tf.layers.convolution import Convolution
from sact_tf.layers.normalization import BatchNormalization
from sact_tf.layers.post_activation_units import PostActivationUnit
from sact_tf.models.family import Family


class SmallResNetDRoot(FromArguments, tf_keras.layers.Layer):
    """Three 3x3 convolutions with batch norms and ReLUs, the first of stride two.

    The first two have half of the channels. All are padded alike on all sides.
    """

    def __init__(
        self,
        channels: int,
        *,
        weight_decay: float,
        batch_norm: dict,
        name: str,
        dtype=None,
    ):
        """Creates the layer and its variables.

        Args:
          channels: C of the output.
          weight_decay: see Convolution.
          batch_norm: arguments of BatchNormalization.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        half = max(channels // 2, 1)
        widths = (3, half, half, channels)
        self.convs, self.norms = [], []
        with tf.name_scope(name):
            for index in range(3):
                conv = Convolution(
                    *widths[index : index + 2],
                    3,
                    stride=2 if index == 0 else 1,
                    explicit_padding=index == 0,
                    weight_decay=weight_decay,
                    name=f"conv{index + 1}",
                    dtype=dtype,
                )
                norm = BatchNormalization(
                    conv.filters, name=f"norm{index + 1}", dtype=dtype, **batch_norm
                )
                self.convs.append(conv)
                self.norms.append(norm)
        self.built = True

    def call(self, images, training=None, image_shapes=None):
        """Maps images [B, H, W, 3] to features [B, H / stride, W / stride, C].

        Args:
          images: floating point.
          training: whether batch norms use the statistics of the batch.
          image_shapes: optional int32 [B, 2], sizes of the images without padding.
        """
        x, valid = images, None
        if image_shapes is not None:
            x = without_padding(x, within(image_shapes, images))
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = conv(without_padding(x, valid))
            if image_shapes is not None and index == 0:
                valid = within(_halved(image_shapes), x)
            x = tf.nn.relu(norm.bound(training, valid)(x))
        return without_padding(x, valid)

    def map_sizes(self, image_shapes: tf.Tensor) -> tf.Tensor:
        """Sizes of the features of images of some sizes: int32 [B, 2]."""
        return _halved(image_shapes)

    def flops(self, images, image_shapes=None) -> tf.Tensor:
        """FLOPs for each image: int64 [B]."""
        if image_shapes is None:
            image_shapes = tf.broadcast_to(
                tf.shape(images)[1:3], [tf.shape(images)[0], 2]
            )
        sizes = tf.cast(_halved(image_shapes), tf.int64)
        positions = tf.reduce_prod(sizes, axis=1)
        return tf.add_n([conv.flops(positions) for conv in self.convs])


class ResNetDRoot(SmallResNetDRoot):
    """The same, and 3x3 max pooling of stride two: stride four in all."""

    def call(self, images, training=None, image_shapes=None):
        """See SmallResNetDRoot."""
        x = super().call(images, training, image_shapes)
        # Behind a ReLU zeros are as good as nothing.
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        if image_shapes is None:
            return x
        return without_padding(x, within(self.map_sizes(image_shapes), x))

    def map_sizes(self, image_shapes):
        """See SmallResNetDRoot."""
        return _halved(_halved(image_shapes))


def _halved(sizes):
    return (sizes + 1) // 2


_COMMON = {
    "unit": PostActivationUnit,
    "strides": (1, 2, 2, 2),
    "expansion": 4,
    "leak": None,
    "pool_first": True,
    "head_norm": False,
    "adaptivities": ("none", "act", "sact", "ssin"),
    "can_be_sampled": True,
    "weight_decay": 1e-4,
    "first_unit": {},
}

FAMILY = Family(
    depths={
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
        200: (3, 24, 36, 3),
    },
    root=ResNetDRoot,
    stride=32,
    base_channels=64,
    root_channels=64,
    batch_norm={"momentum": 0.9, "epsilon": 1e-5},
    **_COMMON,
)

SMALL_FAMILY = Family(
    depths={14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 38: (2, 3, 4, 3), 50: (3, 4, 6, 3)},
    root=SmallResNetDRoot,
    stride=16,
    base_channels=16,
    root_channels=32,
    batch_norm={"momentum": 0.9, "epsilon": 1e-5},
    **_COMMON,
)
