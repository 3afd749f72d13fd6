"""Which positions of a block are still computed, and where their rows are."""

import functools
from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry import winograd
from sact_tf.geometry.buckets import bucket
from sact_tf.geometry.control_flow import conditional, outlined
from sact_tf.geometry.grid import Grid
from sact_tf.geometry.kernel_map import inverse_index, kernel_map
from sact_tf.geometry.maps import dilate


class Layout(NamedTuple):
    """How the active sets of a block are laid out.

    Attributes:
      grid: B, H, W.
      radius: how far residual units look, their number of 3x3 convolutions: 1 or 2.
      side: k, the side of the tiles; 1 for single positions.
      valid: bool [B, H, W], false where the map is padding, which is in no row; None
        for no padding.
      winograd: whether 3x3 convolutions may go by Winograd's algorithm.
      conditionals: whether the graph may have any. Without, gradients can be taken in
        graphs with loops, where TensorFlow's constant folding takes the number of rows
        before a conditional for that behind it.
      on_gpu: whether tables are made as a GPU can make them without the host; see
        tile_packing.
    """

    grid: Grid
    radius: int
    side: int = 1
    valid: tf.Tensor | None = None
    winograd: bool = False
    conditionals: bool = True
    on_gpu: bool = False

    def rows_for(self, cells, at_most) -> tf.Tensor:
        """Rows that a number of active cells are packed into: int32 scalar."""
        per_cell = self.side**2
        return tf.minimum(bucket(cells * per_cell, per_cell), at_most)

    def most_rows(self):
        """Rows of all cells of the grid."""
        grid, side = self.grid, self.side
        if side == 1:
            return grid.positions
        return grid.images * -(-grid.height // side) * -(-grid.width // side) * side**2


class ActiveSet(NamedTuple):
    """The rows of the computed cells, and behind them those of their halo.

    There are t cells, whose n = t * k * k positions are computed. What fills up a
    bucket comes last; it repeats the last cell, which keeps it as finite. The *halo* is
    halted positions close enough to a computed one to enter its convolutions, the
    nearest first. Its first and last rows stand for nothing: no part of it is ever
    empty, of which oneDNN's convolutions would give an output of the wrong shape.
    Indices are int32 (int64 with Layout.on_gpu).

    Attributes:
      cells: int32 [t], their numbers in the grid.
      positions: int32 [n], position of each row in the grid; nowhere for those beyond
        the edges (tiles at the border), and for repeated ones.
      nearest: int32 scalar, how many rows of the halo come before those that are two
        positions away from a computed one; () for radius 1, which has none.
      inverse: int32 [B, H, W], one plus the row of each position in rows and halo.
      kernel_map: int32 [t, (k + 2)**2], rows under a 3x3 kernel that visits each cell.
      halo_map: int32 [nearest, 9], the same for the nearest positions of the halo; ()
        for radius 1.
      tiles: winograd.WinogradTiles; () where not used.
      count: int32 scalar, n. Asked for instead of shapes: TensorFlow's constant folding
        takes the shape of what goes into a conditional for the shape of what comes out
        of it.
      distinct: int32 scalar, how many of the cells are not repeated ones.
    """

    cells: tf.Tensor
    positions: tf.Tensor
    nearest: tf.Tensor | tuple[()]
    inverse: tf.Tensor
    kernel_map: tf.Tensor
    halo_map: tf.Tensor | tuple[()]
    tiles: winograd.WinogradTiles | tuple[()]
    count: tf.Tensor
    distinct: tf.Tensor

    def shapes(self) -> "ActiveSet":
        """Shapes that hold for every size of the set."""

        def of_any_length(value):
            rest = value.shape[1:] if value.shape.rank else None
            return tf.TensorShape([] if rest is None else [None, *rest])

        shapes = tf.nest.map_structure(of_any_length, self)
        if self.tiles:
            around = tf.TensorShape([16, None])
            shapes = shapes._replace(tiles=shapes.tiles._replace(around=around))
        return shapes._replace(inverse=self.inverse.shape)


def select(
    layout: Layout, cells: tf.Tensor, at_most, like: tf.Tensor
) -> tuple[ActiveSet, tf.Tensor]:
    """The set of some cells.

    Args:
      layout: of the set.
      cells: int32 [t], numbers of cells in the grid, in order; at least one.
      at_most: rows that no set of this block exceeds.
      like: any float32 values [B, H, W] of the grid, for their shape. Not a constant:
        see control_flow.outlined.

    Returns:
      The set; and int32 [1 + h + 1], the positions of its halo, nowhere for rows that
      stand for nothing.
    """
    count = layout.rows_for(tf.size(cells), at_most)
    given = [cells, count, like]
    if layout.valid is not None:
        given.append(layout.valid)
    make = _selecting(
        layout.radius, layout.side, layout.winograd, layout.valid is not None
    )
    found, halo = make(*given)
    sizes = [size if isinstance(size, int) else None for size in layout.grid.shape]
    # The number of rows from here, where it is computed: see ActiveSet.
    return found._replace(
        count=count,
        distinct=tf.size(cells),
        inverse=tf.ensure_shape(found.inverse, sizes),
    ), halo


@functools.cache
def _selecting(radius, side, with_winograd, with_valid):
    """`select` as a function of tensors, traced once for all blocks and networks."""
    signature = [
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([], tf.int32),
        tf.TensorSpec([None, None, None], tf.float32),
    ]
    if with_valid:
        signature.append(tf.TensorSpec([None, None, None], tf.bool))

    @outlined(signature)
    def selecting(cells, count, like, valid=None):
        grid = Grid.of_sizes(*tf.unstack(tf.shape(like)))
        distinct = tf.size(cells)
        spare = count // side**2 - distinct
        cells = tf.concat([cells, tf.repeat(cells[-1:], spare)], axis=0)
        positions = grid.positions_of(cells, side)
        corners = positions if side == 1 else positions[:: side**2]
        exists = tf.range(count) < distinct * side**2
        if with_valid:
            flat_valid = tf.pad(tf.reshape(valid, [-1]), [[0, 1]])
            exists &= tf.gather(flat_valid, positions)
        positions = tf.where(exists, positions, grid.positions)
        inverse = inverse_index(grid, positions)
        computed = inverse > 0
        near = dilate(computed, 1)
        rings = [near & ~computed]
        if radius == 2:
            rings.append(dilate(computed, 2) & ~near)
        if with_valid:
            rings = [ring & valid for ring in rings]
        halo = []
        size = count  # Of all so far: with the rows in front each part fills a bucket.
        for ring in rings:
            where = tf.cast(tf.where(tf.reshape(ring, [-1]))[:, 0], tf.int32)
            # Nothing before the first ring and behind each, as much as is missing.
            before = 0 if halo else 1
            filled = size + before + tf.size(where)
            size = bucket(filled + 1)
            margins = [[before, size - filled]]
            halo.append(tf.pad(where, margins, constant_values=grid.positions))
        nearest = tf.size(halo[0]) if radius == 2 else ()
        halo = _joined(halo)
        inverse = inverse_index(grid, tf.concat([positions, halo], axis=0))
        halo_map, tiles = (), ()
        if radius == 2:
            halo_map = kernel_map(grid, inverse, halo[:nearest])
        if with_winograd:
            tiles = winograd.tiles(grid, inverse, positions)
        return ActiveSet(
            cells=cells,
            positions=positions,
            nearest=nearest,
            inverse=inverse,
            kernel_map=kernel_map(grid, inverse, corners, side),
            halo_map=halo_map,
            tiles=tiles,
            count=(),
            distinct=(),
        ), halo

    return selecting


def _joined(parts):
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)


