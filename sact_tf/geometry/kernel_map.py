"""Which rows a kernel meets around each position (kernel map, or neighbour table).

Features of some positions lie in a matrix, one row each. The *inverse index* says for
every position of the grid which row is its own; a *kernel map* lists, for each computed
cell, the rows of all positions under a 3x3 kernel that visits it. Rows are numbered
from one: zero is a row of zeros, as positions without features and those beyond the
edges of a map count.
"""

import tensorflow as tf

from sact_tf.geometry.grid import Grid


def inverse_index(grid: Grid, positions: tf.Tensor) -> tf.Tensor:
    """One plus the row of every position of a grid, zero where there is none.

    Args:
      grid: B, H, W.
      positions: int32 [n], position of each row; rows of nowhere are in no entry.

    Returns:
      int32 [B, H, W].
    """
    rows = tf.range(1, tf.size(positions) + 1)
    size = tf.reshape(grid.positions + 1, [1])
    flat = tf.scatter_nd(positions[:, tf.newaxis], rows, size)
    return tf.reshape(flat[:-1], tf.stack(grid.shape))


def kernel_map(
    grid: Grid, inverse: tf.Tensor, corners: tf.Tensor, side: int = 1
) -> tf.Tensor:
    """Rows under a 3x3 kernel that visits cells of k x k positions.

    Args:
      grid: B, H, W.
      inverse: int32 or int64 [B, H, W], the inverse index.
      corners: of the same type, [t], the first position (top left) of each cell. What
        is said of nowhere means nothing.
      side: k.

    Returns:
      [t, (k + 2) ** 2], as the inverse index, line by line, zero beyond the edges.
    """
    padded = _with_margins(inverse, side)
    stride = grid.width + 1 + side
    lines, columns = grid.line_and_column(tf.minimum(corners, grid.positions - 1))
    # Every image adds its margins' lines to those before the cell's own.
    lines += lines // grid.height * (1 + side)
    reach = tf.range(side + 2, dtype=inverse.dtype)
    steps = tf.reshape(reach[:, tf.newaxis] * stride + reach, [1, -1])
    first = (lines * stride + columns)[:, tf.newaxis]
    return tf.gather(tf.reshape(padded, [-1]), first + steps)


def _with_margins(inverse, side):
    """Zeros around each image: one above and on the left, `side` below and right."""
    if inverse.dtype == tf.int32:
        return tf.pad(inverse, [[0, 0], [1, side], [1, side]])
    # A GPU pads no int64.
    for axis in (1, 2):
        shape = inverse.shape.as_list()
        before, behind = list(shape), list(shape)
        before[axis], behind[axis] = 1, side
        parts = [tf.zeros(before, inverse.dtype), inverse]
        inverse = tf.concat([*parts, tf.zeros(behind, inverse.dtype)], axis=axis)
    return inverse


def table(rows: tf.Tensor) -> tf.Tensor:
    """What a kernel map points into: a row of zeros, then the rows [n, C]."""
    return tf.pad(rows, [[1, 0], [0, 0]])
