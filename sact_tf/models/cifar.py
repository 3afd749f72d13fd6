"""The CIFAR family: networks of basic units for small images."""

import tensorflow as tf
import tf_keras

from sact_tf.geometry import Extent
from sact_tf.layers.maker import Made, Maker
from sact_tf.layers.residual_units import BasicUnit
from sact_tf.models.family import Family


class CifarRoot(Made, tf_keras.layers.Layer):
    """One 3x3 convolution."""

    stride = 1

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
          make: makes the layers in it. There is no batch norm: units begin with one.
          name: name of the layer.
        """
        super().__init__(name=name, dtype=make.dtype)
        with tf.name_scope(name):
            self.conv = make.conv(
                3,
                channels,
                3,
                use_bias=True,
                name="conv",
            )
        self.built = True

    def call(self, images, training=None, extent=None):
        """Maps images [B, H, W, 3] to features [B, H, W, C].

        Raises:
          ValueError: the images are padded: where strides put a unit's windows depends
            on the padding.
        """
        del training
        if extent is not None and extent.padded:
            raise ValueError(
                "image_shapes, for padded images, are for the imagenet family. "
                f"Received: image_shapes={extent.sizes} for a network of the cifar "
                "family"
            )
        return self.conv(images)

    def flops(self, extent: Extent) -> tf.Tensor:
        """FLOPs for each image: int64 [B]."""
        return self.conv.flops(extent.positions)


FAMILY = Family(
    depths={
        20: (3, 3, 3),
        32: (5, 5, 5),
        44: (7, 7, 7),
        56: (9, 9, 9),
        110: (18, 18, 18),
    },
    root=CifarRoot,
    unit=BasicUnit,
    strides=(1, 2, 2),
    stride=4,
    base_channels=16,
    root_channels=None,
    expansion=1,
    leak=BasicUnit.leak,
    pool_first=True,
    batch_norm={"momentum": 0.9, "epsilon": 1e-3},
    weight_decay=2e-4,
    first_unit={"activate_shortcut": True},
)
