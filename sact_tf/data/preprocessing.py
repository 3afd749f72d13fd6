"""What is done to a photograph before it reaches a network, in evaluation."""

from collections.abc import Callable

import tensorflow as tf

#: Side of the square that a family's networks are evaluated on, by default.
SIZES = {"imagenet": 224, "cifar": 32, "resnet_d": 224, "resnet_d_small": 64}
#: Families for small images, which are taken whole and standardised, each by itself.
STANDARDIZED = ("cifar", "resnet_d_small")
CENTRAL_FRACTION = 0.875


def imagenet(image: tf.Tensor, size: int) -> tf.Tensor:
    """Central crop, bilinear resize, scaled to [-1, 1] (supplement A.1).

    The crop keeps 87.5 % of the height and of the width. (The supplement says "of the
    area"; the Inception preprocessing that it names, and uses, means the sides.) The
    resize samples at i * in / out, as TensorFlow 1 does, without antialiasing.

    Args:
      image: uint8 [H, W, 3].
      size: S, side of the result.

    Returns:
      float32 [S, S, 3].
    """
    image = tf.image.convert_image_dtype(image, tf.float32)
    image = tf.image.central_crop(image, CENTRAL_FRACTION)
    return 2.0 * resized(image, size) - 1.0


def cifar(image: tf.Tensor, size: int) -> tf.Tensor:
    """Brings the image to mean zero and standard deviation one, by itself.

    Args:
      image: uint8 [H, W, 3]; resized first if it has another size.
      size: S, side of the result.

    Returns:
      float32 [S, S, 3].
    """
    return tf.image.per_image_standardization(resized(tf.cast(image, tf.float32), size))


#: By family of networks.
EVALUATION: dict[str, Callable[[tf.Tensor, int], tf.Tensor]] = {
    "imagenet": imagenet,
    "cifar": cifar,
    "resnet_d": imagenet,
    "resnet_d_small": cifar,
}


def whole_image(image: tf.Tensor, size: int, family: str) -> tf.Tensor:
    """The whole image, resized as in evaluation, but not cropped.

    Args:
      image: uint8 [H, W, 3].
      size: S, side of the result.
      family: see `normalize`.

    Returns:
      float32 [S, S, 3].
    """
    return normalize(resized(tf.cast(image, tf.float32), size), family)


def detection(image: tf.Tensor, shorter_side: int, longer_side: int) -> tf.Tensor:
    """Resized by the rule of Faster R-CNN, aspect ratio kept; scaled to [-1, 1].

    Args:
      image: uint8 or float [H, W, 3].
      shorter_side: pixels of the shorter side ...
      longer_side: ... unless the longer side would then have more than this.

    Returns:
      float32 [h, w, 3], bilinearly interpolated.
    """
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.minimum(
        shorter_side / tf.reduce_min(size), longer_side / tf.reduce_max(size)
    )
    new = tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)
    return normalize(tf.image.resize(image, new), "imagenet")


def normalize(images: tf.Tensor, family: str) -> tf.Tensor:
    """Values as a family's networks take them, at whatever size the images have.

    Args:
      images: uint8 [..., H, W, 3].
      family: one of EVALUATION. Those for small images take them STANDARDIZED, each by
        itself, the others scaled to [-1, 1].

    Returns:
      float32 of the same shape.
    """
    images = tf.cast(images, tf.float32)
    if family in STANDARDIZED:
        return tf.image.per_image_standardization(images)
    return images / 127.5 - 1.0


def resized(image: tf.Tensor, size: int) -> tf.Tensor:
    """The image at S x S pixels, as in evaluation.

    Args:
      image: uint8 or float32 [H, W, 3].
      size: S.

    Returns:
      float32 [S, S, 3], of the values' range; bilinear, without antialiasing.
    """
    # tf.image.resize samples at pixel centres, which TensorFlow 1 did not.
    size = [size, size]
    resized = tf.raw_ops.ResizeBilinear(images=image[tf.newaxis], size=size)[0]
    return tf.ensure_shape(resized, [*size, 3])
