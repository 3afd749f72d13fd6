"""The sparse executions in whole networks: values, gradients, files, one knob."""

import concurrent.futures
import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.geometry import winograd
from sact_tf.geometry.calibration import Calibration
from sact_tf.layers import adaptive_blocks
from tests.models.test_resnet import images, record_of, spread_halting, tiny

# Networks as narrow and short as those of tests are computed densely by "auto": it is
# told that packing costs nothing, where it is to be tested.
SPARSE = ["positions", "tiles"]
CHEAP = Calibration({64: 0.9}, seconds=1e-9, seconds_per_value=0.0)


def pair(execution, adaptivity="sact", **options):
    """A dense and a sparse network with the same weights."""
    dense = spread_halting(tiny(adaptivity, execution="dense", **options))
    sparse = tiny(adaptivity, execution=execution, **options)
    sparse.set_weights(dense.get_weights())
    return dense, sparse


def same(actual, expected, tolerance=1e-5):
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = np.abs(expected).max(initial=1e-6)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@functools.cache
def dense_network(tile_size):
    return spread_halting(tiny(execution="dense", tile_size=tile_size))


@pytest.mark.parametrize("tile_size", [1, 3])
@pytest.mark.parametrize("execution", SPARSE)
def test_records_are_the_dense_ones(execution, tile_size):
    dense = dense_network(tile_size)
    sparse = tiny(execution=execution, tile_size=tile_size)
    sparse.set_weights(dense.get_weights())
    assert_same_records(sparse, dense)


def test_records_of_a_network_that_auto_packs():
    dense, sparse = pair("auto", units=(2, 4, 1, 1), calibration=CHEAP)
    packing = sparse.blocks[1]._packing(tf.zeros([3, 9, 6, 32]), training=False)
    assert packing not in (None, adaptive_blocks._NEVER)
    assert_same_records(sparse, dense)


def assert_same_records(sparse, dense):
    batch = images(3, 71, 45)
    for bias in (None, 2.0):
        expected = record_of(dense, batch, halting_bias=bias)
        actual = sparse.introspect(batch, halting_bias=bias)
        same(actual["logits"], expected["logits"])
        np.testing.assert_array_equal(actual["flops"], expected["flops"])
        for block, wanted in zip(actual["blocks"], expected["blocks"], strict=True):
            same(block["output"], wanted["output"])
            same(block["ponder_cost"], wanted["ponder_cost"])
            np.testing.assert_array_equal(block["num_units"], wanted["num_units"])
        spread = [np.unique(block["num_units"]).size for block in expected["blocks"]]
        assert max(spread) > 1


def test_wide_networks_on_many_positions(monkeypatch):
    """Real widths and sizes, where 3x3 convolutions go by squares (Winograd)."""
    widths, original = [], winograd.convolve

    def convolve(rows, filters, tiles):
        widths.append(filters.kernel.shape[3])
        return original(rows, filters, tiles)

    monkeypatch.setattr(winograd, "convolve", convolve)
    records = []
    for how in ("dense", "auto", "positions"):
        tf_keras.utils.set_random_seed(0)
        model = sact_tf.ResNet(units=(1, 1, 4, 1), num_classes=5, execution=how)
        for score in spread_halting(model).blocks[2].halting_scores:
            for conv in (score.local_conv, score.global_conv):  # Many channels add up.
                conv.kernel.assign(0.01 * conv.kernel)
        records.append(model.introspect(images(1, 400, 528)))
        assert set(widths) == (set() if how == "dense" else {256})
        widths.clear()
    expected, *others = (record["blocks"][2] for record in records)
    assert np.unique(expected["num_units"]).size > 2
    for actual in others:
        np.testing.assert_array_equal(actual["num_units"], expected["num_units"])
        same(actual["output"], expected["output"])
        same(actual["ponder_cost"], expected["ponder_cost"])


@pytest.mark.parametrize(
    "adaptivity, execution", [("sact", "positions"), ("act", "auto")]
)
def test_calls_at_the_same_time(adaptivity, execution):
    """A server runs one graph for many requests at a time."""
    model = spread_halting(
        sact_tf.ResNet(
            units=(2, 3, 4, 2),
            adaptivity=adaptivity,
            num_classes=5,
            base_channels=16,
            execution=execution,
        )
    )
    call = tf.function(functools.partial(model, training=False), autograph=False)
    batch = images(2, 96, 96)
    expected = call(batch)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for logits in pool.map(call, [batch] * 400):
            same(logits, expected)


@pytest.mark.parametrize(
    "adaptivity, execution", [("sact", "positions"), ("act", "auto")]
)
def test_a_unit_is_in_the_graph_once(adaptivity, execution):
    """However many there are: what grows with their number is their variables."""

    def operations(units):
        model = sact_tf.ResNet(
            units=(1, 1, units, 1),
            adaptivity=adaptivity,
            num_classes=5,
            base_channels=4,
            execution=execution,
        )
        call = tf.function(functools.partial(model, training=False), autograph=False)
        function = call.get_concrete_function(tf.TensorSpec([None, None, None, 3]))
        graph = function.graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        return [node.op for node in nodes]

    few, many = operations(3), operations(12)
    assert many.count("Conv2D") == few.count("Conv2D") > 10
    # Ten units more: 17 or 18 variables each, placeholder, read and put together.
    assert len(many) - len(few) < 9 * 100


