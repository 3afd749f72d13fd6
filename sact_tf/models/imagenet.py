"""The ImageNet family: pre-activation bottleneck networks (section 2.1, figure 2)."""

import tensorflow as tf
import tf_keras

from sact_tf.layers.convolution import Convolution
from sact_tf.layers.residual_units import BottleneckUnit
from sact_tf.models.family import Family


class ImageNetRoot(tf_keras.layers.Layer):
    """7x7 convolution of stride two and 3x3 max pooling: stride four in all."""

    def __init__(self, channels: int, *, weight_decay: float, name: str, dtype=None):
        super().__init__(name=name, dtype=dtype)
        with tf.name_scope(name):
            self.conv = Convolution(
                3,
                channels,
                7,
                stride=2,
                explicit_padding=True,
                use_bias=True,
                weight_decay=weight_decay,
                name="conv",
                dtype=dtype,
            )
        self.built = True

    def call(self, images):
        """Maps images [B, H, W, 3] to features [B, H / 4, W / 4, C]."""
        return tf.nn.max_pool2d(self.conv(images), 3, 2, "SAME")

    def flops(self, images) -> tf.Tensor:
        """FLOPs for each image: int64 [B]."""
        shape = tf.shape(images, out_type=tf.int64)
        positions = ((shape[1] + 1) // 2) * ((shape[2] + 1) // 2)
        return self.conv.flops(tf.fill(shape[:1], positions))


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
