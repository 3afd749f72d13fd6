"""Tiles packed on a GPU: the host is asked once, for how many there are.

The same tables as `active_set` makes, and the same rows as `packing`, in the same
order; but made as a GPU can make them without the host:

  - indices are int64: TensorFlow keeps int32 in the host's memory, and computes it
    there;
  - what is active is flags of the whole grid, [cells] and [B, H, W], until its sizes
    are known: one transfer of two or three numbers;
  - numbers of what is active come from running sums of flags, which need no size;
  - what leaves is found position by position: nothing depends on how many leave.

On a CPU the other way is faster: it only touches what is active.
"""

import tensorflow as tf

from sact_tf.geometry.active_set import ActiveSet, Layout, sum_by_image
from sact_tf.geometry.buckets import bucket
from sact_tf.geometry.compaction import INDEX, numbers, running_sum
from sact_tf.geometry.grid import Grid
from sact_tf.geometry.kernel_map import kernel_map
from sact_tf.geometry.maps import dilate


def select(layout: Layout, cells: tf.Tensor, at_most) -> tuple[ActiveSet, tf.Tensor]:
    """The set of some cells; see active_set.select.

    Args:
      layout: of the set, without Winograd's tiles; its grid is of integers.
      cells: bool [cells], which cells of the grid; true somewhere.
      at_most: rows that no set of this block exceeds.

    Returns:
      The set; and int64 [1 + h + 1], the positions of its halo.
    """
    grid, side = layout.grid, layout.side
    computed = _positions_in(grid, cells, side)
    if layout.valid is not None:
        computed &= layout.valid
    near = dilate(computed, 1)
    rings = [near & ~computed]
    if layout.radius == 2:
        rings.append(dilate(computed, 2) & ~near)
    if layout.valid is not None:
        rings = [ring & layout.valid for ring in rings]
    flags = [cells, *(tf.reshape(ring, [-1]) for ring in rings)]
    running = [running_sum(flag) for flag in flags]
    # What the host waits for.
    counts = tf.unstack(tf.cast(tf.stack([sums[-1] for sums in running]), tf.int32))
    distinct = counts[0]
    count = layout.rows_for(distinct, at_most)
    chosen = numbers(running[0], count // side**2)
    positions = grid.positions_of(chosen, side)
    # The last cell is repeated up to the bucket's size, in rows of nowhere.
    rows = distinct * side**2
    exists = tf.concat([tf.fill([rows], True), tf.fill([count - rows], False)], axis=0)
    if layout.valid is not None:
        flat_valid = tf.reshape(layout.valid, [-1])
        exists &= tf.gather(flat_valid, _inside(grid, positions))
    nowhere = tf.cast(grid.positions, INDEX)
    positions = tf.where(exists, positions, nowhere)
    halo, size = [], count
    for sums, found in zip(running[1:], counts[1:], strict=True):
        before = 0 if halo else 1
        filled = size + before + found
        size = bucket(filled + 1)
        here = numbers(sums, found)
        parts = [tf.fill([before], nowhere)] if before else []
        halo += [*parts, here, tf.fill([size - filled], nowhere)]
        if len(halo) == 3:
            nearest = size - count
    halo_positions = tf.concat(halo, axis=0)
    if layout.radius == 1:
        nearest = ()
    inverse = _inverse(grid, tf.concat([positions, halo_positions], axis=0))
    halo_map = ()
    if layout.radius == 2:
        halo_map = kernel_map(grid, inverse, halo_positions[:nearest])
    return ActiveSet(
        cells=chosen,
        positions=positions,
        nearest=nearest,
        inverse=inverse,
        kernel_map=kernel_map(grid, inverse, positions[:: side**2], side),
        halo_map=halo_map,
        tiles=(),
        count=count,
        distinct=distinct,
    ), halo_positions


def cells_of(layout: Layout, alive: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Which cells of the grid have an active row: bool [cells].

    Args:
      layout: of the rows.
      alive: [n, 1], one where a row is active.
      positions: int64 [n], of each row.
    """
    grid = layout.grid
    size = tf.constant([grid.positions + 1], INDEX)
    flat = tf.scatter_nd(positions[:, tf.newaxis], alive[:, 0], size)[:-1] > 0
    return grid.any_in_cell(tf.reshape(flat, grid.shape), layout.side)


def moved(
    before: ActiveSet, after: ActiveSet, rows: tf.Tensor, grid: Grid
) -> tf.Tensor:
    """Rows [n, C] of a set as those of a smaller one; those of nowhere are any."""
    source = tf.reshape(before.inverse, [-1])
    source = tf.gather(source, _inside(grid, after.positions))
    last = tf.cast(before.count, INDEX) - 1
    return tf.gather(rows, tf.clip_by_value(source - 1, tf.zeros([], INDEX), last))


def halo_of(
    before: ActiveSet,
    rows: tf.Tensor,
    halo: tf.Tensor,
    positions: tf.Tensor,
    grid: Grid,
) -> tf.Tensor:
    """The halo of a smaller set: from rows that have halted, or the halo before.

    Args:
      before: the set that there was.
      rows: [n, C], its rows.
      halo: [1 + h + 1, C], its halo.
      positions: int64, of the new halo.
      grid: of all positions.
    """
    source = tf.reshape(before.inverse, [-1])
    source = tf.gather(source, _inside(grid, positions)) - 1
    everything = tf.concat([rows, halo], axis=0)
    # Of nowhere, whatever is first in the halo.
    return tf.gather(everything, tf.maximum(source, tf.zeros([], INDEX)))


def sum_of_leaving(
    layout: Layout, rows: tf.Tensor, before: ActiveSet, after: ActiveSet
) -> tf.Tensor:
    """Sums [B, C] of the rows that are in the first set alone."""
    grid = layout.grid
    nowhere = tf.cast(grid.positions, INDEX)
    there = tf.reshape(after.inverse, [-1])
    there = tf.gather(there, _inside(grid, before.positions))
    stays = (there > 0) & (there <= tf.cast(after.count, INDEX))
    left = tf.where(stays, nowhere, before.positions)
    return sum_by_image(layout, rows, left)


def finished(
    grid: Grid, found: ActiveSet, outputs: tf.Tensor, before: tf.Tensor
) -> tf.Tensor:
    """The block's output so far, with the rows' where they are.

    Also where a row goes on: what is written there is written over when it leaves.

    Args:
      grid: of all positions.
      found: the set of the rows.
      outputs: [n, C], of the rows.
      before: [B * H * W, C], the output so far.
    """
    source = tf.reshape(found.inverse, [-1])
    last = tf.cast(found.count, INDEX)
    has_row = (source > 0) & (source <= last)
    source = tf.clip_by_value(source - 1, tf.zeros([], INDEX), last - 1)
    return tf.where(has_row[:, tf.newaxis], tf.gather(outputs, source), before)


def _positions_in(grid, cells, side):
    """Which positions are in some cells [cells]: bool [B, H, W]."""
    if side == 1:
        return tf.reshape(cells, grid.shape)
    down, across = -(-grid.height // side), -(-grid.width // side)
    shape = [grid.images, down, 1, across, 1]
    wide = [grid.images, down, side, across, side]
    # Numbers: flags cannot be broadcast on every device.
    cells = tf.cast(tf.reshape(cells, shape), tf.float32)
    whole = tf.reshape(
        tf.broadcast_to(cells, wide), [grid.images, down * side, across * side]
    )
    return whole[:, : grid.height, : grid.width] > 0


def _inverse(grid, positions):
    """One plus the row of every position, zero where there is none: int64 [B, H, W]."""
    rows = tf.range(tf.size(positions, out_type=INDEX)) + 1
    size = tf.constant([grid.positions + 1], INDEX)
    flat = tf.scatter_nd(positions[:, tf.newaxis], rows, size)
    return tf.reshape(flat[:-1], grid.shape)


def _inside(grid, positions):
    """Positions, with the last one for nowhere."""
    return tf.minimum(positions, tf.cast(grid.positions - 1, INDEX))
