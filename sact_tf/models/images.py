"""Whether a network can take some images."""

import tensorflow as tf


def check(images: tf.Tensor, smallest: int = 1) -> None:
    """Looks at what is known of images before they are computed.

    Args:
      images: float [B, H, W, 3] is what they should be.
      smallest: pixels that H and W must have.

    Raises:
      ValueError: the images have the wrong dtype, rank, channels or size.
    """
    shape, dtype = images.shape, images.dtype
    if shape.rank != 4 or shape[3] not in (None, 3):
        raise ValueError(
            "Images must have the shape [batch, height, width, 3]. Received: "
            f"{shape=!s}"
        )
    if not dtype.is_floating:
        raise ValueError(
            "Images must be floating point, scaled as the network was trained (for"
            " the imagenet family to [-1, 1]: `images / 127.5 - 1`). Received: "
            f"dtype={dtype.name}"
        )
    sides = [side for side in shape[1:3] if side is not None]
    if sides and min(sides) < smallest:
        raise ValueError(f"{_small(smallest)} Received: {shape=!s}")


def checked(images: tf.Tensor, smallest: int) -> tf.Tensor:
    """The images; sizes that are known only at run time are checked then.

    Args:
      images: see `check`.
      smallest: see `check`.

    Raises:
      ValueError: see `check`.
      tf.errors.InvalidArgumentError: at run time.
    """
    check(images, smallest)
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    assertion = tf.debugging.assert_greater_equal(
        tf.minimum(height, width), smallest, message=_small(smallest)
    )
    with tf.control_dependencies([] if assertion is None else [assertion]):
        return tf.identity(images)


def _small(smallest):
    return (
        f"Images must be at least {smallest} x {smallest} pixels, the network's stride."
    )
