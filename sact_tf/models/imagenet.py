"""The ImageNet family: pre-activation bottleneck networks (section 2.1, figure 2)."""

import tensorflow as tf
import tf_keras

from sact_tf.geometry import Extent, without_padding
from sact_tf.layers.maker import Made, Maker
from sact_tf.layers.residual_units import BottleneckUnit
from sact_tf.models.family import Family


class ImageNetRoot(Made, tf_keras.layers.Layer):
    """7x7 convolution of stride two and 3x3 max pooling: stride four in all."""

    stride = 4

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
                7,
                stride=2,
                explicit_padding=True,
                use_bias=True,
                name="conv",
            )
        self.built = True

    def call(self, images, training=None, extent=None):
        """Maps images [B, H, W, 3] to features [B, H / 4, W / 4, C].

        Args:
          images: floating point.
          training: nothing depends on it.
          extent: optional Extent of the images.
        """
        del training
        if extent is None or not extent.padded:
            return tf.nn.max_pool2d(self.conv(images), 3, 2, "SAME")
        x = self.conv(without_padding(images, extent.valid(images)))
        halved = extent.strided(2)
        x = without_padding(x, halved.valid(x), x.dtype.min)
        # "SAME" has its first window begin at 0 where the side is even, at -1 where it
        # is odd: the side of the image that is, not that of the batch.
        x = tf.pad(x, [[0, 0], [1, 2], [1, 2], [0, 0]], constant_values=x.dtype.min)
        for axis in (1, 2):
            even = tf.reshape(halved.sizes[:, axis - 1] % 2 == 0, [-1, 1, 1, 1])
            stop = tf.shape(x)[axis] - 1
            first = tf.gather(x, tf.range(stop), axis=axis)
            second = tf.gather(x, tf.range(1, stop + 1), axis=axis)
            x = tf.where(even, second, first)
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        # Out of all windows' reach the padding is still the smallest number.
        return without_padding(x, extent.strided(self.stride).valid(x))

    def flops(self, extent: Extent) -> tf.Tensor:
        """FLOPs for each image: int64 [B]."""
        return self.conv.flops(extent.strided(2).positions)


FAMILY = Family(
    depths={
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
        200: (3, 24, 36, 3),
    },
    root=ImageNetRoot,
    unit=BottleneckUnit,
    strides=(1, 2, 2, 2),
    stride=32,
    base_channels=64,
    root_channels=64,
    expansion=4,
    leak=None,
    pool_first=False,
    batch_norm={"momentum": 0.997, "epsilon": 1e-5},
    weight_decay=1e-4,
    first_unit={},
)
