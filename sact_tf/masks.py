"""Masks from outside: which parts of images a network computes (SBNet).

    mask = masks.changed(previous, current)  # a fixed camera: where something moved
    logits = model(current, active_mask=mask)

A network brings a mask of the image to its maps by max pooling: a position is active
when any of its pixels is. Who wants another rule pools the mask for the network's first
map with `pooled`, or makes whole tiles of it with `in_tiles`.
"""

import math
import numbers

import numpy as np
import tensorflow as tf

from sact_tf.geometry.grid import Grid
from sact_tf.geometry.maps import dilate

#: How a block of a mask becomes one position.
KINDS = ("max", "average")


def changed(
    previous: tf.Tensor | np.ndarray,
    current: tf.Tensor | np.ndarray,
    threshold: float = 0.1,
    dilation: int = 0,
) -> tf.Tensor:
    """Where two pictures of one camera differ.

    Args:
      previous: [H, W, 3] or [B, H, W, 3]; floating point, or uint8, which is compared
        as if it were scaled to [-1, 1].
      current: of the same shape and type.
      threshold: a pixel has changed when a channel differs by more than this. In the
        unit of the images; 0.1 is a twentieth of the range [-1, 1].
      dilation: pixels within so many, in both directions, of a changed one are taken
        for changed, too.

    Returns:
      bool [H, W] or [B, H, W]. What is no number has changed.

    Raises:
      ValueError: the pictures are no two of one kind, or a number is out of range.
    """
    previous, current = map(tf.convert_to_tensor, (previous, current))
    shape, dtype = current.shape, current.dtype
    same = dtype == previous.dtype and shape.is_compatible_with(previous.shape)
    known = dtype.is_floating or dtype == tf.uint8
    if not (same and known and shape.rank in (3, 4) and shape[-1] == 3):
        raise ValueError(
            "previous and current must be images of one shape, [H, W, 3] or "
            "[B, H, W, 3], and one type, floating point or uint8. Received: "
            f"{_described(previous)} and {_described(current)}"
        )
    if not (isinstance(threshold, numbers.Real) and threshold >= 0):
        raise ValueError(f"threshold must be zero or more. Received: {threshold!r}")
    if not (isinstance(dilation, numbers.Integral) and dilation >= 0):
        raise ValueError(
            f"dilation must be an integer of at least 0. Received: {dilation!r}"
        )
    scale = 1 / 127.5 if dtype == tf.uint8 else 1.0
    previous, current = (tf.cast(x, tf.float32) * scale for x in (previous, current))
    # Not `difference > threshold`: NaN must not look like what has not changed.
    mask = tf.reduce_any(~(tf.abs(current - previous) <= threshold), axis=-1)
    if not dilation:
        return mask
    if shape.rank == 4:
        return dilate(mask, int(dilation))
    return dilate(mask[tf.newaxis], int(dilation))[0]


def pooled(
    mask: tf.Tensor | np.ndarray,
    size: int,
    stride: int | None = None,
    offset: int = 0,
    kind: str = "max",
    threshold: float = 0.0,
) -> tf.Tensor:
    """Which blocks of a mask are active (SBNet's reduce_mask).

    Block (i, j) has the size x size pixels from (i, j) * stride + offset on; there are
    as many as strides begin within the mask, so H / stride rounded up. Beyond the edges
    nothing is active. With the default stride and offset blocks do not overlap, and
    `pooled(mask, 4)` brings a mask of the image to a map of stride four. A chain of
    convolutions with a kernel of k pixels in all, on blocks of b, is SBNet's
    `pooled(mask, b, b - k + 1, -(k // 2))`.

    Args:
      mask: bool [B, H, W].
      size: side of a block in pixels.
      stride: from block to block; the size by default.
      offset: of the first block, zero or less.
      kind: "max", the largest value of a block, one where any pixel is true; or
        "average", the share of its pixels that are, of size * size, at the edges too.
      threshold: a block is active when that is more than this; in [0, 1).

    Returns:
      bool [B, ceil(H / stride), ceil(W / stride)].

    Raises:
      ValueError: the mask is none, or an argument is out of range.
    """
    mask = tf.convert_to_tensor(mask)
    if mask.dtype != tf.bool or mask.shape.rank != 3:
        raise ValueError(f"mask must be bool [B, H, W]. Received: {_described(mask)}")
    stride = size if stride is None else stride
    for name, value in (("size", size), ("stride", stride)):
        if not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(
                f"{name} must be an integer of at least 1. Received: {value!r}"
            )
    if not isinstance(offset, numbers.Integral) or not -size < offset <= 0:
        raise ValueError(
            f"offset must be an integer in (-{size}, 0]. Received: {offset!r}"
        )
    if kind not in KINDS:
        raise ValueError(
            f"kind must be one of {', '.join(map(repr, KINDS))}. Received: {kind!r}"
        )
    if not (isinstance(threshold, numbers.Real) and 0 <= threshold < 1):
        raise ValueError(f"threshold must be in [0, 1). Received: {threshold!r}")
    if kind == "max" and stride == size and offset == 0:
        return max_pooled(mask, int(size))
    size, stride = int(size), int(stride)
    sides = Grid.of(mask[..., tf.newaxis]).shape[1:]
    counts = [-(-side // stride) for side in sides]
    # From the first block's first pixel to the last one's last.
    lengths = [(count - 1) * stride + size for count in counts]
    values = tf.pad(
        tf.cast(mask, tf.float32), [[0, 0]] + [[-offset, size + stride]] * 2
    )
    values = values[:, : lengths[0], : lengths[1], tf.newaxis]
    if kind == "max":
        return tf.nn.max_pool2d(values, size, stride, "VALID")[..., 0] > 0
    # Compared as counts: shares would be rounded across the threshold.
    counts = tf.round(tf.nn.avg_pool2d(values, size, stride, "VALID") * size**2)
    return counts[..., 0] > math.floor(threshold * size**2 + 1e-6)


def max_pooled(mask: tf.Tensor, side: int | tf.Tensor) -> tf.Tensor:
    """Which blocks of side x side pixels have a true one.

    Args:
      mask: bool [B, H, W].
      side: at least one; an integer, or an int32 scalar.

    Returns:
      bool [B, ceil(H / side), ceil(W / side)].
    """
    if isinstance(side, int) and side == 1:
        return mask
    grid = Grid.of(mask[..., tf.newaxis])
    images, down, across = grid.images, -(-grid.height // side), -(-grid.width // side)
    bottom, right = down * side - grid.height, across * side - grid.width
    mask = tf.pad(mask, [[0, 0], [0, bottom], [0, right]])
    blocks = tf.reshape(mask, tf.stack([images, down, side, across, side]))
    return tf.reduce_any(blocks, axis=[2, 4])


def in_tiles(
    mask: tf.Tensor | np.ndarray, size: int, kind: str = "max", threshold: float = 0.0
) -> tf.Tensor:
    """A mask of the same size of which whole tiles are active, or not, as in SBNet.

    Args:
      mask: bool [B, H, W].
      size: side of a tile in pixels.
      kind: see `pooled`.
      threshold: see `pooled`.

    Returns:
      bool [B, H, W], constant within each tile.
    """
    blocks = pooled(mask, size, kind=kind, threshold=threshold)
    tiles = tf.repeat(tf.repeat(blocks, size, axis=1), size, axis=2)
    return tiles[:, : tf.shape(mask)[1], : tf.shape(mask)[2]]


def _described(values):
    return f"{values.dtype.name} {values.shape}"
