"""Loops around one unit give what units written out give, on whatever they run."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import Dense, Images
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.calibration import PackingCost
from sact_tf.geometry.grid import Grid
from sact_tf.layers import execution, loops
from sact_tf.layers.execution import Rule
from sact_tf.layers.series import Series, Stack
from tests.geometry.test_packed import CHANNELS, UNITS, always_winograd

__all__ = ["always_winograd"]

COUNT = 5
WAYS = {
    "packed at once": {},
    "packed when it pays": {"packing": PackingCost(15.0, 0.3, 1.1)},
    "never packed": {"packing": PackingCost(1e9, 0.0, 1.1)},
    "Winograd": {"winograd": True},
    "tiles of 3": {"side": 3},
}


class Given(NamedTuple):
    """Logits that do not depend on features, but are differentiable by them."""

    logits: tf.Tensor

    def __call__(self, geometry):
        return self.logits + 0.0 * tf.reduce_sum(geometry.global_mean())


class Case:
    """Units and scores of a block; with `early`, most positions halt at once."""

    def __init__(self, unit="bottleneck", shape=(2, 7, 9), early=0.0, per_image=False):
        self.layers = [UNITS[unit](f"unit{index}") for index in range(COUNT)]
        rng = np.random.default_rng(3)
        for layer in self.layers:
            layer.preact.beta.assign(rng.normal(size=layer.preact.beta.shape))
        decisions = shape[:1] if per_image else shape
        logits = 2.0 * rng.normal(size=(COUNT, *decisions)).astype("f") - 1.0
        logits[0] += early
        self.logits = tf.constant(logits)
        self.features = tf.constant(rng.normal(size=(*shape, CHANNELS)).astype("f"))
        self.radius = self.layers[0].radius

    def series(self):
        return (
            Series([layer.branch() for layer in self.layers]),
            Series([Given(logit) for logit in tf.unstack(self.logits)]),
        )

    def loop(self, features, packing=None, rule=None, valid=None, **options):
        layout = Layout(Grid.of(features), self.radius, valid=valid, **options)
        rule = rule or Rule(0.01)
        return loops.loop_over_positions(
            features, layout, *self.series(), rule, packing
        )

    def dense(self, features, rule=None, valid=None, per_image=False):
        geometry = Dense(features, per_image, valid)
        return execution.written_out(geometry, *self.series(), rule or Rule(0.01))


def same(actual, expected):
    np.testing.assert_array_equal(actual.flags, expected.flags)
    active = np.concatenate([np.ones_like(expected.flags[:1]), expected.flags[:-1]])
    scores = [np.where(active, outcome.scores, 0) for outcome in (actual, expected)]
    np.testing.assert_allclose(*scores, atol=1e-6)
    np.testing.assert_allclose(actual.output, expected.output, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("way", WAYS)
def test_loops_are_units_written_out(always_winograd, way):
    case = Case()
    logits = case.logits

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, CHANNELS]),
            tf.TensorSpec([COUNT, None, None, None]),
        ],
        autograph=False,
    )
    def function(maps, logits):
        case.logits = logits
        return case.loop(maps, **WAYS[way])

    for early in (0.0, 3.0, 99.0, -99.0):
        shifted = tf.concat([logits[:1] + early, logits[1:]], axis=0)
        actual = function(case.features, shifted)
        case.logits = shifted
        same(actual, case.dense(case.features))
        if early == 3.0:  # Without a graph, too.
            same(case.loop(case.features, **WAYS[way]), case.dense(case.features))


@pytest.mark.parametrize("way", ["packed at once", "tiles of 3"])
def test_basic_units(way):
    case = Case("basic", early=1.0)
    call = tf.function(lambda maps: case.loop(maps, **WAYS[way]), autograph=False)
    same(call(case.features), case.dense(case.features))


def test_padding_is_in_no_row():
    case = Case(early=1.0)
    sizes = np.array([[7, 4], [3, 9]])
    lines, columns = np.mgrid[:7, :9]
    valid = tf.constant([(lines < h) & (columns < w) for h, w in sizes])
    rule = Rule(0.01, started=valid)
    same(
        case.loop(case.features, rule=rule, valid=valid),
        case.dense(case.features, rule=rule, valid=valid),
    )


@pytest.mark.parametrize("early", [0.0, 99.0])
def test_images_that_have_halted_leave(early):
    case = Case(shape=(6, 3, 4), early=early, per_image=True)
    expected = case.dense(case.features, per_image=True)
    call = tf.function(
        lambda maps: loops.loop_over_images(Images(maps), *case.series(), Rule(0.01)),
        input_signature=[tf.TensorSpec([None, None, None, CHANNELS])],
        autograph=False,
    )
    same(call(case.features), expected)


def test_packing_comes_when_it_pays_and_not_before(monkeypatch):
    """At once after the first score, else one unit after the decision."""
    packed_at = []

    def on_rows(self, progress, rows):
        packed_at.append(int(progress.index))
        return progress, rows

    monkeypatch.setattr(loops._Loops, "on_rows", on_rows)
    case = Case(shape=(1, 6, 6))
    free, dear = PackingCost(0.0, 0.0, 1.0), PackingCost(20.0, 0.0, 1.0)
    logits = np.full([COUNT, 1, 6, 6], -9.0, "f")
    for first, packing, expected in (
        (0, free, [0]),
        (1, free, [2]),
        (0, dear, [2]),  # 12 and 12 rows in vain.
        (3, free, [4]),
        (4, free, []),  # Nothing would be saved.
        (3, dear, []),
    ):
        logits[:] = -9.0
        logits[first, :, :3] = 9.0
        case.logits = tf.constant(logits)
        packed_at.clear()
        case.loop(case.features, packing)
        assert packed_at == expected


def test_stacked_functions_are_the_functions():
    case = Case()
    units, _ = case.series()
    stack = units.stacked()
    assert len(stack) == COUNT and stack.stacked() is stack
    for index in (0, tf.constant(3)):
        here, there = Dense(case.features), Dense(case.features)
        np.testing.assert_array_equal(stack[index](here), units[int(index)](there))


def test_what_is_no_tensor_must_be_the_same_in_all_functions():
    branch = Case("basic").layers[0].branch()
    with pytest.raises(ValueError, match="the same in all units"):
        Stack.of([branch, branch._replace(leak=0.5)])


@pytest.mark.parametrize("way", WAYS)
def test_gradients_through_loops(always_winograd, way):
    case = Case(early=1.0)

    def outcome(run, graph):
        def loss(maps):
            outcome = run(maps)
            spent = tf.where(outcome.flags, outcome.scores, 0.0)
            return tf.reduce_sum(tf.sin(outcome.output)) + tf.reduce_sum(spent)

        if graph:
            loss = tf.function(
                loss,
                input_signature=[tf.TensorSpec([None, None, None, CHANNELS])],
                autograph=False,
            )
        with tf.GradientTape() as tape:
            tape.watch([case.features, case.logits])
            value = loss(case.features)
        used = [v for layer in case.layers for v in layer.trainable_variables]
        return tape.gradient(value, [case.features, case.logits, *used])

    expected = outcome(case.dense, graph=False)
    actual = outcome(lambda maps: case.loop(maps, **WAYS[way]), graph=True)
    for value, wanted in zip(actual, expected, strict=True):
        tolerance = 5e-5 + 3e-4 * np.abs(wanted).max()
        np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance)
