"""Active positions, or active tiles, packed together (section 2.3).

The active set of a block only shrinks, so between two units nothing needs the map: two
matrices hold all that later units can ask for (see active_set). `rows` are the features
of the positions that are computed; `halo` those of halted positions close enough to an
active one to enter its convolutions, which change no more. A unit's 1x1 convolutions
are products of these matrices; for a 3x3 convolution every row finds its neighbours by
a kernel map, or, if there are many wide rows, every tile of 2x2, by Winograd's
algorithm.

When positions halt the rows that go on are gathered anew, and the output of those that
leave is written to the map of the block's output.
"""

from collections.abc import Callable

import tensorflow as tf

from sact_tf.geometry import active_set, packing, winograd
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.control_flow import (
    apart_from_convolutions,
    conditional,
    sum_of,
)
from sact_tf.geometry.filters import Filter
from sact_tf.geometry.kernel_map import table
from sact_tf.geometry.maps import ten_to_one
from sact_tf.geometry.packing import PackedState, alive_cells, as_rows, on_rows


class Packed:
    """At active positions, or in tiles with an active position, as rows.

    Features travel between the verbs as maps one position wide, [1, n', 1, C]: the rows
    that are computed, and behind them their halos.
    """

    def __init__(self, layout: Layout, state: PackedState):
        """See `from_map`."""
        self.layout, self.state = layout, state

    @classmethod
    def from_map(
        cls,
        layout: Layout,
        features: tf.Tensor,
        active: tf.Tensor,
        output: tf.Tensor | None = None,
        remainder: tf.Tensor | None = None,
    ) -> "Packed":
        """Packs the active positions of a map; see `packing.pack`."""
        return cls(layout, packing.pack(layout, features, active, output, remainder))

    def with_state(self, state: PackedState) -> "Packed":
        """The same geometry somewhere else in its block."""
        return Packed(self.layout, state)

    def shapes(self) -> PackedState:
        """Shapes that hold for every number of rows."""
        return self.state.shapes()

    @property
    def decisions_shape(self) -> tuple:
        """See Geometry."""
        return self.layout.grid.shape

    def features(self, radius: int) -> tf.Tensor:
        """See Geometry."""
        rows = self.state.rows
        if radius:
            rows = tf.concat([rows, self._halo(radius)], axis=0)
        return _as_map(rows)

    def convolve(
        self,
        features: tf.Tensor,
        filters: Filter,
        epilogue: Callable = tf.identity,
        radius: int = 1,
    ) -> tf.Tensor:
        """See Geometry."""
        packed, side = self.state.set, self.layout.side
        rows = as_rows(features)

        def by_tiles():
            outputs = winograd.convolve(rows, filters, packed.tiles)
            # As many images: batch norm shares them out to the cores.
            outputs = epilogue(outputs[:, tf.newaxis, tf.newaxis])
            return _as_map(as_rows(outputs))

        def by_neighbours():
            found = table(rows)
            outputs, maps = [], []
            if side > 1:
                tiles = tf.gather(found, packed.kernel_map)
                shape = [-1, side + 2, side + 2, found.shape[-1]]
                tiles = epilogue(filters.on_tiles(tf.reshape(tiles, shape)))
                outputs.append(_as_map(as_rows(tiles)))
            else:
                maps.append(packed.kernel_map)
            if radius == 2:
                maps.append(packed.halo_map)
            if maps:
                neighbours = tf.gather(found, _joined(maps, axis=0))
                shape = [1, -1, 1, 9 * found.shape[-1]]
                neighbours = tf.reshape(neighbours, shape)
                outputs.append(epilogue(filters.on_neighbours(neighbours)))
            return _joined(outputs, axis=1)

        if not packed.tiles:
            return by_neighbours()
        return conditional(packed.tiles.pay, by_tiles, by_neighbours)

    def add(self, residual: tf.Tensor) -> None:
        """See Geometry."""
        state = self.state
        values = apart_from_convolutions(residual)
        if self.layout.side > 1 or not self.layout.conditionals:
            values = state.alive * values
        else:
            # Idle rows there are only between two packings.
            idle = state.running < state.set.distinct
            values = conditional(idle, lambda: state.alive * values, lambda: values)
        self.state = state._replace(rows=sum_of(state.rows, values))

    def global_mean(self) -> tf.Tensor:
        """See Geometry."""
        total = self.state.halted_sum + self._sum_by_image(self.state.rows)
        return total / tf.cast(self._map_sizes(), total.dtype)

    def linear_score(self, kernel: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        """See Geometry."""
        packed, side = self.state.set, self.layout.side
        # The mean is over halted positions, too, which are not here.
        local_offset = tf.concat([offset[:9], [0.0]], axis=0)
        lowered = tf.cast(kernel, self.state.rows.dtype)
        numbers = [
            tf.cast(tf.matmul(piece, lowered, transpose_b=True), tf.float32)
            for piece in (self.state.rows, self._halo(1))
        ]
        around = table(tf.concat(numbers, axis=0) + local_offset)
        if side > 1:
            tiles = tf.gather(around, packed.kernel_map)
            tiles = tf.reshape(tiles, [-1, side + 2, side + 2, 10])
            local = tf.nn.conv2d(tiles, ten_to_one(tf.float32), 1, "VALID")
            local = tf.reshape(local, [-1])
        else:
            taps = packed.kernel_map * 10 + tf.range(9)
            local = tf.gather(tf.reshape(around, [-1]), taps)
            local = tf.reduce_sum(local, axis=1)
        total = self._sum_by_image(numbers[0][:, 9:])
        halted = tf.cast(self.state.halted_sum, tf.float32)
        total += tf.matmul(halted, kernel[9:], transpose_b=True)
        mean = total / tf.cast(self._map_sizes(), tf.float32) + offset[9]
        image = self.layout.grid.image_of(packed.positions)
        return self._on_map(local + tf.gather(mean[:, 0], image))

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """See Geometry."""
        image = self.layout.grid.image_of(self.state.set.positions)
        return _as_map(tf.gather(values, image))

    def decisions(self, values: tf.Tensor) -> tf.Tensor:
        """See Geometry."""
        return self._on_map(tf.reshape(values, [-1]))

    def halt(
        self,
        active: tf.Tensor,
        remainder: tf.Tensor | None = None,
        last: bool = False,
    ) -> None:
        """See Geometry. Rows that halt only become idle; `shrink` leaves them out."""
        del last
        state, positions = self.state, self.state.set.positions
        dtype = state.rows.dtype
        alive = on_rows(tf.reshape(active, [-1]), positions, dtype)
        if remainder is not None:
            remainder = tf.reshape(remainder, [-1])
            # The unit's probability p_l (eqn 9) is what the remainder has lost.
            probability = on_rows(state.remainder - remainder, positions, dtype)
            output = sum_of(state.output, probability * state.rows)
            state = state._replace(output=output, remainder=remainder)
        running = tf.math.count_nonzero(alive_cells(self.layout, alive), dtype=tf.int32)
        self.state = state._replace(alive=alive, running=running)

    def shrink(self) -> None:
        """Leaves out cells that have halted; what they leave behind is their output."""
        self.state = packing.shrink(self.layout, self.state)

    def leave(self) -> tf.Tensor:
        """See Geometry."""
        return packing.unpack(self.layout, self.state)

    def _halo(self, radius):
        state = self.state
        near = radius < self.layout.radius
        return state.halo[: state.set.nearest] if near else state.halo

    def _on_map(self, values):
        """Values [n] of the computed positions on a map of zeros [B, H, W]."""
        grid = self.layout.grid
        positions = self.state.set.positions[:, tf.newaxis]
        if self.layout.on_gpu:
            size = tf.constant([grid.positions + 1], positions.dtype)
        else:
            size = tf.reshape(grid.positions + 1, [1])
        flat = tf.scatter_nd(positions, values, size)
        return tf.reshape(flat[:-1], tf.stack(grid.shape))

    def _sum_by_image(self, rows):
        return active_set.sum_by_image(self.layout, rows, self.state.set.positions)

    def _map_sizes(self):
        """Positions of an image's map: a number, or one for each image [B, 1]."""
        valid = self.layout.valid
        if valid is None:
            return self.layout.grid.map_size
        count = tf.math.count_nonzero(valid, axis=[1, 2], dtype=tf.int32)
        return count[:, tf.newaxis]


def _as_map(rows):
    """Rows [n, C] as a map one position wide, on which units run as on any other."""
    return tf.reshape(rows, [1, -1, 1, rows.shape[-1]])


def _joined(parts, axis):
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=axis)
