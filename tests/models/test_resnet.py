import filecmp
import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf import training
from sact_tf.checkpoints.authors import variables_by_authors_name
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.layers.halting_scores import SpatialHaltingScore
from sact_tf.models.cost_record import enlarge
from tests import golden
from tests.replicas import mirrored


def tiny(adaptivity="sact", **options):
    options = {"units": (2, 2, 3, 2), "num_classes": 5, "base_channels": 4, **options}
    tf_keras.utils.set_random_seed(0)
    return sact_tf.ResNet("imagenet", adaptivity=adaptivity, root_channels=8, **options)


def record_of(model, batch, **options):
    """What `introspect` says; but without a trace, which takes seconds."""
    tf.config.run_functions_eagerly(True)
    try:
        return model.introspect(batch, **options)
    finally:
        tf.config.run_functions_eagerly(False)


def spread_halting(model, seed=0, bias=-0.5):
    """Random weights that make positions halt at different units."""
    rng = np.random.default_rng(seed)
    for block in model.blocks:
        for score in block.halting_scores:
            score.global_conv.kernel.assign(
                rng.normal(size=score.global_conv.kernel.shape, scale=0.3)
            )
            conv = score.global_conv
            if isinstance(score, SpatialHaltingScore):
                conv = score.local_conv
                conv.kernel.assign(rng.normal(size=conv.kernel.shape, scale=0.3))
            conv.bias.assign([bias])
    return model


def images(batch=2, height=64, width=64, seed=0):
    return (
        np.random.default_rng(seed)
        .uniform(-1, 1, size=(batch, height, width, 3))
        .astype("f")
    )


@pytest.mark.parametrize("family, units", [("imagenet", 4 * [2]), ("cifar", 3 * [2])])
def test_units_can_begin_as_the_identity(family, units):
    tf_keras.utils.set_random_seed(0)
    model = sact_tf.ResNet(family, units, "none", num_classes=5, base_channels=4)
    before = model(images(), training=False)
    model.begin_as_identity()
    logits = model(images(), training=False)
    assert np.abs(before - logits).max() > 1e-3
    # What the units compute before their last convolution makes no difference ...
    for block in model.blocks:
        for unit in block.units:
            unit.conv1.kernel.assign(-unit.conv1.kernel)
    np.testing.assert_array_equal(model(images(), training=False), logits)
    # ... but can be learned.
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images(), training=True) ** 2)
    last = [block.units[1].weights for block in model.blocks]
    kernels = [next(w for w in ws[::-1] if w.shape.rank == 4) for ws in last]
    for gradient in tape.gradient(loss, kernels):
        assert np.abs(gradient).max() > 0


# --- The authors' numbers ---------------------------------------------------------


# A plain network is always computed everywhere. Of ACT, "tiles" are "positions", and
# "auto" is one of the other two; of SACT, "auto" never packs networks as narrow as
# these (test_execution has one that it does pack).
# For each of them one is traced, as for users.
GOLDEN = [
    (spec, execution)
    for spec in golden.SPECS
    for execution in {
        "none": ("auto",),
        "act": ("dense", "positions"),
        "sact": ("dense", "positions", "tiles"),
    }[golden.kind_of(spec)]
]


@pytest.mark.parametrize("spec, execution", GOLDEN)
def test_inference_equals_the_authors(spec, execution):
    expected = golden.Golden(spec, "golden.npz")
    model = golden.network(spec, execution=execution)
    sact_tf.load_authors_checkpoint(model, golden.SAMPLES / spec / "model.ckpt")
    trace = execution in ("auto", "positions")
    introspect = model.introspect if trace else functools.partial(record_of, model)
    record = introspect(expected["images"])
    expected.close("logits", record["logits"], 1e-4)
    np.testing.assert_array_equal(record["flops"], golden.column(expected["flops"]))
    for index, block in enumerate(record["blocks"]):
        prefix = golden.block_name(spec, index)
        expected.close(f"{prefix}/output", block["output"], 1e-4)
        np.testing.assert_array_equal(
            block["flops"], golden.column(expected[f"{prefix}/flops"])
        )
        if golden.kind_of(spec) != "none":
            expected.close(f"{prefix}/ponder_cost", block["ponder_cost"], 1e-4)
            expected.close(
                f"{prefix}/halting_distribution", block["halting_distribution"], 1e-4
            )
            expected.close(f"{prefix}/num_units", block["num_units"], 0)
    if golden.kind_of(spec) == "sact":
        expected.close("sact_map/ponder_cost", record["ponder_cost_map"], 1e-4)
        expected.close("sact_map/num_units", record["num_units_map"], 0)


