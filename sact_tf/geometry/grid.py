"""The positions of a batch of maps as numbers, and the cells that they form."""

from typing import NamedTuple

import tensorflow as tf


class Grid(NamedTuple):
    """Height and width of a batch of maps.

    A position is one number: (image * height + y) * width + x. The number after the
    last position stands for *nowhere*: beyond the edges, or in the padding.

    A cell is a tile of k x k positions, or with k = 1 one position. Cells are numbered
    in the same way; the last ones of a line may reach beyond the edges.

    Attributes:
      images, height, width: integers where they are known, else int32 scalars.
      map_size: positions of one image's map.
      positions: positions in all; also the number that stands for nowhere.
    """

    images: int | tf.Tensor
    height: int | tf.Tensor
    width: int | tf.Tensor
    map_size: int | tf.Tensor
    positions: int | tf.Tensor

    @classmethod
    def of_sizes(cls, images, height, width) -> "Grid":
        """The grid of so many maps of one size."""
        map_size = height * width
        return cls(images, height, width, map_size, images * map_size)

    @classmethod
    def of(cls, maps: tf.Tensor) -> "Grid":
        """The grid of maps [B, H, W, C]."""
        known = maps.shape[:3].as_list()
        if None not in known:
            return cls.of_sizes(*known)
        sizes = tf.unstack(tf.shape(maps)[:3])
        return cls.of_sizes(*(k or size for k, size in zip(known, sizes, strict=True)))

    @property
    def shape(self) -> tuple:
        """(B, H, W)."""
        return self[:3]

    def with_channels(self, rows: tf.Tensor) -> tf.Tensor:
        """Rows [B * H * W, C], one for every position, as maps [B, H, W, C]."""
        return tf.reshape(rows, tf.stack([*self.shape, rows.shape[-1]]))

    def image_of(self, positions: tf.Tensor) -> tf.Tensor:
        """Image of each position; of nowhere the last one."""
        return tf.minimum(positions // self.map_size, self.images - 1)

    def line_and_column(self, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Line of each position, counted through all images, and its column."""
        return positions // self.width, positions % self.width

    def any_in_cell(self, mask: tf.Tensor, side: int) -> tf.Tensor:
        """Whether a mask [B, H, W] is true anywhere in each cell: bool [cells]."""
        if side == 1:
            return tf.reshape(mask, [-1])
        bottom, right = -self.height % side, -self.width % side
        mask = tf.pad(mask, [[0, 0], [0, bottom], [0, right]])
        down, across = (self.height + bottom) // side, (self.width + right) // side
        tiles = tf.reshape(mask, tf.stack([self.images, down, side, across, side]))
        return tf.reshape(tf.reduce_any(tiles, axis=[2, 4]), [-1])

    def positions_of(self, cells: tf.Tensor, side: int) -> tf.Tensor:
        """Positions of cells [t], one cell after the other: integers [t * k * k]."""
        if side == 1:
            return cells
        down, across = -(-self.height // side), -(-self.width // side)
        image, cell = cells // (down * across), cells % (down * across)
        reach = tf.range(side, dtype=cells.dtype)
        y = (cell // across * side)[:, tf.newaxis] + reach
        x = (cell % across * side)[:, tf.newaxis] + reach
        first = (image * self.map_size)[:, tf.newaxis, tf.newaxis]
        y, x = y[:, :, tf.newaxis], x[:, tf.newaxis]
        inside = (y < self.height) & (x < self.width)
        positions = tf.where(inside, first + y * self.width + x, self.positions)
        return tf.reshape(positions, [-1])
