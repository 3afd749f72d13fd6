"""Winograd's F(2 x 2, 3 x 3) (Lavin and Gray, 2016), for rows and for maps.

A tile of 2x2 outputs of a 3x3 convolution takes 16 products of its 4x4 inputs instead
of 36. Rows must find their neighbours anyway, so gathering 4x4 of them costs hardly
more memory traffic than gathering 3x3 for each output.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sact_tf.geometry.buckets import bucket
from sact_tf.geometry.filters import Filter
from sact_tf.geometry.grid import Grid
from sact_tf.geometry.kernel_map import kernel_map, table

# By numbers, in order: of the 4x4 inputs, of the kernel, and of the products; both
# dimensions of a map at once.
_INPUTS, _KERNEL, _OUTPUTS = (
    np.kron(matrix, matrix).astype(np.float32)
    for matrix in (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    )
)

#: Channels from which on it may pay. With 128 the additions before and behind its
#: products take as long as the products that it saves.
LEAST_WIDTH = 256
#: Time of one of its products, with those additions, over that of a direct
#: convolution's product (of one row of inputs by one place of the kernel); and of what
#: it takes in any case, mostly for the kernel. Measured with 256 channels.
PRODUCT = 1.25
FIXED = 1500.0


class WinogradTiles(NamedTuple):
    """Where tiles of 2x2 positions find their inputs, and rows their outputs.

    Attributes:
      around: int32 [16, q], for every place of the 4x4 positions of and around a tile
        with a computed position, one plus the row there (zero: none).
      row_in: int32 [n], for every row which of the [4 * q] outputs is its own.
      pay: bool scalar, whether that takes less time than nine neighbours for each row.
    """

    around: tf.Tensor
    row_in: tf.Tensor
    pay: tf.Tensor


def may_pay(width: int) -> bool:
    """Whether 3x3 convolutions of so many channels may gain."""
    return width >= LEAST_WIDTH


def tiles(grid: Grid, inverse: tf.Tensor, positions: tf.Tensor) -> WinogradTiles:
    """The tiles of 2x2 positions that some positions are in.

    Args:
      grid: B, H, W.
      inverse: int32 [B, H, W], the inverse index (see kernel_map).
      positions: int32 [n], of the rows whose outputs are wanted.
    """
    down, across = (grid.height + 1) // 2, (grid.width + 1) // 2
    line, x = grid.line_and_column(positions)
    image, y = line // grid.height, line % grid.height
    # Rows of nowhere, beyond the last image, belong to one tile too many.
    tile = (image * down + y // 2) * across + x // 2
    size = tf.reshape(grid.images * down * across + 1, [1])
    used = tf.scatter_nd(tile[:, tf.newaxis], tf.ones_like(tile), size)
    chosen = tf.cast(tf.where(used[:-1] > 0), tf.int32)
    found = tf.shape(chosen)[0]
    count = bucket(found)
    order = tf.scatter_nd(chosen, tf.range(found), size)
    within, line = chosen[:, 0] % across, chosen[:, 0] // across
    image, line = line // down, line % down
    corners = (image * grid.height + 2 * line) * grid.width + 2 * within
    around = tf.transpose(kernel_map(grid, inverse, corners, 2))
    products = PRODUCT * 16 * tf.cast(count, tf.float32) + FIXED
    return WinogradTiles(
        around=tf.pad(around, [[0, 0], [0, count - found]]),
        row_in=(y % 2 * 2 + x % 2) * count + tf.gather(order, tile),
        pay=products < 9.0 * tf.cast(tf.size(positions), tf.float32),
    )


def whole_map_pays(images, height, width) -> bool:
    """Whether `tiles` of all positions of maps would pay; sizes are integers."""
    count = images * -(-height // 2) * -(-width // 2)
    return PRODUCT * 16 * count + FIXED < 9.0 * images * height * width


def convolve(rows: tf.Tensor, filters: Filter, tiles: WinogradTiles) -> tf.Tensor:
    """A 3x3 convolution of rows that find their neighbours by tiles.

    Args:
      rows: [m, C], all that the tiles point to.
      filters: [3, 3, C, C'].
      tiles: see `tiles`.

    Returns:
      [n, C'], for each row whose outputs were wanted.
    """
    gathered = tf.gather(table(rows), tiles.around)
    outputs = tf.reshape(
        convolve_tiles(gathered, filters), [-1, filters.kernel.shape[3]]
    )
    outputs = tf.gather(outputs, tiles.row_in)
    return outputs if filters.bias is None else outputs + filters.bias


def convolve_tiles(inputs: tf.Tensor, filters: Filter) -> tf.Tensor:
    """Four outputs of each tile from 16 products, without the bias.

    Args:
      inputs: [16, q, C], tiles with their surroundings, place by place.
      filters: [3, 3, C, C'].

    Returns:
      [4, q, C'].
    """
    channels, outputs = filters.kernel.shape[2:]
    kernel = tf.reshape(filters.kernel, [9, channels * outputs])
    kernel = tf.reshape(tf.matmul(_KERNEL, kernel), [16, channels, outputs])
    inputs = tf.matmul(_INPUTS, tf.reshape(inputs, [16, -1]))
    products = tf.matmul(tf.reshape(inputs, [16, -1, channels]), kernel)
    values = tf.matmul(_OUTPUTS, tf.reshape(products, [16, -1]))
    return tf.reshape(values, [4, -1, outputs])