@golden.needs_whole
@pytest.mark.parametrize("spec", golden.SPECS)
def test_the_repository_has_copies_of_the_whole_datas_weights(spec):
    names = ["model.ckpt.index", "model.ckpt.data-00000-of-00001"]
    folders = golden.SAMPLES / spec, golden.WHOLE / spec
    same, *_ = filecmp.cmpfiles(*folders, names, shallow=False)
    assert same == names


@pytest.mark.parametrize("spec", golden.SPECS)
def test_training_step_equals_the_authors(spec):
    expected = golden.Golden(spec, "train_golden.npz")
    model = golden.network(spec, tau=0.01)
    sact_tf.load_authors_checkpoint(model, golden.SAMPLES / spec / "model.ckpt")
    named = variables_by_authors_name(model)
    cross_entropy = tf_keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.1 if spec.startswith("imagenet") else 0.0
    )
    with tf.GradientTape() as tape:
        record = model(expected["images"], training=True, with_record=True)
        labels = tf.one_hot(expected["labels"], record["logits"].shape[1])
        entropy = cross_entropy(labels, record["logits"])
        total = entropy + tf.add_n(model.losses)
    expected.close("logits", record["logits"], 1e-4)
    expected.close("loss/cross_entropy", entropy, 1e-5)
    expected.close("loss/total", total, 1e-5)
    ponder = 0.0
    if golden.kind_of(spec) != "none":
        ponder = model.tau * tf.reduce_mean(record["ponder_cost"])
    expected.close("loss/ponder", ponder, 1e-5)
    expected.close("loss/l2", total - entropy - ponder, 1e-5)

    gradients = dict(
        zip(named, tape.gradient(total, list(named.values())), strict=True)
    )
    names = expected.keys("grad/")
    assert len(names) == len(model.trainable_variables)
    for key in names:
        gradient = gradients[key.removeprefix("grad/")]
        tolerance = 5e-6 + 3e-4 * expected.largest(key)
        expected.close(key, gradient, tolerance)
    updates = expected.keys("updated/")
    assert len(updates) == sum("/moving_" in name for name in named)
    for key in updates:
        expected.close(key, named[key.removeprefix("updated/")], 1e-5)


# --- Special cases ----------------------------------------------------------------


def test_without_spatial_weights_sact_is_act():
    sact, act = spread_halting(tiny("sact")), tiny("act")
    for block, other in zip(sact.blocks, act.blocks, strict=True):
        for score, target in zip(
            block.halting_scores, other.halting_scores, strict=True
        ):
            score.local_conv.kernel.assign(tf.zeros_like(score.local_conv.kernel))
            target.global_conv.kernel.assign(score.global_conv.kernel)
            target.global_conv.bias.assign(score.local_conv.bias)
    initialize_from(act, sact)
    batch = images(3)
    spatial, single = record_of(sact, batch), record_of(act, batch)
    np.testing.assert_allclose(spatial["logits"], single["logits"], rtol=1e-5)
    np.testing.assert_allclose(spatial["ponder_cost"], single["ponder_cost"], rtol=1e-6)
    for block, other in zip(spatial["blocks"], single["blocks"], strict=True):
        np.testing.assert_allclose(
            block["output"], other["output"], rtol=1e-5, atol=5e-5
        )
        assert len(np.unique(block["num_units"][0])) == 1


