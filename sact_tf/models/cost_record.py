"""What a network's cost record says, per image and as maps (eqns 11 and 13)."""

import tensorflow as tf


def ponder_loss(ponder_cost: tf.Tensor, tau: float) -> tf.Tensor:
    """The mean ponder cost of a batch times tau (eqn 13), from each image's."""
    # A replica of a distributed batch may get no image at all: no NaN then.
    count = tf.cast(tf.size(ponder_cost), tf.float32)
    return tau * tf.math.divide_no_nan(tf.reduce_sum(ponder_cost), count)


def with_maps(record: dict, size: tf.Tensor) -> dict:
    """Adds the maps at the size of the images, int32 [2]; see Backbone.introspect."""
    maps = {
        f"{key}_map": tf.add_n(
            [enlarge(block[key], size) for block in record["blocks"]]
        )
        for key in ("ponder_cost", "num_units")
    }
    return {**record, **maps}


def per_image(values: tf.Tensor, record: dict) -> tf.Tensor:
    """Mean of a block's values over the positions of each image: float32 [B].

    Args:
      values: [B, h, w], zero where the image is padded; [B] stays as it is.
      record: the block's.
    """
    values = tf.cast(values, tf.float32)
    if values.shape.rank == 1:
        return values
    positions = tf.cast(record["positions"], tf.float32)
    return tf.reduce_sum(values, axis=[1, 2]) / positions


def enlarge(values: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Brings a block's map to the size of the image, by nearest neighbour.

    Pixel i takes the value at floor(i * in / out).

    Args:
      values: [B, h, w], or [B] for one value per image.
      size: int32 [2], height and width wanted.

    Returns:
      float32 [B, H, W, 1].
    """
    values = tf.cast(values, tf.float32)
    if values.shape.rank == 1:
        values = values[:, tf.newaxis, tf.newaxis]
    for axis in (1, 2):
        out = size[axis - 1]
        index = tf.range(out) * tf.shape(values)[axis] // out
        values = tf.gather(values, index, axis=axis)
    return values[..., tf.newaxis]
