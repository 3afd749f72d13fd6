"""From a map to rows, to fewer rows, and back: the state of packed positions.

All are pure functions of what is packed; `packed.Packed` has the verbs in between.
"""

from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry import active_set, tile_packing
from sact_tf.geometry.active_set import ActiveSet, Layout
from sact_tf.geometry.control_flow import sum_of
from sact_tf.geometry.maps import without_padding


class PackedState(NamedTuple):
    """What changes from unit to unit; see ActiveSet for n, t and h.

    Attributes:
      set: which positions are computed, and where their rows are.
      rows: [n, C], their features.
      halo: [1 + h + 1, C], features of halted positions around, which change no more.
      output: [n, C], the output so far, p_1 x_1 + ... + p_l x_l for the units with a
        halting score (eqn 10); () where masks are given, and the features are it.
      alive: [n, 1], one where the position is active, in the type of the features.
      running: int32 scalar, cells of the set that are active.
      remainder: float32 [B * H * W], what the halting scores so far have left, zero
        where nothing is active; () where masks are given.
      halted_sum: [B, C], sum of the features of the positions that are in no row.
      finished: [B * H * W, C], the block's output where a position has left the rows.
    """

    set: ActiveSet
    rows: tf.Tensor
    halo: tf.Tensor
    output: tf.Tensor | tuple[()]
    alive: tf.Tensor
    running: tf.Tensor
    remainder: tf.Tensor | tuple[()]
    halted_sum: tf.Tensor
    finished: tf.Tensor

    def shapes(self) -> "PackedState":
        """Shapes that hold for every number of rows."""
        any_rows = tf.TensorShape([None, self.rows.shape[-1]])
        return PackedState(
            set=self.set.shapes(),
            rows=any_rows,
            halo=any_rows,
            output=() if isinstance(self.output, tuple) else any_rows,
            alive=tf.TensorShape([None, 1]),
            running=tf.TensorShape([]),
            remainder=tf.nest.map_structure(lambda x: x.shape, self.remainder),
            halted_sum=self.halted_sum.shape,
            finished=self.finished.shape,
        )


def pack(
    layout: Layout,
    features: tf.Tensor,
    active: tf.Tensor,
    output: tf.Tensor | None = None,
    remainder: tf.Tensor | None = None,
) -> PackedState:
    """Gathers the active positions of a map.

    Args:
      layout: how.
      features: [B, H, W, C].
      active: bool [B, H, W]; true somewhere, unless the layout has no conditionals.
      output: [B, H, W, C], the output so far in the form of Dense. None where masks
        are given: the features are it.
      remainder: float32 [B, H, W], what the scores so far have left, zero where
        nothing is active. None with the output.
    """
    grid = layout.grid
    flat = as_rows(features)
    cells = grid.any_in_cell(active, layout.side)
    if not layout.conditionals:
        cells = active_set.or_the_first(cells)
    if layout.on_gpu:
        found, halo = tile_packing.select(layout, cells, layout.most_rows())
    else:
        chosen = active_set.numbers_of(cells)
        like = tf.cast(features[..., 0], tf.float32) if remainder is None else remainder
        found, halo = active_set.select(layout, chosen, layout.most_rows(), like)
    # Of nowhere the last position's features: as finite as any.
    here = tf.minimum(found.positions, grid.positions - 1)
    rows = tf.gather(flat, here)
    finished, weighted = flat, ()
    if output is not None:
        finished = as_rows(output)
        remainder = tf.reshape(remainder, [-1])
        left = on_rows(remainder, found.positions, rows.dtype)
        # From x_1 + sum r_l f_l to the sum of p_l x_l.
        weighted = sum_of(tf.gather(finished, here), -left * rows)
    return PackedState(
        set=found,
        rows=rows,
        halo=tf.gather(flat, tf.minimum(halo, grid.positions - 1)),
        output=weighted,
        alive=on_rows(tf.reshape(active, [-1]), found.positions, rows.dtype),
        running=found.distinct,
        remainder=() if remainder is None else remainder,
        halted_sum=_sum_of_others(layout, features, found),
        finished=finished,
    )