@functools.cache
def plain_network(depth):
    return tiny("none", units=(depth,) * 4)


@pytest.mark.parametrize("adaptivity", ["act", "sact"])
def test_score_of_one_cuts_the_plain_network_there(adaptivity):
    """Third advantage of section 2.2: any constant number of units can be had."""
    adaptive, batch = tiny(adaptivity, units=(3, 3, 3, 3)), images()
    for stop in (1, 2, 3):
        for block in adaptive.blocks:
            for index, score in enumerate(block.halting_scores):
                conv = score.local_conv if adaptivity == "sact" else score.global_conv
                for kernel in [
                    layer.kernel
                    for layer in score.submodules
                    if isinstance(layer, tf_keras.layers.Conv2D)
                ]:
                    kernel.assign(tf.zeros_like(kernel))
                conv.bias.assign([100.0 if index + 1 == stop else -100.0])
        plain = plain_network(stop)
        initialize_from(plain, adaptive)
        cut, whole = record_of(adaptive, batch), record_of(plain, batch)
        np.testing.assert_allclose(cut["logits"], whole["logits"], atol=1e-5)
        for block, other in zip(cut["blocks"], whole["blocks"], strict=True):
            assert np.all(block["num_units"].numpy() == stop)
            np.testing.assert_allclose(
                block["output"], other["output"], rtol=1e-5, atol=1e-5
            )


def test_later_units_do_not_touch_positions_that_have_halted():
    model = spread_halting(tiny(units=(2, 1, 1, 1)), bias=4.6)
    before = record_of(model, images())["blocks"][0]
    last = model.blocks[0].units[1]
    last.conv3.bias.assign_add(tf.fill(last.conv3.bias.shape, 100.0))
    after = record_of(model, images())["blocks"][0]
    reached = before["num_units"].numpy() == 2
    assert 0 < reached.sum() < reached.size
    same = np.all(before["output"].numpy() == after["output"].numpy(), axis=-1)
    assert same[~reached].all()
    assert not same[reached].any()


def test_maps_of_one_position():
    model = spread_halting(tiny())
    record = record_of(model, images(2, 32, 32))
    assert record["blocks"][3]["output"].shape == (2, 1, 1, 128)
    assert np.isfinite(record["logits"]).all()


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_blocks_of_one_unit(adaptivity):
    record = record_of(tiny(adaptivity, units=(1, 1, 1, 1)), images())
    for block in record["blocks"]:
        assert np.all(block["num_units"].numpy() == 1)
        assert np.all(block["ponder_cost"].numpy() == 2.0)
        assert np.all(block["halting_distribution"].numpy() == 1.0)
        assert block["num_units"].shape.rank == (3 if adaptivity == "sact" else 1)


@pytest.mark.parametrize("adaptivity", ["act", "sact"])
def test_everything_halts_at_the_first_unit(adaptivity):
    model = spread_halting(tiny(adaptivity), bias=1e4)
    record = record_of(model, images())
    plain = record_of(plain_network(1), images())
    for block, other, units in zip(
        record["blocks"], plain["blocks"], model.units, strict=True
    ):
        assert np.all(block["num_units"].numpy() == 1)
        np.testing.assert_allclose(block["ponder_cost"], 2.0)
        # On top come the first score and, for SACT, the other scores' global part.
        _, height, width, channels = block["output"].shape
        scores = 2 * channels
        if adaptivity == "sact":
            scores = (units - 1) * 2 * channels + 2 * 9 * channels * height * width
        np.testing.assert_array_equal(block["flops"], other["flops"] + scores)


def test_halting_bias_trades_units_for_time():
    # Two units: the one decision of a block is about the same features for any bias.
    model = spread_halting(tiny(units=(2, 1, 1, 1)), bias=4.6)
    records = [record_of(model, images(), halting_bias=b) for b in (-1e4, 0.0, 1e4)]
    units = [record["blocks"][0]["num_units"].numpy() for record in records]
    assert np.all(units[0] == 2) and np.all(units[2] == 1)
    assert 1.0 < units[1].mean() < 2.0
    flops = [int(tf.reduce_sum(record["flops"])) for record in records]
    assert flops[0] > flops[1] > flops[2]
    np.testing.assert_array_equal(
        records[1]["logits"], record_of(model, images())["logits"]
    )


