"""Active positions, or active tiles, packed together (section 2.3).

The active set of a block only shrinks, so between two units nothing needs the map: two
matrices hold all that later units can ask for. `rows` are the features of the positions
that are computed; `ring` those of halted positions close enough to an active one to
enter its convolutions, which change no more. A unit's 1x1 convolutions are products of
these matrices; for a 3x3 convolution every row finds its neighbours by a table, or, if
there are many wide rows, every square of 2x2, by Winograd's algorithm.

When positions halt the rows that go on are gathered anew (once per unit in which
something halts, and not at all otherwise), and the output of those that leave is put
aside. The map is written once, at the end of the block.

The output, the sum of p_l x_l (eqn 10), is kept as just that. As long as the rows are
the whole map, some of them masked, it is kept as Dense does, which passes over the map
less often: what the scores have left is given to the newest features.

oneDNN compiles code for every shape that it meets, which takes as long as a convolution
of some hundred rows. So both matrices only come in a few sizes, a few per cent apart;
what is missing is filled up with *spare* rows that nobody asks for.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sact_tf.geometry.calibration import (
    WINOGRAD_FIXED,
    WINOGRAD_PRODUCT,
    PackingCost,
)
from sact_tf.geometry.maps import (
    dilate,
    linear_score,
    ten_to_one,
)

#: Sizes of matrices: up to 256 they are multiples of 8; then every octave has 16.
_SIZES = np.concatenate(
    [np.arange(0, 256, 8), *(np.arange(16, 32) << octave for octave in range(4, 26))]
).astype(np.int32)


class _Squares(NamedTuple):
    """Where Winograd's 3x3 convolution finds its inputs, and the rows their outputs.

    Attributes:
      around: int32 [16, q], for every place of the 4x4 positions of and around a square
        of 2x2, and for every square with a computed position, one plus the row there.
      row_in: int32 [n], for every row which of the [4 * q] outputs is its own.
      pay: bool scalar, whether that takes less time than nine neighbours for each row.
    """

    around: tf.Tensor
    row_in: tf.Tensor
    pay: tf.Tensor


class _State(NamedTuple):
    """What halting changes. A *cell* is a tile of k x k positions, or one position.

    Attributes:
      rows: [n, C] features of the positions of all computed cells, n = t * k * k.
        Spare rows come last. They repeat others, so that they are as finite as these.
      output: [n, C] their output so far, p_1 x_1 + ... + p_l x_l for the units with a
        halting score (eqn 10), plus r_l x_l, r_l what these scores have left, while the
        rows are the whole map; None before the first, and where masks are given.
      places: int32 [n] position of each row in the map, B * H * W for those that lie
        beyond its edges (tiles at the border), and for spare rows.
      alive: [n, 1] one where the position is active, in the type of the features.
      ring: [1 + r + 1, C] features of halted positions around, the nearest first.
        Its first and last rows stand for nothing: no part of it is ever empty, of
        which oneDNN's convolutions would give an output of the wrong shape.
      ring_places: int32 [1 + r + 1].
      nearest: int32 scalar, how many rows of the ring come before those that are two
        positions away from a computed one.
      row_of: int32 [B * H * W] one plus the row of each position in [rows; ring]; zero
        for positions that are in neither.
      halos: int32 [t, (k + 2)**2] the same for each cell and its surroundings.
      ring_halos: int32 [nearest, 9] the same for the nearest positions of the ring.
      squares: _Squares, the same by squares of 2x2 positions; () where not used.
      halted_sum: [B, C] sum of the features of the positions that are in no row.
      count: int32 scalar, n. Asked for instead of the shape of `rows`: TensorFlow's
        constant folding takes the shape of what goes into a conditional for the shape
        of what comes out of it.
      active: int32 scalar, cells that were active when the rows were last packed.
      idle: float32 scalar, rows that units ran on in vain since they were last packed.
    """

    rows: tf.Tensor
    output: tf.Tensor
    places: tf.Tensor
    alive: tf.Tensor
    ring: tf.Tensor
    ring_places: tf.Tensor
    nearest: tf.Tensor
    row_of: tf.Tensor
    halos: tf.Tensor
    ring_halos: tf.Tensor
    squares: _Squares | tuple[()]
    halted_sum: tf.Tensor
    count: tf.Tensor
    active: tf.Tensor
    idle: tf.Tensor


class Packed:
    """The active positions or tiles of a batch, as rows; see Dense for the verbs."""

    def __init__(
        self,
        features: tf.Tensor,
        radius: int,
        side: int = 1,
        packing: PackingCost | None = None,
        real: tf.Tensor | None = None,
        conditionals: bool = True,
        winograd: bool = False,
    ):
        """Enters with a map of which every position is active.

        Args:
          features: [B, H, W, C], what the block's first unit gave.
          radius: how far the residual units look: their number of 3x3 convolutions.
          side: k, the side of the tiles; 1 for single positions.
          packing: what packing costs. What has halted is masked until the units that
            ran on it in vain have cost as much, and for good where those that follow
            would not. If None, everything is packed at once.
          real: bool [B, H, W], false where the map is padding, which is in no row; None
            for no padding.
          conditionals: whether to save work where nothing halts, nothing is active or
            nothing is packed yet. Without, gradients can be taken in graphs with loops,
            where TensorFlow's constant folding takes the number of rows before a
            conditional for that behind it.
          winograd: whether 3x3 convolutions of many rows may take fewer products, by
            Winograd's algorithm. Only for radius 1, single positions, conditionals and
            float32; ignored otherwise.
        """
        shape = tf.shape(features)
        self._images, self._height, self._width = shape[0], shape[1], shape[2]
        self._map_size = self._height * self._width
        self._positions = self._images * self._map_size
        self._channels = features.shape[-1]
        self._radius, self._side, self._packing = radius, side, packing
        self._real = real
        self._conditionals = conditionals
        self._winograd = (
            winograd
            and (side, radius, conditionals) == (1, 1, True)
            and features.dtype == tf.float32
        )
        self._finished = []
        self._has_idle_rows = tf.constant(side > 1 or not conditionals)
        self._remainder = None
        self._last = False
        self._known_whole = None  # Inside of a conditional that asked for it.
        self._running = tf.constant(True)  # Whether any position is active.
        self._prepare_halos()
        places = self._all_places()
        rows = tf.reshape(features, [self._positions, self._channels])
        if real is not None:
            places = self._leave_padding(places, rows)
        if real is not None or side > 1:
            rows = tf.gather(tf.pad(rows, [[0, 1], [0, 0]]), places)
        row_of = self._row_of(places)
        self._state = _State(
            rows=rows,
            output=None,
            places=places,
            alive=tf.cast(places < self._positions, rows.dtype)[:, tf.newaxis],
            ring=tf.zeros([2, self._channels], rows.dtype),
            ring_places=tf.fill([2], self._positions),
            nearest=tf.constant(1),
            row_of=row_of,
            halos=self._halos(row_of, places[:: side * side], side),
            ring_halos=tf.zeros([1, 9], tf.int32),
            squares=self._squares(row_of, places),
            halted_sum=tf.zeros([self._images, self._channels], rows.dtype),
            count=tf.size(places),
            active=tf.size(places) // side**2,
            idle=tf.zeros([]),
        )

    @property
    def decisions_shape(self) -> tf.Tensor:
        """Shape of the halting decisions, [B, H, W], as an int32 tensor."""
        return tf.stack([self._images, self._height, self._width])

    def features(self, radius: int) -> tf.Tensor:
        """The computed positions, and behind them their rings: [1, n', 1, C].

        Without rings while the rows are the map.
        """
        rows = self._state.rows
        if radius == 0:
            return _as_map(rows)
        return self._if_whole(
            lambda: _as_map(rows),
            lambda: _as_map(tf.concat([rows, self._ring(radius)], axis=0)),
        )

    def _ring(self, radius):
        state = self._state
        return state.ring if radius == self._radius else state.ring[: state.nearest]

    def convolve(
        self,
        features: tf.Tensor,
        convolution: Callable,
        then: Callable = tf.identity,
        radius: int = 1,
    ) -> tf.Tensor:
        """See Dense."""
        rows = _as_rows(features)

        def on_map():
            shape = tf.concat([self.decisions_shape, [rows.shape[-1]]], axis=0)
            return _as_map(_as_rows(then(convolution(tf.reshape(rows, shape)))))

        def by_neighbours():
            return self._if_whole(
                on_map, lambda: self._convolve_rows(rows, convolution, then, radius)
            )

        if not self._winograd:
            return by_neighbours()
        return tf.cond(
            self._state.squares.pay,
            lambda: self._convolve_squares(rows, convolution, then),
            by_neighbours,
        )

    def _convolve_squares(self, rows, convolution, then):
        """A 3x3 convolution of rows by squares of 2x2."""
        squares = self._state.squares
        inputs = tf.gather(_table(rows), squares.around)
        outputs = _as_rows(convolution(inputs, surroundings="squares"))
        outputs = tf.gather(outputs, squares.row_in)
        # As many images: batch norm shares them out to the cores (see normalization).
        outputs = then(outputs[:, tf.newaxis, tf.newaxis, :])
        return _as_map(_as_rows(outputs))

    def _convolve_rows(self, rows, convolution, then, radius):
        """A 3x3 convolution of rows that find their neighbours by the tables."""
        state, side = self._state, self._side
        table = _table(rows)
        outputs, halos = [], []
        if side > 1:
            tiles = tf.gather(table, state.halos)
            tiles = tf.reshape(tiles, [-1, side + 2, side + 2, table.shape[-1]])
            tiles = then(convolution(tiles, surroundings="halo"))
            outputs.append(_as_map(_as_rows(tiles)))
        else:
            halos.append(state.halos)
        if radius == 2:
            halos.append(state.ring_halos)
        if halos:
            halos = halos[0] if len(halos) == 1 else tf.concat(halos, axis=0)
            neighbours = tf.gather(table, halos)
            neighbours = tf.reshape(neighbours, [1, -1, 1, 9 * table.shape[-1]])
            outputs.append(then(convolution(neighbours, surroundings="channels")))
        return outputs[0] if len(outputs) == 1 else tf.concat(outputs, axis=1)

    def add(self, residual: Callable[[], tf.Tensor]) -> None:
        """See Dense."""
        state = self._state
        before = [state.rows] if state.output is None else [state.rows, state.output]

        def without_idle(values):
            if self._side > 1 or not self._conditionals:
                return state.alive * values
            return tf.cond(
                self._has_idle_rows, lambda: state.alive * values, lambda: values
            )

        def to_rows():
            # Added as rows, not as the map that the convolution gives: TensorFlow would
            # have it add while it writes. What that cannot overwrite, its kernel (2.20)
            # then keeps in a member, and two calls at a time crash.
            values = _as_rows(residual())
            return [_sum(state.rows, without_idle(values)), *before[1:]]

        def to_both():
            values = _as_rows(residual())
            remainder = self._on_rows(self._remainder, state)
            output = _sum(state.output, remainder * values)
            if self._last:
                return [state.rows, output]
            return [_sum(state.rows, without_idle(values)), output]

        def added():
            on_map = to_rows if state.output is None else to_both
            return self._if_whole(on_map, to_rows, apart=True)

        after = self.unless_empty(added, lambda: before)
        changed = dict(zip(("rows", "output"), after, strict=False))
        self._state = state._replace(**changed)
        self._set_shapes()

    def unless_empty(self, compute: Callable, otherwise: Callable):
        """See Dense."""
        if not self._conditionals:
            return compute()
        return tf.cond(self._running, compute, otherwise)

    def global_mean(self) -> tf.Tensor:
        """See Dense."""
        total = self._state.halted_sum + self._sum_by_image(
            self._state.rows, self._state.places
        )
        return total / tf.cast(self._map_sizes(), total.dtype)

    def linear_score(self, kernel: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        """See Dense."""
        state = self._state

        def on_map():
            shape = tf.concat([self.decisions_shape, [self._channels]], axis=0)
            return linear_score(tf.reshape(state.rows, shape), kernel, offset)

        return self._if_whole(
            on_map, lambda: self._score_of_rows(kernel, offset), apart=True
        )

    def _score_of_rows(self, kernel, offset):
        """A linear score of rows that find their neighbours by the tables."""
        state = self._state
        # The mean is over halted positions, too, which are not here.
        local_offset = tf.concat([offset[:9], [0.0]], axis=0)
        lowered = tf.cast(kernel, state.rows.dtype)
        numbers = [
            tf.cast(tf.matmul(piece, lowered, transpose_b=True), tf.float32)
            for piece in (state.rows, self._ring(1))
        ]
        around = _table(tf.concat(numbers, axis=0) + local_offset)
        if self._side > 1:
            tiles = tf.gather(around, state.halos)
            tiles = tf.reshape(tiles, [-1, self._side + 2, self._side + 2, 10])
            local = tf.nn.conv2d(tiles, ten_to_one(tf.float32), 1, "VALID")
            local = tf.reshape(local, [-1, 1])
        else:
            taps = state.halos * 10 + tf.range(9)
            local = tf.gather(tf.reshape(around, [-1]), taps)
            local = tf.reduce_sum(local, axis=1, keepdims=True)
        total = self._sum_by_image(numbers[0][:, 9:], state.places)
        halted = tf.cast(state.halted_sum, tf.float32)
        total += tf.matmul(halted, kernel[9:], transpose_b=True)
        mean = total / tf.cast(self._map_sizes(), tf.float32) + offset[9]
        image = self._image_of(state.places, last=True)
        return self._on_map(local[:, 0] + tf.gather(mean, image)[:, 0])

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """See Dense."""
        image = self._image_of(self._state.places, last=True)
        return _as_map(tf.gather(values, image))

    def decisions(self, values: tf.Tensor) -> tf.Tensor:
        """See Dense."""
        return self._on_map(tf.reshape(values, [-1]))

    def _on_map(self, values):
        """Values [n] of the computed positions on a map of zeros [B, H, W]."""
        places = self._state.places[:, tf.newaxis]
        flat = tf.scatter_nd(places, values, self._positions[tf.newaxis] + 1)
        return tf.reshape(flat[:-1], self.decisions_shape)

    def halt(
        self,
        active: tf.Tensor,
        remainder: tf.Tensor | None = None,
        left: int | None = None,
    ) -> None:
        """See Dense."""
        state = self._state
        self._last = last = left == 1
        flat = tf.pad(tf.reshape(active, [-1]), [[0, 1]])
        alive = tf.gather(flat, state.places)
        state = state._replace(alive=tf.cast(alive, state.rows.dtype)[:, tf.newaxis])
        cells = tf.reduce_any(tf.reshape(alive, [-1, self._side**2]), axis=1)
        weight = None
        if remainder is not None:
            weight = self._weight(state, remainder)
            if state.output is not None:
                output = self.unless_empty(
                    lambda: self._if_whole(
                        lambda: state.output,
                        lambda: _sum(state.output, weight * state.rows),
                    ),
                    lambda: state.output,
                )
                state, weight = state._replace(output=output), None
        if not self._conditionals:
            self._halt_unconditionally(state, cells, weight, last)
            return

        def shrink():
            after, output, places = self._shrink(state, cells, weight, last)
            return (*_tensors(after), output, places)

        def go_on():
            after = state
            if weight is not None:
                # Where everything halts at the first score the features are the output.
                output = tf.cond(
                    running,
                    lambda: self._if_whole(
                        lambda: state.rows, lambda: weight * state.rows
                    ),
                    lambda: state.rows,
                )
                after = state._replace(output=output)
            return (*_tensors(after), state.rows[:0], state.places[:0])

        count = tf.math.count_nonzero(cells, dtype=tf.int32)
        packed = self._size(count, state)
        running = count > 0
        stays = tf.equal(packed, state.count)
        if self._packing:
            rows = tf.cast(state.count, tf.float32)
            # Packed rows are somewhat slower than the map.
            slower = tf.where(self._is_whole(), self._packing.slower, 1.0)
            fewer = rows - slower * tf.cast(packed, tf.float32)
            idle = state.idle + tf.maximum(fewer, 0.0)
            state = state._replace(idle=idle)
            cost = self._packing.fixed + self._packing.per_row * rows
            stays |= idle < cost
            if left is not None:  # What is saved by the units to come.
                stays |= fewer * left < cost
        if self._side == 1:
            self._has_idle_rows = stays & (count < state.active)
        # Nothing asks for rows once all have halted.
        *after, output, places = tf.cond(
            stays | ~running, go_on, lambda: _apart(shrink)
        )
        self._running = running
        self._state = _State(*after)
        if state.output is None and weight is None:
            self._state = self._state._replace(output=None)
        self._set_shapes()
        self._finished.append((places, output))

    def _weight(self, state, remainder):
        """The unit's probability p_l (eqn 9) for every row: [n, 1].

        It is what the remainder (zero where nothing is active) has lost.
        """
        remainder = tf.reshape(remainder, [-1])
        before = 1.0 if self._remainder is None else self._remainder
        self._remainder = remainder
        return self._on_rows(before - remainder, state)

    def _on_rows(self, values, state):
        """Values [B * H * W] for every row: [n, 1] in the type of the features."""
        values = tf.gather(tf.pad(values, [[0, 1]])[:, tf.newaxis], state.places)
        return tf.cast(values, state.rows.dtype)

    def _halt_unconditionally(self, state, cells, weight, last):
        """Packs anew in any case; one cell is always kept, lest anything be empty."""
        first = tf.range(tf.size(cells)) == 0
        cells |= first & ~tf.reduce_any(cells)
        self._state, output, places = self._shrink(state, cells, weight, last)
        self._finished.append((places, output))

    def leave(self) -> tf.Tensor:
        """See Dense."""
        state = self._state
        output = state.rows
        if self._remainder is not None:

            def with_the_remainder():
                weighted = self._on_rows(self._remainder, state) * state.rows
                return _sum(state.output, weighted)

            output = self.unless_empty(
                lambda: self._if_whole(lambda: state.output, with_the_remainder),
                lambda: state.output,
            )
        places, outputs = zip(*self._finished, (state.places, output), strict=True)

        def stitched():
            flat = tf.raw_ops.ParallelDynamicStitch(
                indices=list(places), data=list(outputs)
            )
            return flat[: self._positions]

        flat = self._if_whole(lambda: output, stitched)
        shape = tf.concat([self.decisions_shape, [self._channels]], axis=0)
        return tf.reshape(flat, shape)

    def _shrink(self, state: _State, cells, weight, last):
        """The state without the cells that have halted, and what these leave behind.

        With a weight, it is the first one: the output of cells that have halted is
        their features, and that of others begins with the weighted features.
        """
        kept = tf.cast(tf.where(cells)[:, 0], tf.int32)
        gone = tf.cast(tf.where(~cells)[:, 0], tf.int32)
        active = tf.math.count_nonzero(cells, dtype=tf.int32)
        count = self._size(active, state)
        spare = count // self._side**2 - active
        gone_places = self._take(state.places, gone)
        places = self._take(state.places, kept)
        places = tf.concat(
            [places, tf.fill([spare * self._side**2], self._positions)], axis=0
        )
        kept = tf.concat([kept, tf.repeat(kept[-1:], spare)], axis=0)
        corners = self._take(state.places, kept)[:: self._side**2]
        row_of = self._row_of(places)
        computed = tf.reshape(row_of, self.decisions_shape) > 0
        near = dilate(computed, 1)
        rings = [near & ~computed]
        if self._radius == 2:
            rings.append(dilate(computed, 2) & ~near)
        if self._real is not None:
            rings = [ring & self._real for ring in rings]
        ring, ring_places, nearest = self._new_ring(state, rings, count)
        row_of = self._row_of(tf.concat([places, ring_places], axis=0))
        gone_rows, halted_sum = None, state.halted_sum
        if state.output is None or not last:
            gone_rows = self._take(state.rows, gone)
        if not last:  # Nobody will ask for a mean any more.
            halted_sum += self._sum_by_image(gone_rows, gone_places)
        rows, output, gone_output = self._take(state.rows, kept), None, gone_rows
        if state.output is not None:
            output = self._take(state.output, kept)
            gone_output = self._take(state.output, gone)
            if self._remainder is not None:
                remainder = self._take(self._on_rows(self._remainder, state), kept)
                output = self._if_whole(
                    lambda: _sum(output, -remainder * rows), lambda: output
                )
        if weight is not None:
            output = self._take(weight, kept) * rows
        after = _State(
            rows=rows,
            output=output,
            places=places,
            alive=self._take(state.alive, kept),
            ring=ring,
            ring_places=ring_places,
            nearest=nearest,
            row_of=row_of,
            halos=self._halos(row_of, corners, self._side),
            ring_halos=(
                self._halos(row_of, ring_places[:nearest], 1)
                if self._radius == 2
                else state.ring_halos
            ),
            squares=self._squares(row_of, places),
            halted_sum=halted_sum,
            count=count,
            active=active,
            idle=tf.zeros([]),
        )
        return after, gone_output, gone_places

    def _new_ring(self, state: _State, rings, count):
        """Features and places of the rings, out of the rows and the ring before.

        And the size of the part that ends with the first ring. With the `count` rows in
        front both have one of the few sizes.
        """
        features, places = [], []
        size = count  # Of all so far.
        for ring in rings:
            where = tf.cast(tf.where(tf.reshape(ring, [-1]))[:, 0], tf.int32)
            source = tf.gather(state.row_of, where) - 1
            halted_now = source < state.count
            now, before_now = tf.where(halted_now)[:, 0], tf.where(~halted_now)[:, 0]
            from_rows = tf.gather(source, now)
            from_ring = tf.gather(source, before_now) - state.count
            # Nothing before the first ring and behind each, as much as is missing.
            before = 0 if places else 1
            filled = size + before + tf.size(where)
            size = _next_size(filled + 1)
            nothing = [
                tf.zeros([number, self._channels], state.rows.dtype)
                for number in (before, size - filled)
            ]
            features += [
                nothing[0],
                tf.gather(state.rows, from_rows),
                tf.gather(state.ring, from_ring),
                nothing[1],
            ]
            where = tf.gather(where, tf.concat([now, before_now], axis=0))
            margin = [[before, size - filled]]
            places.append(tf.pad(where, margin, constant_values=self._positions))
        nearest = tf.size(places[0])
        return tf.concat(features, axis=0), tf.concat(places, axis=0), nearest

    def _size(self, cells, state):
        """Rows that some active cells are packed into: int32 scalar."""
        per_cell = self._side**2
        return tf.minimum(_next_size(cells * per_cell, per_cell), state.count)

    def _take(self, values, cells):
        """The rows of some cells, of a tensor with one row for each position."""
        if self._side == 1:
            return tf.gather(values, cells)
        grouped = tf.concat([[-1, self._side**2], tf.shape(values)[1:]], axis=0)
        taken = tf.gather(tf.reshape(values, grouped), cells)
        return tf.reshape(taken, tf.concat([[-1], tf.shape(values)[1:]], axis=0))

    def _image_of(self, places, last: bool = False):
        """Image of each place; for those beyond the edges one too many, or the last."""
        image = places // self._map_size
        return tf.minimum(image, self._images - 1) if last else image

    def _sum_by_image(self, rows, places):
        """Sums [B, C] of rows [n, C]."""
        image = self._image_of(places)

        def product():
            of_image = tf.one_hot(image, self._images, dtype=rows.dtype)
            return tf.matmul(of_image, rows, transpose_a=True)

        if not self._conditionals:
            return product()
        # A segment sum gives every image to one core. With several of them it is fast
        # enough, and an image with infinite features does no harm to the others.
        return tf.cond(
            tf.equal(self._images, 1),
            product,
            lambda: tf.math.unsorted_segment_sum(rows, image, self._images + 1)[:-1],
        )

    def _all_places(self):
        """Places of all positions, cell after cell: int32 [t * k * k]."""
        places = tf.range(self._positions)
        side = self._side
        if side == 1:
            return places
        maps = tf.reshape(places, self.decisions_shape)
        bottom, right = -self._height % side, -self._width % side
        maps = tf.pad(
            maps,
            [[0, 0], [0, bottom], [0, right]],
            constant_values=self._positions,
        )
        down, across = (self._height + bottom) // side, (self._width + right) // side
        cells = tf.reshape(maps, [self._images, down, side, across, side])
        return tf.reshape(tf.transpose(cells, [0, 1, 3, 2, 4]), [-1])

    def _leave_padding(self, places, rows):
        """Takes the padding out of the places, and cells that are nothing else.

        In cells that stay it is treated as what lies beyond the map's edges. Its output
        is zero.
        """
        real = tf.pad(tf.reshape(self._real, [-1]), [[0, 1]])
        kept = tf.gather(real, places)
        cells = tf.reduce_any(tf.reshape(kept, [-1, self._side**2]), axis=1)
        padding = tf.cast(tf.where(~real[:-1])[:, 0], tf.int32)
        nothing = tf.zeros([tf.size(padding), self._channels], rows.dtype)
        self._finished.append((padding, nothing))
        places = tf.where(kept, places, self._positions)
        return self._take(places, tf.cast(tf.where(cells)[:, 0], tf.int32))

    def _map_sizes(self):
        """Positions of an image's map: a number, or one for each image [B, 1]."""
        if self._real is None:
            return self._map_size
        count = tf.math.count_nonzero(self._real, axis=[1, 2], dtype=tf.int32)
        return count[:, tf.newaxis]

    def _row_of(self, places):
        """One plus the row of each position: int32 [B * H * W]."""
        rows = tf.range(1, tf.shape(places)[0] + 1)
        size = self._positions[tf.newaxis] + 1
        return tf.scatter_nd(places[:, tf.newaxis], rows, size)[:-1]

    def _prepare_halos(self):
        """Where each position is in a map with a margin, so that cells have halos."""
        side = max(self._side, 2) if self._winograd else self._side
        self._margin = [[0, 0], [1, side], [1, side]]
        height = self._height + 1 + side
        self._stride = self._width + 1 + side
        grid = tf.reshape(
            tf.range(self._images * height * self._stride),
            [self._images, height, self._stride],
        )
        corner = grid[:, : self._height, : self._width]
        self._halo_corner = tf.reshape(corner, [-1])

    def _halos(self, row_of, places, side):
        """Entries of `row_of` in the halo of the cells whose first place is given."""
        with_margin = tf.pad(tf.reshape(row_of, self.decisions_shape), self._margin)
        reach = tf.range(side + 2)
        steps = tf.reshape(reach[:, tf.newaxis] * self._stride + reach, [-1])
        places = tf.minimum(places, self._positions - 1)
        corner = tf.gather(self._halo_corner, places)
        return tf.gather(tf.reshape(with_margin, [-1]), corner[:, tf.newaxis] + steps)

    def _squares(self, row_of, places):
        """The squares of 2x2 positions that have some of the places [n]."""
        if not self._winograd:
            return ()
        down, across = (self._height + 1) // 2, (self._width + 1) // 2
        image, place = places // self._map_size, places % self._map_size
        y, x = place // self._width, place % self._width
        # Spare rows, which lie beyond the last image, belong to one square too many.
        square = (image * down + y // 2) * across + x // 2
        size = [self._images * down * across + 1]
        used = tf.scatter_nd(square[:, tf.newaxis], tf.ones_like(square), size)
        chosen = tf.cast(tf.where(used[:-1] > 0), tf.int32)
        found = tf.shape(chosen)[0]
        count = _next_size(found)
        order = tf.scatter_nd(chosen, tf.range(found), size)
        within, line = chosen[:, 0] % across, chosen[:, 0] // across
        image, line = line // down, line % down
        corners = (image * self._height + 2 * line) * self._width + 2 * within
        around = tf.transpose(self._halos(row_of, corners, 2))
        products = WINOGRAD_PRODUCT * 16 * tf.cast(count, tf.float32) + WINOGRAD_FIXED
        return _Squares(
            around=tf.pad(around, [[0, 0], [0, count - found]]),
            row_in=(y % 2 * 2 + x % 2) * count + tf.gather(order, square),
            pay=products < 9.0 * tf.cast(tf.size(places), tf.float32),
        )

    def _if_whole(self, on_map, packed, apart=False):
        """What one of two functions gives: the first while the rows are the map.

        With `apart` the second is a function of its own in the graph (see _apart).
        """
        if self._side > 1 or not self._conditionals:
            return packed()
        if self._known_whole is not None:
            return on_map() if self._known_whole else packed()

        def knowing(whole, compute):
            self._known_whole = whole
            try:
                return compute()
            finally:
                self._known_whole = None

        return tf.cond(
            self._is_whole(),
            lambda: knowing(True, on_map),
            lambda: knowing(False, lambda: _apart(packed) if apart else packed()),
        )

    def _is_whole(self):
        """Whether nothing has been packed yet, and all positions are in the rows."""
        return self._state.count == self._positions

    def _set_shapes(self):
        """Number of channels, which conditionals forget."""
        for name in ("rows", "output", "ring", "halted_sum"):
            value = getattr(self._state, name)
            if value is not None:
                value.set_shape([None, self._channels])


def _next_size(count, multiple: int = 1):
    """The smallest of _SIZES that a number of rows fits into: int32 scalar.

    Of a multiple of a number, the next multiple at least as large as that size.
    """
    size = tf.gather(_SIZES, tf.searchsorted(_SIZES, count[tf.newaxis]))[0]
    return -(-size // multiple) * multiple


def _apart(compute: Callable):
    """What a function gives; in a graph it stays a function, which one operation calls.

    Branches of conditionals otherwise become parts of one graph, tens of thousands of
    operations, which TensorFlow optimises as a whole before the first call.
    """
    if tf.executing_eagerly():
        return compute()
    function = tf.function(
        compute, autograph=False, experimental_attributes={"_noinline": True}
    )
    return function()


def _tensors(state):
    """A state that conditionals can return: without None."""
    return state if state.output is not None else state._replace(output=state.idle)


def _table(rows):
    """What `row_of` and the halos point into: a row of zeros, then the rows."""
    zero = tf.zeros([1, rows.shape[-1]], rows.dtype)
    return tf.concat([zero, rows], axis=0)


def _as_map(rows):
    """Rows [n, C] as a map one position wide, on which units run as on any other."""
    return tf.reshape(rows, [1, -1, 1, rows.shape[-1]])


def _as_rows(maps):
    return tf.reshape(maps, [-1, maps.shape[-1]])


def _sum(rows, others):
    """The sum of two tensors of one shape.

    The gradient of `+` asks which of the two was broadcast, and TensorFlow's constant
    folding mistakes the shapes before a conditional for those behind it; that of add_n
    does not ask.
    """
    return tf.add_n([others, rows])
