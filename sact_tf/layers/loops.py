"""The units of a block as loops around one unit, for inference.

Where halting decides at run time what is computed, the graph holds one unit in a loop,
first on the map, masked, until packing pays, then on packed rows:

    prologue    the first score, on the map
    on the map  unit l, and beside it the score of its input; masked
    pack        once, or never
    on rows     the score of unit l - 1, what halts leaves, unit l

On the map a unit does not wait for the score before it, which only masks what the unit
adds: the score's fifty small operations would otherwise stand between two units, on one
core. So packing comes one unit after the decision, except after the first score.
"""

import functools
from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.calibration import PackingCost
from sact_tf.geometry.control_flow import conditional, gpu_is_visible, loop
from sact_tf.geometry.dense import Dense, all_tiles
from sact_tf.geometry.images import Images
from sact_tf.geometry.packed import Packed
from sact_tf.halting import HaltingState
from sact_tf.layers.execution import Outcome, Rule
from sact_tf.layers.series import Series, Stack


class _Progress(NamedTuple):
    """What all loops carry: where they stand, and what came out so far."""

    index: tf.Tensor
    state: HaltingState
    scores: tf.Tensor
    flags: tf.Tensor

    @classmethod
    def start(cls, state, count):
        shape = tf.concat([[count], tf.shape(state.active)], axis=0)
        scores, flags = tf.zeros(shape), tf.zeros(shape, tf.bool)
        known = [count, *state.active.shape]
        scores.set_shape(known)
        flags.set_shape(known)
        return cls(tf.constant(0), state, scores, flags)

    def after(self, state, score):
        """With one more score."""
        where = tf.reshape(self.index, [1, 1])

        def written(values, value):
            if gpu_is_visible():
                # Flags cannot be scattered there.
                here = tf.equal(tf.range(values.shape[0]), self.index)
                here = tf.reshape(here, [-1] + [1] * value.shape.rank)
                return tf.where(here, value[tf.newaxis], values)
            return tf.tensor_scatter_nd_update(values, where, value[tf.newaxis])

        return self._replace(
            state=state,
            scores=written(self.scores, score),
            flags=written(self.flags, state.active),
        )


def loop_over_images(
    geometry: Images, units: Series, logits: Series, rule: Rule
) -> Outcome:
    """Units 2 to L as a loop; images that have halted leave the batch (ACT)."""
    units, logits = units.stacked(), logits.stacked()
    count = len(units)
    progress = _Progress.start(rule.start(geometry), count)
    # A number of the host's, of which it asks the device once in each unit.
    running = _count(progress.state.active)

    def some_run(progress, running, images):
        del images
        return _all_positive(count - progress.index, running)

    def unit(progress, running, images):
        here = geometry.with_state(images)
        index = progress.index
        state, score = rule.step(progress.state, here, logits[index])
        here.halt(state.active, state.remainder)
        running = _count(state.active)

        def shrunk():
            there = here.with_state(images)
            there.shrink(running)
            return there.state

        leaving = tf.size(images.images) - running
        there = here.with_state(
            conditional(_all_positive(running, leaving), shrunk, lambda: images)
        )

        def added():
            after = there.with_state(there.state)
            after.add(units[index](after))
            return after.state

        images = conditional(running > 0, added, lambda: there.state)
        progress = progress.after(state, score)
        return progress._replace(index=index + 1), running, images

    progress, _, images = loop(
        some_run,
        unit,
        (progress, running, geometry.state),
        (_shapes(progress), running.shape, geometry.shapes()),
    )
    output = geometry.with_state(images).leave()
    return Outcome(output, progress.scores, progress.flags)


def loop_over_positions(
    features: tf.Tensor,
    layout: Layout,
    units: Series,
    logits: Series,
    rule: Rule,
    packing: PackingCost | None = None,
) -> Outcome:
    """Units 2 to L as loops: on the map until packing pays, then on rows.

    Args:
      features: [B, H, W, C], what the block's first unit gave.
      layout: of the rows.
      units: residual branches of units 2 to L.
      logits: of units 1 to L - 1.
      rule: when positions halt.
      packing: what packing costs; if None, rows are packed whenever fewer suffice.
    """
    loops = _Loops(layout, units.stacked(), logits.stacked(), rule, packing)
    tiles = all_tiles(features) if layout.winograd else None
    dense = Dense(features, valid=layout.valid, tiles=tiles)
    progress, dense, pack = loops.on_map(dense)
    channels = features.shape[-1]

    def packed():
        rows = Packed.from_map(
            layout,
            dense.state.features,
            progress.state.active,
            dense.state.output,
            progress.state.remainder,
        )
        after, rows = loops.on_rows(progress, rows)
        return rows.leave(), after.scores, after.flags

    output, scores, flags = conditional(
        pack, packed, lambda: (dense.leave(), progress.scores, progress.flags)
    )
    output.set_shape([None, None, None, channels])
    return Outcome(output, scores, flags)