def test_tiles_share_their_scores():
    model = spread_halting(tiny(units=(5, 1, 1, 1), tile_size=4), bias=-2.0)
    units = record_of(model, images(2, 96, 72))["blocks"][0]["num_units"].numpy()
    assert len(np.unique(units)) > 1
    for top in range(0, units.shape[1], 4):
        for left in range(0, units.shape[2], 4):
            tile = units[:, top : top + 4, left : left + 4]
            assert np.all(tile == tile[:, :1, :1])


def test_maps_are_enlarged_by_nearest_neighbour():
    values = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    enlarged = enlarge(tf.constant(values), tf.constant([5, 7])).numpy()[0, :, :, 0]
    for i in range(5):
        for j in range(7):
            assert enlarged[i, j] == values[0, i * 2 // 5, j * 3 // 7]


# --- Training ---------------------------------------------------------------------


def data(num=8, classes=5):
    labels = np.arange(num) % classes
    return tf.data.Dataset.from_tensor_slices((images(num), labels)).batch(4)


def compiled(model, graph=True):
    """Without a graph, where one is not the point: tracing it takes ten seconds."""
    model.compile(
        tf_keras.optimizers.SGD(0.01),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
        run_eagerly=not graph,
    )
    return model


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_fit_evaluate_predict_and_logs(adaptivity):
    model = compiled(spread_halting(tiny(adaptivity)), graph=adaptivity == "sact")
    history = model.fit(data(), epochs=1, verbose=0).history
    wanted = {"loss", "accuracy", "ponder_cost", "flops"}
    wanted |= {f"units_block{i}" for i in range(1, 5)}
    assert wanted == set(history)
    logs = model.evaluate(data(), verbose=0, return_dict=True)
    record = record_of(model, images(8))
    assert logs["flops"] == pytest.approx(np.mean(record["flops"]), rel=1e-5)
    assert logs["ponder_cost"] == pytest.approx(
        np.mean(record["ponder_cost"]), rel=1e-5
    )
    np.testing.assert_allclose(
        model.predict(images(8), verbose=0), record["logits"], atol=1e-5
    )


def test_loss_is_the_sum_of_its_terms():
    model = compiled(spread_halting(tiny(tau=0.5)), graph=False)
    logs = model.evaluate(data(), verbose=0, return_dict=True)
    record = record_of(model, images(8))
    entropy = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        np.arange(8) % 5, record["logits"]
    )
    l2 = sum(
        0.5e-4 * float(tf.reduce_sum(layer.kernel**2))
        for layer in model.submodules
        if isinstance(layer, tf_keras.layers.Conv2D)
    )
    expected = float(entropy) + 0.5 * np.mean(record["ponder_cost"]) + l2
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_tau_makes_training_halt_sooner():
    costs = []
    for tau in (0.0, 5.0):
        model = compiled(tiny(tau=tau, units=(2, 1, 1, 1)), graph=False)
        history = model.fit(data(), epochs=4, verbose=0).history
        costs.append(history["ponder_cost"][-1])
    assert costs[1] < costs[0] - 0.05


def test_frozen_batch_norm_stays_and_uses_moving_statistics():
    model = compiled(spread_halting(tiny(freeze_batch_norm=True)), graph=False)
    norms = [
        layer
        for layer in model.submodules
        if isinstance(layer, tf_keras.layers.BatchNormalization)
    ]
    before = [weight.numpy() for norm in norms for weight in norm.weights]
    assert not any(norm.trainable_variables for norm in norms)
    np.testing.assert_allclose(
        model(images(), training=True),
        model(images(), training=False),
        rtol=1e-5,
        atol=1e-5,
    )
    model.fit(data(), verbose=0)
    after = [weight.numpy() for norm in norms for weight in norm.weights]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    # What people do to train a head alone does not thaw them.
    model.trainable = False
    model.trainable = True
    assert not any(norm.trainable_variables for norm in norms)
    assert model.trainable_variables
    model.freeze_batch_norm = False
    assert all(norm.trainable_variables for norm in norms)


