"""ResNet-D: deep stem, pooled shortcuts, activation behind the sum (He et al., 2019).

The networks of SSBNet and SSIN. The family "resnet_d" is for photographs, with the
depths that are usual; "resnet_d_small" has a stem of stride two instead of four and a
quarter of the width, for images of 32 to 128 pixels.
"""

import tensorflow as tf
import tf_keras

from sact_tf.geometry import Extent, without_padding
from sact_tf.layers.maker import Made, Maker
from sact_tf.layers.post_activation_units import PostActivationUnit
from sact_tf.models.family import Family


class SmallResNetDRoot(Made, tf_keras.layers.Layer):
    """Three 3x3 convolutions with batch norms and ReLUs, the first of stride two.

    The first two have half of the channels. All are padded alike on all sides.
    """

    stride = 2

    def __init__(
        self,
        channels: int,
        *,
        make: Maker,
        name: str,
    ):
        """Creates the layer and its variables.

        Args:
          channels: C of the output.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(name=name, dtype=make.dtype)
        half = max(channels // 2, 1)
        widths = (3, half, half, channels)
        self.convs, self.norms = [], []
        with tf.name_scope(name):
            for index in range(3):
                conv = make.conv(
                    *widths[index : index + 2],
                    3,
                    stride=2 if index == 0 else 1,
                    explicit_padding=index == 0,
                    name=f"conv{index + 1}",
                )
                norm = make.norm(conv.filters, name=f"norm{index + 1}")
                self.convs.append(conv)
                self.norms.append(norm)
        self.built = True

    def call(self, images, training=None, extent=None):
        """Maps images [B, H, W, 3] to features [B, H / stride, W / stride, C].

        Args:
          images: floating point.
          training: whether batch norms use the statistics of the batch.
          extent: optional Extent of the images.
        """
        extent = extent or Extent.whole(images)
        x, valid = images, extent.valid(images)
        halved = extent.strided(2)
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = conv(without_padding(x, valid))
            if index == 0:
                valid = halved.valid(x)
            x = tf.nn.relu(norm.bound(training, valid)(x))
        return without_padding(x, valid)

    def flops(self, extent: Extent) -> tf.Tensor:
        """FLOPs for each image: int64 [B]."""
        positions = extent.strided(2).positions
        return tf.add_n([conv.flops(positions) for conv in self.convs])


class ResNetDRoot(SmallResNetDRoot):
    """The same, and 3x3 max pooling of stride two: stride four in all."""

    stride = 4

    def call(self, images, training=None, extent=None):
        """See SmallResNetDRoot."""
        extent = extent or Extent.whole(images)
        x = super().call(images, training, extent)
        # Behind a ReLU zeros are as good as nothing.
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        return without_padding(x, extent.strided(self.stride).valid(x))


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
