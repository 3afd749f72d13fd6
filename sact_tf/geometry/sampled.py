"""Given positions of a map as rows: gathered, convolved, and scattered onto zeros."""

from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry.buckets import bucket
from sact_tf.geometry.filters import Filter
from sact_tf.geometry.grid import Grid
from sact_tf.geometry.kernel_map import inverse_index, kernel_map, table


class Sampled(NamedTuple):
    """Some positions of a grid. Rows travel as maps one position wide, [1, n, 1, C].

    Attributes:
      grid: B, H, W.
      positions: int32 [n], in order; what fills up a bucket is nowhere, and comes last.
    """

    grid: Grid
    positions: tf.Tensor

    @classmethod
    def of(cls, kept: tf.Tensor) -> "Sampled":
        """The positions where a mask, bool [B, H, W], is true."""
        grid = Grid.of(kept[..., tf.newaxis])
        positions = tf.cast(tf.where(tf.reshape(kept, [-1]))[:, 0], tf.int32)
        # At least one row: oneDNN gives outputs of the wrong shape of none.
        missing = bucket(tf.maximum(tf.size(positions), 1)) - tf.size(positions)
        filled = tf.pad(positions, [[0, missing]], constant_values=grid.positions)
        return cls(grid, filled)

    def rows(self, maps: tf.Tensor) -> tf.Tensor:
        """Gathers from maps [B, H, W, C]; of nowhere the last position."""
        flat = tf.reshape(maps, [-1, maps.shape[-1]])
        # Never a position that does not exist.
        rows = tf.gather(flat, tf.minimum(self.positions, self.grid.positions - 1))
        return rows[tf.newaxis, :, tf.newaxis]

    def convolve(self, maps: tf.Tensor, filters: Filter, stride: int = 1) -> tf.Tensor:
        """A 3x3 convolution of whole maps, at these positions of its output only.

        Args:
          maps: [B, H * stride, W * stride, C] (rounded down, or up by less than one);
            zeros beyond the edges, one line and column on all sides.
          filters: [3, 3, C, C'].
          stride: of the convolution.
        """
        inputs = Grid.of(maps)
        centres = tf.minimum(self.positions, self.grid.positions - 1)
        if stride > 1:
            lines, columns = self.grid.line_and_column(centres)
            image, line = lines // self.grid.height, lines % self.grid.height
            centres = (image * inputs.height + line * stride) * inputs.width
            centres += columns * stride
        everywhere = tf.range(1, inputs.positions + 1)
        everywhere = tf.reshape(everywhere, tf.stack(inputs.shape))
        around = kernel_map(inputs, everywhere, centres)
        found = table(tf.reshape(maps, [-1, maps.shape[-1]]))
        neighbours = tf.gather(found, around)
        shape = [1, -1, 1, 9 * found.shape[-1]]
        return filters.on_neighbours(tf.reshape(neighbours, shape))

    def on_map(self, rows: tf.Tensor) -> tf.Tensor:
        """Rows [1, n, 1, C] at their positions, zeros elsewhere: [B, H, W, C]."""
        inverse = inverse_index(self.grid, self.positions)
        maps = tf.gather(table(tf.reshape(rows, [-1, rows.shape[-1]])), inverse)
        sizes = [size if isinstance(size, int) else None for size in self.grid.shape]
        return tf.ensure_shape(maps, [*sizes, rows.shape[-1]])