@pytest.mark.parametrize("adaptivity", ["act", "sact"])
def test_training_in_mixed_bfloat16(adaptivity):
    half = spread_halting(tiny(adaptivity, dtype="mixed_bfloat16"))
    # One of them is traced.
    history = compiled(half, adaptivity == "sact").fit(data(), verbose=0).history
    assert np.isfinite(history["loss"]).all()


# --- Saving -----------------------------------------------------------------------


def test_files_of_a_network_that_was_trained(tmp_path):
    """And what it has traced does not get in the way."""
    model = sact_tf.ResNet("cifar", (1, 2, 1), "act", 5, base_channels=4)
    compiled(spread_halting(model))
    model.fit(data(), verbose=0)
    model.introspect(images())
    expected = model.predict(images(), verbose=0)

    model.save(tmp_path / "model.keras")
    loaded = tf_keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded.predict(images(), verbose=0), expected)
    loaded.fit(data(), verbose=0)

    model.save(tmp_path / "saved_model")
    for restored in (
        tf.saved_model.load(str(tmp_path / "saved_model")),
        tf_keras.models.load_model(tmp_path / "saved_model"),
    ):
        np.testing.assert_allclose(
            restored(images(), training=False), expected, rtol=1e-5, atol=1e-5
        )
        # Any size and number of images, not only those that were seen.
        other = images(3, 75, 50)
        np.testing.assert_allclose(
            restored(other, training=False),
            model(other, training=False),
            rtol=1e-5,
            atol=1e-5,
        )


def test_weights_round_trip(tmp_path):
    model, other = spread_halting(tiny()), tiny()
    model.save_weights(tmp_path / "weights")
    other.load_weights(tmp_path / "weights").assert_existing_objects_matched()
    np.testing.assert_array_equal(model(images()), other(images()))


def test_two_replicas_take_the_steps_of_one(tmp_path):
    def train(strategy, name):
        tf_keras.utils.set_random_seed(0)
        with strategy.scope():
            model = spread_halting(tiny(freeze_batch_norm=True, tau=0.1))
            model.compile(
                # Small steps: the two stay where one gradient is like the other's.
                tf_keras.optimizers.SGD(1e-5, momentum=0.9),
                tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            )
        before = [weight.numpy() for weight in model.trainable_weights]
        training.fit(
            model,
            data(),
            epochs=2,
            steps_per_epoch=2,
            directory=tmp_path / name,
            verbose=0,
        )
        moved = [
            weight.numpy() - old
            for weight, old in zip(model.trainable_weights, before, strict=True)
        ]
        return moved, model.evaluate(data(), verbose=0, return_dict=True)

    one, cost = train(tf.distribute.get_strategy(), "one")
    two, costs = train(mirrored(), "two")
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * np.abs(a).max() + 1e-6)
    for name in ("ponder_cost", "flops", "units_block3"):
        assert costs[name] == pytest.approx(cost[name], rel=1e-3)


