"""Root and blocks, as classification networks and backbones run them."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from sact_tf.layers.adaptive_blocks import Block


def run(
    root: tf_keras.layers.Layer,
    blocks: Sequence[Block],
    images: tf.Tensor,
    *,
    training: bool | None = None,
    halting_bias: tf.Tensor | None = None,
    image_shapes: tf.Tensor | None = None,
) -> dict:
    """Runs a network's root and its blocks, or the first few of them.

    Args:
      root: of a family of networks.
      blocks: the blocks.
      images: floating point [B, H, W, 3].
      training: whether batch norms use the statistics of the batch.
      halting_bias: optional scalar or [B], added to every halting logit; above zero the
        network stops sooner.
      image_shapes: optional [B, 2], height and width of each image without padding
        at the bottom and on the right. What is said of an image is then what would be
        said of it alone, and its padding costs nothing; live batch norms leave it out
        of their statistics. Not for the cifar family.

    Returns:
      The cost record: flops int64 [B]; ponder_cost float32 [B], summed over blocks,
      mean over positions; blocks, a list of what each block returned.

    Raises:
      ValueError: there are image_shapes for a network of the cifar family, or neither
        one halting_bias nor one for each image.
    """
    if halting_bias is not None:
        halting_bias = _checked(halting_bias, images)
    map_sizes = None
    if image_shapes is not None:
        image_shapes = tf.cast(image_shapes, tf.float32)
        image_shapes = tf.cast(tf.math.ceil(image_shapes), tf.int32)
        map_sizes = root.map_sizes(image_shapes)
    features = root(images, training=training, image_shapes=image_shapes)
    flops = root.flops(images, image_shapes=image_shapes)
    records = []
    for block in blocks:
        record = block(
            features, training=training, halting_bias=halting_bias, map_sizes=map_sizes
        )
        features = record["output"]
        if map_sizes is not None:
            map_sizes = block.map_sizes(map_sizes)
        flops += record["flops"]
        records.append(record)
    costs = [per_image(record["ponder_cost"], record) for record in records]
    return {"flops": flops, "ponder_cost": tf.add_n(costs), "blocks": records}


def _checked(halting_bias, images):
    halting_bias = tf.convert_to_tensor(halting_bias, tf.float32)
    shape, one_each = halting_bias.shape, images.shape[:1]
    if shape.rank not in (None, 0) and not shape.is_compatible_with(one_each):
        raise ValueError(
            "halting_bias must be a number, or one for each image of the batch. "
            f"Received: shape={shape} with images of the shape {images.shape}"
        )
    return halting_bias


def ponder_loss(ponder_cost: tf.Tensor, tau: float) -> tf.Tensor:
    """The mean ponder cost of a batch times tau (eqn 13), from each image's."""
    # A replica of a distributed batch may get no image at all: no NaN then.
    count = tf.cast(tf.size(ponder_cost), tf.float32)
    return tau * tf.math.divide_no_nan(tf.reduce_sum(ponder_cost), count)


def with_maps(record: dict, size: tf.Tensor) -> dict:
    """Adds the maps at the size of the images, int32 [2]; see ResNet.introspect."""
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
