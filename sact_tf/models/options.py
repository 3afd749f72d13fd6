"""What a network may be told beside its images: halting biases, and masks."""

import math

import numpy as np
import tensorflow as tf

from sact_tf import masks
from sact_tf.models.config import BackboneConfig


def has_halting_scores(adaptivity: str) -> bool:
    """Whether a halting_bias means anything to a network."""
    return adaptivity in ("act", "sact")


def check_halting_bias(halting_bias, adaptivity: str) -> None:
    """Refuses a bias where nothing halts, unless it is zero.

    Args:
      halting_bias: a number, an array or a tensor; one whose value is known only at run
        time is not looked at, and changes nothing.
      adaptivity: of the network.

    Raises:
      ValueError: there are no halting scores to add it to.
    """
    if has_halting_scores(adaptivity):
        return
    value = tf.get_static_value(halting_bias)
    if value is not None and np.any(value):
        raise ValueError(
            "halting_bias is added to halting logits, which only networks with "
            "adaptivity='act' or 'sact' have. Received: halting_bias="
            f"{np.asarray(value).tolist()!r}, adaptivity={adaptivity!r}"
        )


def halting_bias_of(halting_bias, images: tf.Tensor) -> tf.Tensor:
    """A halting bias as a tensor, float32, [] or [B].

    Raises:
      ValueError: it is neither one number nor one for each of the images.
    """
    halting_bias = tf.convert_to_tensor(halting_bias, tf.float32)
    shape, one_each = halting_bias.shape, images.shape[:1]
    if shape.rank not in (None, 0) and not shape.is_compatible_with(one_each):
        raise ValueError(
            "halting_bias must be a number, or one for each image of the batch. "
            f"Received: shape={shape} with images of the shape {images.shape}"
        )
    return halting_bias


def check_mask(active_mask, images: tf.Tensor, config: BackboneConfig) -> tf.Tensor:
    """Looks at what is known of a mask before anything is computed.

    Args:
      active_mask: bool [B, H, W] or [B, h, w] is what it should be.
      images: [B, H, W, 3], that it is of.
      config: of the network.

    Returns:
      The mask as a tensor.

    Raises:
      ValueError: the network takes no masks, or the mask has the wrong dtype or shape.
    """
    if config.adaptivity == "ssin" or config.sampling is not None:
        raise ValueError(
            "active_mask is for networks of ordinary units: those of SSBNet and SSIN "
            "choose for themselves where they look. Received: adaptivity="
            f"{config.adaptivity!r}, sampling={config.sampling!r}"
        )
    mask = tf.convert_to_tensor(active_mask)
    if mask.dtype != tf.bool:
        raise ValueError(
            "active_mask must be bool, true where an image is computed. Received: "
            f"dtype={mask.dtype.name}"
        )
    stride = _first_stride(config)
    batch, *size = images.shape[:3]
    of_map = [side and -(-side // stride) for side in size]
    if not any(mask.shape.is_compatible_with([batch, *s]) for s in (size, of_map)):
        raise ValueError(
            f"{_of_images(stride)} Received: shape={mask.shape} with "
            f"images of the shape {images.shape}"
        )
    return mask


def mask_of_map(active_mask, images: tf.Tensor, config: BackboneConfig) -> tf.Tensor:
    """A mask of images as one of the network's first map; sizes may be unknown.

    Args:
      active_mask: see `check_mask`.
      images: see `check_mask`.
      config: see `check_mask`.

    Returns:
      bool [B, h, w], true where any pixel is.

    Raises:
      ValueError: see `check_mask`.
      tf.errors.InvalidArgumentError: at run time.
    """
    mask = tf.ensure_shape(check_mask(active_mask, images, config), 3 * [None])
    stride = _first_stride(config)
    of_images = tf.TensorShape(images.shape[:3])
    if of_images.is_fully_defined() and mask.shape.is_fully_defined():
        whole = stride > 1 and mask.shape == of_images
        return masks.max_pooled(mask, stride) if whole else mask
    shape, given = tf.shape(images)[:3], tf.shape(mask)
    whole = tf.reduce_all(given == shape)
    of_map = tf.concat([shape[:1], -(-shape[1:] // stride)], axis=0)
    fits = whole | tf.reduce_all(given == of_map)
    assertion = tf.debugging.Assert(fits, [_of_images(stride), given])
    with tf.control_dependencies([assertion]):
        side = tf.where(whole, stride, 1)
        return tf.identity(mask) if stride == 1 else masks.max_pooled(mask, side)


def _of_images(stride):
    return (
        "active_mask must have the shape [batch, height, width], of the size of the "
        f"images, or of that of the network's first map, which has stride {stride}."
    )


def _first_stride(config):
    """Of the root."""
    return config.spec.stride // math.prod(config.spec.strides)