def or_the_first(cells: tf.Tensor) -> tf.Tensor:
    """The same flags, bool [t], but the first one true where none is."""
    return cells | (tf.range(tf.size(cells)) == 0) & ~tf.reduce_any(cells)


def numbers_of(flags: tf.Tensor) -> tf.Tensor:
    """Where flags [t] are true: int32."""
    return tf.cast(tf.where(flags)[:, 0], tf.int32)


def rows_of(cells: tf.Tensor, side: int) -> tf.Tensor:
    """Rows of cells given by their place in the set: int32 [t * k * k]."""
    if side == 1:
        return cells
    rows = cells[:, tf.newaxis] * side**2 + tf.range(side**2)
    return tf.reshape(rows, [-1])


def sum_by_image(layout: Layout, rows: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Sums [B, C] of rows [n, C]; those of nowhere are in none."""
    grid = layout.grid
    image = positions // grid.map_size

    def product():
        of_image = tf.one_hot(image, grid.images, dtype=rows.dtype)
        return tf.matmul(of_image, rows, transpose_a=True)

    def by_segment():
        return tf.math.unsorted_segment_sum(rows, image, grid.images + 1)[:-1]

    # A segment sum gives every image to one core. With several of them it is fast
    # enough, and an image with infinite features does no harm to the others.
    if not layout.conditionals:
        return product()
    if isinstance(grid.images, int):
        return product() if grid.images == 1 else by_segment()
    return conditional(tf.equal(grid.images, 1), product, by_segment)