class _Loops(NamedTuple):
    """The two loops of loop_over_positions."""

    layout: Layout
    units: Stack
    logits: Stack
    rule: Rule
    packing: PackingCost | None

    def on_map(self, dense: Dense):
        """Runs units on the map until packing pays.

        Returns:
          The progress; the map; whether to pack it.
        """
        count, most = len(self.units), self.layout.most_rows()
        state = self.rule.start(dense)
        progress = _Progress.start(state, count)
        state, score = self.rule.step(state, dense, self.logits[0])
        progress = progress.after(state, score)
        pack, idle, running = self._decide(state, most, 0.0, count)

        def on(progress, running, pack, idle, dense_state):
            del idle, dense_state
            return _all_positive(count - progress.index, running, 1 - pack)

        def unit(progress, running, pack, idle, dense_state):
            here = dense.with_state(dense_state)
            index = progress.index

            def scored():
                state, score = self.rule.step(progress.state, here, self.logits[index])
                left = count - 1 - index
                return progress.after(state, score), *self._decide(
                    state, most, idle, left
                )

            progress, pack, idle, running = conditional(
                index > 0, scored, lambda: (progress, pack, idle, running)
            )
            residual = self.units[index](here)
            here.halt(progress.state.active, progress.state.remainder)
            here.add(residual)
            progress = progress._replace(index=index + 1)
            return progress, running, pack, idle, here.state

        variables = (progress, running, pack, idle, dense.state)
        progress, running, pack, _, dense_state = loop(
            on, unit, variables, tuple(map(_shapes, variables))
        )
        pack = _all_positive(count - progress.index, running, pack)
        return progress, dense.with_state(dense_state), pack

    def _decide(self, state, most, idle, left):
        """Whether to pack the map for so many units to come.

        Ski rental: halted positions are computed in vain until that has cost as much as
        packing, which never takes more than twice the time of one who knows the masks.

        Returns:
          Whether to pack, int32, one or zero; rows that units ran on in vain, the next
          one included; active cells.
        """
        cells = self.layout.grid.any_in_cell(state.active, self.layout.side)
        running = _count(cells)
        rows = self.layout.rows_for(running, most)
        if self.packing is None:
            pack = tf.clip_by_value(tf.minimum(most - rows, left), 0, 1)
            return pack, tf.zeros([]), running
        pack, idle = self.packing.repays(most, rows, idle, left)
        return tf.cast(pack, tf.int32), idle, running

    def on_rows(self, progress: _Progress, rows: Packed):
        """Runs the remaining units on rows."""
        count = len(self.units)

        def on(progress, idle, state):
            del idle
            return _all_positive(count - progress.index, state.running)

        def unit(progress, idle, state):
            index = progress.index

            def scored():
                here = rows.with_state(state)
                after, score = self.rule.step(progress.state, here, self.logits[index])
                here.halt(after.active, after.remainder)
                pack, wasted = self._decide_again(here.state, idle, count - index)

                def shrunk():
                    there = here.with_state(here.state)
                    there.shrink()
                    return there.state

                return (
                    progress.after(after, score),
                    wasted,
                    conditional(pack, shrunk, lambda: here.state),
                )

            # After the prologue alone its score has been taken into account.
            progress, idle, state = conditional(
                index > 0, scored, lambda: (progress, idle, state)
            )

            def added():
                here = rows.with_state(state)
                here.add(self.units[index](here))
                return here.state

            state = conditional(state.running > 0, added, lambda: state)
            progress = progress._replace(index=index + 1)
            return progress, idle, state

        variables = (progress, tf.zeros([]), rows.state)
        progress, _, state = loop(
            on,
            unit,
            variables,
            (_shapes(progress), tf.TensorShape([]), rows.shapes()),
        )
        return progress, rows.with_state(state)

    def _decide_again(self, state, idle, left):
        """Whether to pack rows anew, and the rows that units ran on in vain since."""
        have = state.set.count
        rows = self.layout.rows_for(state.running, have)
        if self.packing is None:
            return _all_positive(have - rows, state.running), tf.zeros([])
        again = self.packing._replace(slower=1.0)
        pack, idle = again.repays(have, rows, idle, left)
        return pack & (state.running > 0), tf.where(pack, 0.0, idle)


def _count(flags):
    """How many flags are true: int32 scalar."""
    return tf.math.count_nonzero(flags, dtype=tf.int32)


def _all_positive(*numbers):
    """Whether all of some int32 scalars are positive.

    In integers, which are the host's: the logic of flags is the device's, and a host
    that decides by it waits for a GPU.
    """
    return functools.reduce(tf.minimum, numbers) > 0


def _shapes(values):
    return tf.nest.map_structure(lambda value: value.shape, values)