# --- Arguments --------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"family": "alexnet"}, "family must be one of 'imagenet', 'cifar'"),
        ({"adaptivity": "spatial"}, "adaptivity must be one of"),
        ({"execution": "magic"}, "execution must be one of"),
        ({"units": (3, 4, 6)}, "units must be 4 positive integers"),
        ({"units": (3, 4, 0, 3)}, "units must be 4 positive integers"),
        ({"units": (3, 4, 1.5, 3)}, "units must be 4 positive integers"),
        ({"units": 51}, "depths 50, 101, 152, 200"),
        ({"family": "cifar", "units": (3, 4, 6, 3)}, "units must be 3 positive"),
        ({"tau": -0.1}, "tau must be zero or more"),
        ({"tau": float("nan")}, "tau must be zero or more"),
        ({"tau": float("inf")}, "tau must be zero or more"),
        ({"tau": "0.1"}, "tau must be zero or more"),
        ({"units": None}, "units must be 4 positive integers"),
        ({"units": (3, 4, "a", 3)}, "units must be 4 positive integers"),
        ({"batch_norm_momentum": 1.0}, "batch_norm_momentum must be"),
        ({"epsilon": 0.0}, "epsilon must be between 0 and 1"),
        ({"epsilon": 1.0}, "epsilon must be between 0 and 1"),
        ({"tile_size": 0}, "tile_size must be an integer of at least 1"),
        ({"adaptivity": "act", "tile_size": 2}, "only adaptivity='sact' has"),
        ({"num_classes": 0}, "num_classes must be"),
        ({"base_channels": 0}, "base_channels must be"),
        ({"weight_decay": -1.0}, "weight_decay must be zero or more"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        sact_tf.ResNet(**options)


@pytest.mark.parametrize(
    "batch, message",
    [
        (np.zeros([2, 64, 64, 3], np.uint8), "must be floating point.*dtype=uint8"),
        (np.zeros([2, 64, 64, 3], np.int64), "must be floating point.*dtype=int64"),
        (np.zeros([64, 64, 3], np.float32), r"shape \[batch, height, width, 3\]"),
        (np.zeros([2, 64, 64, 1], np.float32), r"shape \[batch, height, width, 3\]"),
        (np.zeros([2, 31, 64, 3], np.float32), "at least 32 x 32 pixels"),
    ],
)
def test_wrong_images(batch, message):
    model = tiny()
    for use in (model, model.introspect):
        with pytest.raises(ValueError, match=message):
            use(batch)


def test_images_found_too_small_at_run_time():
    model = tiny()
    call = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, 3])])
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least 32 x 32"):
        call(np.zeros([1, 64, 20, 3], np.float32))


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_an_image_with_nan_spoils_only_itself(adaptivity):
    model = spread_halting(tiny(adaptivity))
    batch = images(3)
    # One of them in a graph, in which TensorFlow may calculate otherwise.
    introspect = functools.partial(record_of, model)
    if adaptivity == "sact":
        introspect = model.introspect
    clean = introspect(batch)
    batch[1, 10:14, 20:24] = np.nan
    record = introspect(batch)
    assert np.isnan(record["logits"][1]).all()
    for index in (0, 2):
        np.testing.assert_allclose(
            record["logits"][index], clean["logits"][index], rtol=1e-5, atol=1e-5
        )


def test_integers_of_numpy_are_integers():
    model = sact_tf.ResNet("cifar", np.int64(20), num_classes=np.arange(9).max() + 1)
    assert model(images(1)).shape == (1, 9)
    sact_tf.ResNet.from_config(model.get_config())


@pytest.mark.parametrize("depth, units", [(152, (3, 8, 36, 3)), ("ResNet-50", None)])
def test_depths_by_name(depth, units):
    from sact_tf.models.config import FAMILIES

    assert FAMILIES["imagenet"].resolve_units(depth) == (units or (3, 4, 6, 3))
    assert FAMILIES["imagenet"].resolve_units("200") == (3, 24, 36, 3)
    assert FAMILIES["cifar"].resolve_units(20) == (3, 3, 3)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_step_is_traced_once(optimizer):
    traced = []

    class Counted(sact_tf.ResNet):
        def train_step(self, data):
            traced.append(data)
            return super().train_step(data)

    model = Counted("cifar", (1, 1, 1), "none", 5, base_channels=4)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, ["accuracy"])
    history = model.fit(tf.zeros([4, 16, 16, 3]), tf.constant([0, 1, 2, 3]), verbose=0)
    assert len(traced) == 1
    assert 0 <= history.history["accuracy"][0] <= 1


def test_exports_say_nothing(tmp_path, capsys):
    tiny(units=(1, 1, 1, 1)).export(tmp_path / "model")
    assert capsys.readouterr().out == ""