def test_auto_is_dense_on_a_gpu(monkeypatch):
    """Until a calibration says that rows pay there."""
    model = tiny(execution="auto", base_channels=64, units=(4, 1, 1, 1))

    def operations():
        call = tf.function(functools.partial(model, training=False), autograph=False)
        spec = tf.TensorSpec([None, None, None, 3])
        graph = call.get_concrete_function(spec).graph
        return {op.type for op in graph.get_operations()}

    control = {"If", "StatelessIf", "While", "StatelessWhile"}
    assert control & operations()
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda kind=None: [gpu] if kind in (None, "GPU") else [],
    )
    assert not control & operations()


def gradient_network(family, adaptivity, execution, training):
    tf_keras.utils.set_random_seed(0)
    model = sact_tf.ResNet(
        family,
        (2, 1, 3, 1) if family == "imagenet" else (1, 2, 3),
        adaptivity,
        num_classes=5,
        base_channels=4,
        execution=execution,
        freeze_batch_norm=training,
    )
    return spread_halting(model)


def loss_and_gradients(model, batch, training):
    with tf.GradientTape() as tape:
        logits = model(batch, training=training)
        loss = tf.reduce_sum(logits**2) + tf.add_n(model.losses)
    return loss, *tape.gradient(loss, model.trainable_variables)


@pytest.mark.parametrize(
    "family, adaptivity, execution",
    [
        *(("imagenet", "sact", execution) for execution in SPARSE),
        ("cifar", "sact", "positions"),
        ("imagenet", "act", "auto"),
        ("cifar", "act", "auto"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_gradients_with_fixed_statistics(family, adaptivity, execution, training):
    batch = images(2, 64, 64)[:, : 64 if family == "imagenet" else 16]
    # Of each family and adaptivity, what is dense is computed without a trace.
    dense = gradient_network(family, adaptivity, "dense", training)
    expected_loss, *expected = loss_and_gradients(dense, batch, training)
    model = gradient_network(family, adaptivity, execution, training)
    # Training steps often run in loops and have images of one size, both of which
    # invite TensorFlow's constant folding. At inference it needs unknown sizes.
    size = batch.shape if training else [None, None, None, 3]

    @tf.function(input_signature=[tf.TensorSpec(size)], autograph=False)
    def step(batch):
        def once(*_):
            return loss_and_gradients(model, batch, training)

        if not training:
            return once()
        start = [tf.zeros([]), *map(tf.zeros_like, model.trainable_variables)]
        # One after the other, as steps of training are: where a convolution adds a
        # residual, TensorFlow 2.20's oneDNN kernel may keep it in a member, and
        # crashes when it runs twice at a time.
        return tf.while_loop(
            lambda *_: True,
            once,
            start,
            maximum_iterations=2,
            parallel_iterations=1,
        )

    loss, *actual = step(batch)
    same(loss, expected_loss)
    for value, wanted in zip(actual, expected, strict=True):
        tolerance = 5e-6 + 3e-4 * np.abs(wanted).max()
        np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance)


def test_halting_everywhere_in_training():
    """Nothing is active after the first unit of each block."""
    results, weights = [], None
    for execution in ("dense", *SPARSE):
        model = tiny(execution=execution, freeze_batch_norm=True)
        if weights:
            model.set_weights(weights)
        weights = model.get_weights()
        with tf.GradientTape() as tape:
            logits = model(images(), training=True, halting_bias=20.0)
            loss = tf.reduce_sum(logits**2)
        kernel = model.root_layer.conv.kernel
        results.append((logits, tape.gradient(loss, kernel)))
    for logits, gradient in results[1:]:
        same(logits, results[0][0])
        same(gradient, results[0][1], 1e-4)


def test_training_with_live_batch_norm_is_computed_everywhere():
    """Statistics cover all positions, and so does what a step changes."""
    dense, sparse = pair("positions")
    batch, labels = images(4), np.array([0, 1, 2, 3])
    for model in (dense, sparse):
        model.compile(
            tf_keras.optimizers.SGD(0.1),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.train_on_batch(batch, labels)
    for value, wanted in zip(sparse.get_weights(), dense.get_weights(), strict=True):
        np.testing.assert_array_equal(value, wanted)


@pytest.mark.parametrize("adaptivity", ["act", "sact"])
def test_exported_as_it_is_for_any_size(tmp_path, adaptivity):
    dense, sparse = pair("auto", adaptivity, units=(1, 4, 1, 1), calibration=CHEAP)
    sparse.export(tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    for size in ((64, 64), (90, 70)):
        batch = images(2, *size)
        same(loaded.serve(tf.constant(batch)), dense(batch))
