"""SSIN as a network: counts, files, exports, loss, what its record says."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.geometry import Extent
from sact_tf.layers.stochastic_blocks import counted_multiply_adds
from tests.models.test_resnet import images


def tiny(execution="auto", **options):
    options = {"units": (1, 2, 1, 1), "num_classes": 5, "base_channels": 4, **options}
    tf_keras.utils.set_random_seed(0)
    model = sact_tf.ResNet(
        "resnet_d_small", adaptivity="ssin", execution=execution, **options
    )
    rng = np.random.default_rng(0)
    for block in model.blocks:
        for unit in block.units:
            for variable in (unit.conv3_norm.gamma, unit.conv3_norm.beta):
                variable.assign(rng.uniform(0.5, 1.0, variable.shape))
            for mask in (unit.mask1, unit.mask2):
                mask.logits.bias.assign([0.2])
                kernel = mask.logits.kernel
                kernel.assign(rng.normal(size=kernel.shape) / 10)
    return model


@pytest.fixture(scope="module")
def network():
    return tiny()


@pytest.fixture(scope="module")
def full():
    return sact_tf.ResNet("resnet_d", 50, "ssin", num_classes=1000)


def test_parameters(full):
    counts = [v.shape.num_elements() for v in full.trainable_variables]
    assert sum(counts) == 25_812_488


def multiply_adds(model, density):
    """As their counter has it, and beside it what it leaves out: stem and head."""
    stem = model.root_layer.flops(Extent(tf.constant([[224, 224]])))
    head = model.head.flops(tf.zeros([1, 7, 7, 2048]))
    total, side = int(stem[0] + head[0]) / 2, 56
    for block in model.blocks:
        for unit in block.units:
            total += counted_multiply_adds(unit, (side, side), [density] * 2)
            side //= unit.stride
    return total


@pytest.mark.parametrize("density, total", [(1.0, 4.420496384), (0.5, 2.706735104)])
def test_their_counter(full, density, total):
    np.testing.assert_allclose(multiply_adds(full, density) / 1e9, total, rtol=1e-9)


@pytest.mark.parametrize(
    "total, density",
    [(4.1, 0.902), (3.7, 0.783), (3.4, 0.696), (3.2, 0.639), (3.0, 0.582)],
)
def test_densities_of_the_supplements_rows(full, total, density):
    assert abs(multiply_adds(full, density) / 1e9 - total) < 0.005


def test_executions_agree(network):
    batch = images(2, 64, 48)
    options = {"training": False, "with_record": True}
    dense = tiny("dense")(batch, **options)
    for model in (tiny("positions"), network):
        record = model(batch, **options)
        np.testing.assert_allclose(record["logits"], dense["logits"], atol=1e-4)
        np.testing.assert_array_equal(record["flops"], dense["flops"])
    assert 0.3 < np.mean(dense["blocks"][1]["densities"]) < 0.8


def test_record(network):
    record = network.introspect(images(2, 64, 48))
    assert record["num_units_map"].shape == (2, 64, 48, 1)
    block = record["blocks"][1]
    assert block["densities"].shape == (2, 2, 2)
    assert block["num_units"].shape == (2, 16, 12)
    assert np.all((block["num_units"] >= 0) & (block["num_units"] <= 2))
    np.testing.assert_allclose(
        np.mean(block["num_units"], (1, 2)),
        np.sum(block["densities"][..., 1], 1),
        rtol=1e-5,
    )


def test_loss_is_the_mean_probability_of_the_masks():
    for tau in (0.0, 2.0):
        model = sact_tf.ResNet(
            "resnet_d_small",
            (1, 2, 1, 1),
            "ssin",
            base_channels=2,
            tau=tau,
            weight_decay=0.0,
        )
        model(images(), training=True)
        np.testing.assert_allclose(tf.add_n(model.losses), 0.9526 * tau, rtol=1e-4)


def test_training_lowers_the_sampled_share():
    model = tiny(tau=20.0)
    model.compile(
        tf_keras.optimizers.SGD(0.5),
        tf_keras.losses.SparseCategoricalCrossentropy(True),
    )
    x, y = images(), np.array([1, 2])
    logs = [model.train_on_batch(x, y, return_dict=True) for _ in range(4)]
    assert logs[-1]["ponder_cost"] < logs[0]["ponder_cost"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tau": -0.1}, "tau must be zero or more"),
        ({"masks": {"temperature": 0.0}}, "temperature of masks must be"),
        ({"masks": {"Grid": 3}}, "can have the options"),
        ({"masks": 3}, "masks must be a mapping"),
        ({"execution": "tiles"}, "'auto', 'dense' and 'positions'"),
        ({"sampling": "adaptive"}, "adaptivity='none'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_other_networks_have_no_masks():
    with pytest.raises(ValueError, match="adaptivity='ssin' only"):
        sact_tf.ResNet("resnet_d", 50, "none", masks={})
    with pytest.raises(ValueError, match="adaptivity must be one of"):
        sact_tf.ResNet("imagenet", 50, "ssin")
