"""Units and scores of a block that share one trace in training."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

import sact_tf
from sact_tf.geometry import control_flow
from sact_tf.layers import sharing

UNITS = [4, 1, 1]
IMAGES = tf.constant(
    np.random.default_rng(0).uniform(-1, 1, [3, 12, 12, 3]).astype("float32")
)


def _network(adaptivity, units=UNITS, **options):
    return sact_tf.ResNet(
        family="cifar",
        units=units,
        base_channels=4,
        num_classes=3,
        adaptivity=adaptivity,
        **options,
    )


def _step(model):
    @tf.function(autograph=False)
    def step(images):
        with tf.GradientTape() as tape, control_flow.not_for_xla():
            outputs = model(images, training=True)
            loss = tf.reduce_sum(tf.square(outputs)) + tf.add_n(model.losses)
        return loss, tape.gradient(loss, model.trainable_variables)

    return step


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_same_numbers_as_written_out(adaptivity, monkeypatch):
    shared = _network(adaptivity, tau=0.1)
    apart = _network(adaptivity, tau=0.1)
    apart.set_weights(shared.get_weights())
    loss, gradients = _step(shared)(IMAGES)
    monkeypatch.setattr(sharing, "pays", lambda function: False)
    expected_loss, expected = _step(apart)(IMAGES)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    for gradient, value in zip(gradients, expected, strict=True):
        # Sums over positions that cancel: rounding weighs more there.
        np.testing.assert_allclose(gradient, value, rtol=1e-4, atol=1e-4)
    # Moving statistics, too.
    for weight, value in zip(shared.weights, apart.weights, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adaptivity", ["none", "sact"])
def test_a_unit_more_adds_calls_and_no_trace(adaptivity):
    graphs = [
        _step(_network(adaptivity, units=[count, 1, 1]))
        .get_concrete_function(IMAGES)
        .graph.as_graph_def()
        for count in (5, 6)
    ]
    traced = [len(graph.library.function) for graph in graphs]
    assert traced[0] == traced[1] > 0
    convolutions = [
        sum(node.op.startswith("Conv2D") for node in graph.node) for graph in graphs
    ]
    assert convolutions[0] == convolutions[1]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_shares_traces_without_xla(jit_compile, monkeypatch):
    model, asked = _network("sact"), []
    pays = sharing.pays
    monkeypatch.setattr(sharing, "pays", lambda turn: asked.append(pays(turn)) or False)
    model.compile("sgd", "mse", jit_compile=jit_compile)
    model.make_train_function()
    dataset = tf.data.Dataset.from_tensors((IMAGES, tf.zeros([3, 3])))
    model.train_function.get_concrete_function(iter(dataset))
    assert set(asked) == {not jit_compile}


def test_pays_where_norms_are_live_on_one_replica():
    score = _network("sact").blocks[0].halting_scores[0]
    unit = _network("sact").blocks[0].units[1]
    valid = tf.ones([1, 4, 4], tf.bool)

    def pays(function, when=control_flow.not_for_xla):
        found = []

        def asking():
            with when():
                found.append(sharing.pays(function()))

        tf.function(asking, autograph=False)()
        return found[0]

    assert pays(lambda: unit.branch(training=True))
    assert pays(lambda: score.logit(training=True))
    assert not pays(lambda: unit.branch(training=False))
    assert not pays(lambda: unit.branch(training=True, valid=valid))
    # Who says nothing may compile it by XLA, for which it does not pay at all.
    assert not pays(lambda: unit.branch(training=True), contextlib.nullcontext)
    assert not pays(lambda: unit.branch(training=True), control_flow.for_xla)
    with control_flow.not_for_xla():
        assert not sharing.pays(unit.branch(training=True))  # Nothing is traced.
