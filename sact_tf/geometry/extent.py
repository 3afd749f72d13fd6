"""How much of the images of a batch, and of their maps, is no padding."""

from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry.maps import within


class Extent(NamedTuple):
    """Sizes of the images of a batch, or of their maps, without the padding.

    Attributes:
      sizes: int32 [B, 2], heights and widths.
      padded: whether there may be padding at the bottom and on the right.
    """

    sizes: tf.Tensor
    padded: bool = True

    @classmethod
    def whole(cls, maps: tf.Tensor) -> "Extent":
        """Of images or maps [B, H, W, C] without padding."""
        shape = tf.shape(maps)
        return cls(tf.broadcast_to(shape[1:3], [shape[0], 2]), padded=False)

    @classmethod
    def of_images(cls, shapes: tf.Tensor) -> "Extent":
        """Of images with sizes of any type [B, 2], which need not be whole numbers."""
        return cls(tf.cast(tf.math.ceil(tf.cast(shapes, tf.float32)), tf.int32))

    def strided(self, stride: int) -> "Extent":
        """Of what a layer with a stride makes of the maps: sizes round up."""
        return self._replace(sizes=-(-self.sizes // stride))

    def valid(self, maps: tf.Tensor) -> tf.Tensor | None:
        """Which positions of maps [B, H, W, C] are no padding: bool; None for all."""
        return within(self.sizes, maps) if self.padded else None

    @property
    def positions(self) -> tf.Tensor:
        """How many of each map are no padding: int64 [B]."""
        return tf.reduce_prod(tf.cast(self.sizes, tf.int64), axis=1)
