"""What graphs do on a GPU, seen without one: the numbers, and who waits for whom."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.cli.gpu_check.placement import placement
from sact_tf.geometry.control_flow import for_gpu
from sact_tf.layers import loops
from tests.models.test_resnet import spread_halting

#: For each image another one, so that they halt at different units.
BIAS = (-1.5, 0.0, 1.5)
FAMILIES = {"cifar": ((1, 4, 2), 4), "imagenet": ((1, 4, 2, 1), 32)}


def network(family, adaptivity, execution, **options):
    tf_keras.utils.set_random_seed(1)
    units, _ = FAMILIES[family]
    options |= {"base_channels": 4, "execution": execution}
    model = sact_tf.ResNet(family, units, adaptivity, 5, **options)
    if family == "cifar":
        return spread_halting(model)
    # Scores that nothing but the bias decides: fresh features are large.
    for block in model.blocks:
        for score in block.halting_scores:
            for variable in score.trainable_weights:
                variable.assign(tf.zeros_like(variable))
    return model


def graph_of(model, shape):
    def run(images):
        return model(images, training=False, with_record=True, halting_bias=BIAS)

    with for_gpu():
        run = tf.function(run, autograph=False)
        return run.get_concrete_function(tf.TensorSpec(shape))


def pictures(family):
    _, stride = FAMILIES[family]
    shape = (3, 5 * stride, 7 * stride, 3)
    return np.random.default_rng(0).normal(size=shape).astype("f")


@pytest.fixture(scope="module")
def graphs():
    """Graphs for a GPU, by family and adaptivity: of what leaves positions out."""
    found = {}
    for family in FAMILIES:
        shape = pictures(family).shape
        for adaptivity, execution in (("sact", "tiles"), ("act", "positions")):
            model = network(family, adaptivity, execution)
            found[family, adaptivity] = model, graph_of(model, shape)
    return found


@pytest.mark.parametrize("adaptivity", ["sact", "act"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_numbers_are_those_of_dense(graphs, family, adaptivity):
    images = pictures(family)
    _, graph = graphs[family, adaptivity]
    found = graph(tf.constant(images))
    dense = network(family, adaptivity, "dense")
    expected = dense(images, with_record=True, halting_bias=BIAS)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-4)
    np.testing.assert_array_equal(found["flops"], expected["flops"])
    for block, other in zip(found["blocks"], expected["blocks"], strict=True):
        np.testing.assert_array_equal(block["num_units"], other["num_units"])
        np.testing.assert_allclose(block["output"], other["output"], atol=1e-4)
    units = found["blocks"][1]["num_units"].numpy()
    assert units.min() < units.max(), "some halt sooner than others"


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_dense_networks_never_wait(adaptivity):
    shape = pictures("cifar").shape
    model = network("cifar", adaptivity, "dense")
    with for_gpu():
        run = tf.function(lambda images: model(images, training=False))
        found = placement(run.get_concrete_function(tf.TensorSpec(shape)))
    assert len(found.kernels) > 50
    assert found.transfers == () and found.on_host == ()


def in_loop(names):
    return [name for name in names if "while_body" in name]


def test_images_that_halt_leave_with_one_transfer_in_each_unit(graphs):
    _, graph = graphs["cifar", "act"]
    found = placement(graph)
    # Of the two blocks with halting scores.
    bodies = {name.partition("/")[0] for name in in_loop(found.transfers)}
    assert len(bodies) == 2
    for body in bodies:
        (waited,) = (n for n in found.transfers if n.startswith(f"{body}/"))
        assert "count_nonzero" in waited
    # Beside these the record's numbers of units, which are integers.
    others = set(found.transfers) - set(in_loop(found.transfers))
    assert all("/block" in name and "Cast" in name for name in others), others
    assert len(others) <= 2 and found.on_host == ()


def test_tiles_ask_the_host_only_how_many_there_are(graphs):
    for family in FAMILIES:
        _, graph = graphs[family, "sact"]
        found = placement(graph)
        assert found.on_host == ()
        by_part = {}
        for name in found.transfers:
            if re.search(r"/block\d/Cast_\d+:0$", name):
                continue  # The record's numbers of units, which are integers.
            function, _, tensor = name.partition("/")
            block = re.search(r"block\d", tensor)[0]
            by_part.setdefault((function, block), []).append(tensor)
        # A unit's decision is one number; a packing's sizes are one tensor of them.
        for tensors in by_part.values():
            assert len(tensors) == 1, by_part


def test_a_graph_that_waits_is_found_out(monkeypatch):
    """As it was before: what halts is counted, and left out, by the host."""
    monkeypatch.setattr(loops, "gpu_is_visible", lambda: False)
    shape = pictures("cifar").shape
    found = placement(graph_of(network("cifar", "sact", "positions"), shape))
    assert len(found.transfers) > 5 and len(found.on_host) > 5


def test_where_operations_are():
    @tf.function(autograph=False)
    def run(values, numbers):
        long = numbers * 2  # int32: on the host.
        chosen = tf.where(values > 0)  # How many is known when it has run.
        total = tf.reduce_sum(tf.cast(values, tf.int32))  # Fetched, and summed there.
        return long, chosen, values * 2.0, total, numbers + 1

    found = placement(
        run.get_concrete_function(tf.TensorSpec([50]), tf.TensorSpec([50], tf.int32))
    )
    kinds = {name.rpartition("/")[2] for name in found.on_host}
    assert any("mul" in kind for kind in kinds) and any("add" in k for k in kinds)
    assert len(found.transfers) == 2
    assert any("Where" in name for name in found.transfers)
    assert any("Cast" in name for name in found.transfers)
    assert any(name.endswith("mul_1") for name in found.kernels)
