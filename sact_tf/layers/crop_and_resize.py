"""Features of regions, cropped to one size (section 4.2, supplement A.2)."""

import tensorflow as tf


def crop_and_resize(
    features: tf.Tensor,
    boxes: tf.Tensor,
    *,
    stride: int,
    crop_size: int = 28,
    pool_size: int = 7,
    crops_at_once: int = 64,
    map_sizes: tf.Tensor | None = None,
) -> tf.Tensor:
    """Crops regions with `tf.image.crop_and_resize`, then max-pools the crops.

    Cell i of the map stands at pixel stride * (i + 1/2), where its anchors are centred.
    As in `tf.image.crop_and_resize` the outermost samples lie on the sides of the box;
    sides beyond the outermost cells are moved onto them, so nothing is extrapolated.

    300 crops of 28 x 28 x 1024 would take 0.96 GB. No more than `crops_at_once` exist
    at a time, unless gradients are taken, which keep them all.

    Args:
      features: [B, h, w, C].
      boxes: float32 [B, N, 4], [ymin, xmin, ymax, xmax] in pixels of the image.
      stride: pixels from one cell to the next.
      crop_size: side of a crop before pooling.
      pool_size: side of a crop after pooling; divides `crop_size`.
      crops_at_once: how many crops may be in memory before they are pooled.
      map_sizes: int32 [B, 2], height and width of the part of each map that is not
        padding; the whole map by default.

    Returns:
      [B, N, pool_size, pool_size, C], of the dtype of the features.

    Raises:
      ValueError: `pool_size` does not divide `crop_size`, or `crops_at_once` is not
        positive.
    """
    if pool_size < 1 or crop_size % pool_size:
        raise ValueError(
            "crop_size must be a multiple of pool_size. Received: crop_size="
            f"{crop_size}, pool_size={pool_size}"
        )
    if crops_at_once < 1:
        raise ValueError(f"crops_at_once must be at least 1. Received: {crops_at_once}")
    batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
    whole = tf.shape(features)[1:3]
    if map_sizes is None:
        map_sizes = tf.broadcast_to(whole, [batch, 2])
    last = tf.cast(tf.tile(map_sizes, [1, 2]) - 1, tf.float32)[:, tf.newaxis]
    # A little inside: the operation takes what rounding puts beyond the last cell, by
    # six operations at most, for zero.
    cells = tf.clip_by_value(boxes / stride - 0.5, 0.0, last * (1 - 2.0**-21))
    # The operation counts from 0 to 1 between the first and the last cell.
    cells /= tf.cast(tf.tile(tf.maximum(whole - 1, 1), [2]), tf.float32)
    cells = tf.reshape(cells, [-1, 4])
    images = tf.repeat(tf.range(batch), count)

    def pooled(chunk):
        cells, images = chunk
        crops = tf.image.crop_and_resize(
            tf.cast(features, tf.float32), cells, images, [crop_size] * 2
        )
        if crop_size > pool_size:
            window = crop_size // pool_size
            crops = tf.nn.max_pool2d(crops, window, window, "VALID")
        return tf.cast(crops, features.dtype)

    channels = features.shape[3]
    shape = [pool_size, pool_size, channels]
    total = None
    if boxes.shape[:2].is_fully_defined():
        total = boxes.shape[0] * boxes.shape[1]
    if total is not None and total <= crops_at_once:
        crops = pooled((cells, images))
    else:
        missing = -tf.shape(cells)[0] % crops_at_once
        chunks = (
            tf.reshape(tf.pad(cells, [[0, missing], [0, 0]]), [-1, crops_at_once, 4]),
            tf.reshape(tf.pad(images, [[0, missing]]), [-1, crops_at_once]),
        )
        crops = tf.map_fn(
            pooled,
            chunks,
            parallel_iterations=1,
            fn_output_signature=tf.TensorSpec([crops_at_once, *shape], features.dtype),
        )
        crops = tf.reshape(crops, [-1, *shape])[: batch * count]
    crops = tf.reshape(crops, [batch, count, *shape])
    return tf.ensure_shape(crops, [*boxes.shape[:2], *shape])