def shrink(layout: Layout, state: PackedState) -> PackedState:
    """Leaves out cells that have halted; what they leave behind is their output."""
    if layout.on_gpu:
        return _shrink_on_gpu(layout, state)
    before, grid, side = state.set, layout.grid, layout.side
    cells = alive_cells(layout, state.alive)
    if not layout.conditionals:
        cells = active_set.or_the_first(cells)
    kept = active_set.numbers_of(cells)
    like = tf.cast(before.inverse, tf.float32)
    after, halo = active_set.select(
        layout, tf.gather(before.cells, kept), before.count, like
    )
    repeated = tf.repeat(kept[-1:], tf.size(after.cells) - after.distinct)
    kept = active_set.rows_of(tf.concat([kept, repeated], axis=0), side)
    leaves = ~cells if side == 1 else tf.repeat(~cells, side**2)
    leaves &= before.positions < grid.positions
    left = tf.where(leaves, before.positions, grid.positions)
    # Halo comes from rows that have halted now, or from the halo that there was.
    source = tf.reshape(before.inverse, [-1])
    source = tf.gather(source, tf.minimum(halo, grid.positions - 1)) - 1
    in_rows = source < before.count
    halo = tf.where(
        in_rows[:, tf.newaxis],
        tf.gather(state.rows, tf.clip_by_value(source, 0, before.count - 1)),
        tf.gather(state.halo, tf.maximum(source - before.count, 0)),
    )
    output = state.output
    return state._replace(
        set=after,
        rows=tf.gather(state.rows, kept),
        halo=halo,
        output=output if isinstance(output, tuple) else tf.gather(output, kept),
        alive=tf.gather(state.alive, kept),
        running=after.distinct,
        halted_sum=state.halted_sum + active_set.sum_by_image(layout, state.rows, left),
        finished=_finished(state, leaves),
    )


def _shrink_on_gpu(layout, state):
    """The same without the host, but for the number of the cells."""
    before, grid, output = state.set, layout.grid, state.output
    cells = tile_packing.cells_of(layout, state.alive, before.positions)
    after, halo = tile_packing.select(layout, cells, before.count)

    def moved(rows):
        return tile_packing.moved(before, after, rows, grid)

    given = isinstance(output, tuple)
    here = (after.positions < grid.positions)[:, tf.newaxis]
    alive = moved(state.alive)
    return state._replace(
        set=after,
        rows=moved(state.rows),
        halo=tile_packing.halo_of(before, state.rows, state.halo, halo, grid),
        output=output if given else moved(output),
        alive=tf.where(here, alive, tf.zeros_like(alive)),
        running=after.distinct,
        halted_sum=state.halted_sum
        + tile_packing.sum_of_leaving(layout, state.rows, before, after),
        finished=_finished_on_gpu(layout, state),
    )


def _finished_on_gpu(layout, state):
    outputs = state.rows if isinstance(state.output, tuple) else state.output
    return tile_packing.finished(layout.grid, state.set, outputs, state.finished)


def unpack(layout: Layout, state: PackedState) -> tf.Tensor:
    """Scatters what is left: the block's output [B, H, W, C] (eqn 10)."""
    if not isinstance(state.output, tuple):
        left = on_rows(state.remainder, state.set.positions, state.rows.dtype)
        output = sum_of(state.output, left * state.rows)
        state = state._replace(output=output)
    if layout.on_gpu:
        finished = _finished_on_gpu(layout, state)
    else:
        finished = _finished(state, state.set.positions < layout.grid.positions)
    return without_padding(layout.grid.with_channels(finished), layout.valid)


def _finished(state, rows):
    """What is finished, and the output of some rows, bool [n], scattered into it."""
    rows = tf.where(rows)[:, 0]
    outputs = state.rows if isinstance(state.output, tuple) else state.output
    return tf.tensor_scatter_nd_update(
        state.finished,
        tf.gather(state.set.positions, rows)[:, tf.newaxis],
        tf.gather(outputs, rows),
    )


def alive_cells(layout: Layout, alive: tf.Tensor) -> tf.Tensor:
    """Which cells have an active position, of flags [n, 1]: bool [t]."""
    if layout.side == 1:
        return alive[:, 0] > 0
    return tf.reduce_any(tf.reshape(alive > 0, [-1, layout.side**2]), axis=1)


def on_rows(values: tf.Tensor, positions: tf.Tensor, dtype) -> tf.Tensor:
    """Values [B * H * W] for every row: [n, 1], zero for those of nowhere."""
    values = tf.gather(tf.pad(values, [[0, 1]]), positions)
    return tf.cast(values, dtype)[:, tf.newaxis]


def as_rows(maps: tf.Tensor) -> tf.Tensor:
    """Maps [..., C] as rows [n, C]."""
    return tf.reshape(maps, [-1, maps.shape[-1]])


def _sum_of_others(layout, maps, found):
    """Sum [B, C] of maps [B, H, W, C] over positions that are in no row."""
    others = (found.inverse == 0) | (
        found.inverse > tf.cast(found.count, found.inverse.dtype)
    )
    if layout.valid is not None:
        others &= layout.valid
    shape = tf.shape(maps)
    weights = tf.reshape(tf.cast(others, maps.dtype), [shape[0], 1, -1])
    rows = tf.reshape(maps, [shape[0], -1, maps.shape[-1]])
    return tf.matmul(weights, rows)[:, 0]
