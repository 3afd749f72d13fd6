"""Features of regions, cropped to one size (section 4.2, supplement A.2)."""

import tensorflow as tf

from sact_tf.geometry import Extent
from sact_tf.geometry.control_flow import gpu_is_visible

#: Crops of a chunk take no more memory than this, if there are more than one: they are
#: pooled before they have left the caches, and the C library does not ask the system
#: for memory, page by page, as it does from 32 MiB on. That is several times as fast.
CHUNK_BYTES = 2**23
#: Crops of a chunk, at most: the last one is filled up with crops that nobody wants.
CHUNK = 16


def crop_and_resize(
    features: tf.Tensor,
    boxes: tf.Tensor,
    *,
    stride: int,
    crop_size: int = 28,
    pool_size: int = 7,
    crops_at_once: int = 64,
    parallel_iterations: int = 1,
    extent: Extent | None = None,
    images: tf.Tensor | None = None,
) -> tf.Tensor:
    """Crops regions with `tf.image.crop_and_resize`, then max-pools the crops.

    Cell i of the map stands at pixel stride * (i + 1/2), where its anchors are centred.
    As in `tf.image.crop_and_resize` the outermost samples lie on the sides of the box;
    sides beyond the outermost cells are moved onto them, so nothing is extrapolated.

    300 crops of 28 x 28 x 1024 would take 0.96 GB. No more than `crops_at_once` exist
    at a time, and where there are more, or nobody knows how many, no more than take
    CHUNK_BYTES; unless gradients are taken, which keep them all.

    Args:
      features: [B, h, w, C].
      boxes: float32 [B, N, 4], [ymin, xmin, ymax, xmax] in pixels of the image; or
        [R, 4], those of all images together.
      stride: pixels from one cell to the next.
      crop_size: side of a crop before pooling.
      pool_size: side of a crop after pooling; divides `crop_size`.
      crops_at_once: how many crops may be in memory before they are pooled.
      parallel_iterations: how often that.
      extent: of the maps; the whole of them by default.
      images: int32 [R], which image each of R boxes is of.

    Returns:
      [B, N, pool_size, pool_size, C], or [R, pool_size, pool_size, C]; of the dtype of
      the features.

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
    if images is None:
        batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
        crops = crop_and_resize(
            features,
            tf.reshape(boxes, [-1, 4]),
            stride=stride,
            crop_size=crop_size,
            pool_size=pool_size,
            crops_at_once=crops_at_once,
            parallel_iterations=parallel_iterations,
            extent=extent,
            images=tf.repeat(tf.range(batch), count),
        )
        crops = tf.reshape(crops, [batch, count, *crops.shape[1:]])
        return tf.ensure_shape(crops, [*boxes.shape[:2], *crops.shape[2:]])
    whole = tf.shape(features)[1:3]
    if extent is None:
        last = tf.cast(tf.tile(whole, [2]) - 1, tf.float32)
    else:
        last = tf.cast(tf.tile(extent.sizes, [1, 2]) - 1, tf.float32)
        last = tf.gather(last, images)
    # A little inside: the operation takes what rounding puts beyond the last cell, by
    # six operations at most, for zero.
    cells = tf.clip_by_value(boxes / stride - 0.5, 0.0, last * (1 - 2.0**-21))
    # The operation counts from 0 to 1 between the first and the last cell.
    cells /= tf.cast(tf.tile(tf.maximum(whole - 1, 1), [2]), tf.float32)

    def pooled(chunk):
        cells, images = chunk
        crops = _crops(tf.cast(features, tf.float32), cells, images, crop_size)
        if crop_size > pool_size:
            window = crop_size // pool_size
            crops = tf.nn.max_pool2d(crops, window, window, "VALID")
        return tf.cast(crops, features.dtype)

    shape = [pool_size, pool_size, features.shape[3]]
    if boxes.shape[0] is not None and boxes.shape[0] <= crops_at_once:
        return tf.ensure_shape(pooled((cells, images)), [boxes.shape[0], *shape])
    # Chunks of one size, which TensorFlow wants to know.
    crop_bytes = 4 * crop_size**2 * features.shape[3]
    size = min(crops_at_once, CHUNK, max(1, CHUNK_BYTES // crop_bytes))
    total = tf.shape(cells)[0]
    missing = -total % size
    crops = tf.map_fn(
        pooled,
        (
            tf.reshape(tf.pad(cells, [[0, missing], [0, 0]]), [-1, size, 4]),
            tf.reshape(tf.pad(images, [[0, missing]]), [-1, size]),
        ),
        parallel_iterations=parallel_iterations,
        fn_output_signature=tf.TensorSpec([size, *shape], features.dtype),
    )
    crops = tf.reshape(crops, [-1, *shape])[:total]
    return tf.ensure_shape(crops, [boxes.shape[0], *shape])


def _crops(features, cells, images, side):
    """`tf.image.crop_and_resize`, with a gradient that loses nothing.

    TensorFlow's own for the image, on a CPU, is added up by several threads without a
    lock: where they meet at a cell, what one of them adds is lost.
    """
    if gpu_is_visible():
        return tf.image.crop_and_resize(features, cells, images, [side] * 2)

    @tf.custom_gradient
    def crops(features, cells):
        def gradient(upstream):
            of_cells = tf.raw_ops.CropAndResizeGradBoxes(
                grads=upstream, image=features, boxes=cells, box_ind=images
            )
            return _scattered(upstream, cells, images, tf.shape(features)), of_cells

        return tf.image.crop_and_resize(features, cells, images, [side] * 2), gradient

    return crops(features, cells)


def _scattered(crops, cells, images, shape):
    """Crops [R, n, n, C] added to where they come from, in maps of a shape [4].

    That is a product with the sparse matrix of the bilinear weights, four for each
    sample.
    """
    count, side, _, channels = tf.unstack(tf.shape(crops))
    size = tf.cast(shape, tf.int64)
    rows, of_rows = _neighbours(cells[:, 0], cells[:, 2], crops.shape[1], size[1])
    columns, of_columns = _neighbours(cells[:, 1], cells[:, 3], crops.shape[2], size[2])
    rows += tf.cast(images, tf.int64)[:, tf.newaxis, tf.newaxis] * size[1]
    # All with the shape [R, n, n, 2, 2].
    to = rows[:, :, tf.newaxis, :, tf.newaxis] * size[2] + columns[:, None, :, None]
    weights = of_rows[:, :, tf.newaxis, :, tf.newaxis] * of_columns[:, None, :, None]
    total = tf.cast(count * side * side, tf.int64)
    maps = tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=tf.stack([tf.reshape(to, [-1]), tf.repeat(tf.range(total), 4)], 1),
        a_values=tf.reshape(weights, [-1]),
        a_shape=tf.stack([tf.reduce_prod(size[:3]), total]),
        b=tf.reshape(crops, [-1, channels]),
    )
    return tf.reshape(maps, shape)


def _neighbours(first, last, side, size):
    """The two cells around each sample of a side, int64 [R, n, 2], and their weights.

    first and last are float32 [R], from 0 to 1; of one sample only, half-way.
    """
    steps = tf.linspace(0.0, 1.0, side) if side > 1 else tf.constant([0.5])
    edge = tf.cast(size - 1, tf.float32)
    place = (first[:, tf.newaxis] + steps * (last - first)[:, tf.newaxis]) * edge
    place = tf.clip_by_value(place, 0.0, edge)
    before = tf.floor(place)
    share = place - before
    before = tf.cast(before, tf.int64)
    after = tf.minimum(before + 1, size - 1)
    return tf.stack([before, after], 2), tf.stack([1 - share, share], 2)
