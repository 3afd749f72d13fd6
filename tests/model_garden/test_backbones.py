import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.vision.configs import common
from official.vision.modeling.backbones import factory

import sact_tf
from sact_tf.model_garden import backbones, configs

SMALL = {"units": [2, 3, 2, 2], "base_channels": 8}


def small_network(**options):
    return sact_tf.ResNet(
        **{"num_classes": 5, "tau": 0.1, "weight_decay": 1e-3, **SMALL, **options}
    )


def like(network):
    """A backbone with the weights of a network."""
    backbone = backbones.SACTResNetBackbone(network.config)
    parts = zip(
        (backbone.root_layer, *backbone.blocks),
        (network.root_layer, *network.blocks),
        strict=True,
    )
    for ours, theirs in parts:
        ours.set_weights(theirs.get_weights())
    return backbone


def photographs(batch=2, size=64):
    return tf.random.stateless_uniform([batch, size, size, 3], [1, 2], -1.0, 1.0)


def from_factory(size=(None, None), l2=1e-3, **options):
    return factory.build_backbone(
        tf_keras.layers.InputSpec(shape=[None, *size, 3]),
        configs.Backbone(sact_resnet=configs.SACTResNet(**{**SMALL, **options})),
        common.NormActivation(),
        tf_keras.regularizers.L2(l2) if l2 else None,
    )


def test_endpoints_and_their_specs():
    backbone = from_factory((96, 70))
    endpoints = backbone(tf.zeros([1, 96, 70, 3]))
    assert list(endpoints) == ["2", "3", "4", "5"]
    for level, endpoint in endpoints.items():
        assert backbone.output_specs[level].as_list()[1:] == endpoint.shape[1:]
    assert from_factory().output_specs["5"].as_list() == [None, None, None, 256]
    assert backbone(tf.zeros([1, 45, 133, 3]))["5"].shape == [1, 2, 5, 256]


def test_the_cifar_family_has_levels_0_to_2():
    backbone = from_factory(family="cifar", units=[1, 2, 2])
    endpoints = backbone(tf.zeros([1, 30, 32, 3]))
    assert {level: list(x.shape) for level, x in endpoints.items()} == {
        "0": [1, 30, 32, 8],
        "1": [1, 15, 16, 16],
        "2": [1, 8, 8, 32],
    }


def test_units_begin_as_the_identity_where_the_config_says_so():
    for identity in (False, True):
        backbone = from_factory(identity_units=identity)
        kernels = [unit.conv3.kernel for b in backbone.blocks for unit in b.units]
        assert all((np.abs(kernel).max() == 0) == identity for kernel in kernels)


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_losses_and_costs_are_those_of_the_whole_network(adaptivity):
    network = small_network(adaptivity=adaptivity)
    backbone = like(network)
    images = photographs()
    network(images)
    whole = tf.add_n(network.losses)
    head = tf.add_n(network.head.losses)
    backbone(images)
    np.testing.assert_allclose(tf.add_n(backbone.losses), whole - head, rtol=1e-5)

    expected, record = network.introspect(images), backbone.introspect(images)
    for key in ("ponder_cost", "ponder_cost_map", "num_units_map"):
        np.testing.assert_array_equal(record[key], expected[key])
    assert np.all(expected["flops"] - record["flops"] == 2 * 256 * 5)
    assert [block["name"] for block in record["blocks"]] == [
        f"block{i}" for i in range(1, 5)
    ]


def test_the_ponder_cost_is_there_once_in_an_outer_model():
    backbone = from_factory(l2=None, tau=0.3)
    images = tf_keras.Input([64, 64, 3])
    model = tf_keras.Model(images, backbone(images)["4"])
    record = backbone.introspect(photographs())
    model(photographs())
    (loss,) = model.losses
    np.testing.assert_allclose(loss, 0.3 * np.mean(record["ponder_cost"]), rtol=1e-5)


def test_halting_bias_and_record():
    backbone = from_factory()
    eager = backbone(photographs(), halting_bias=1e6, with_record=True)
    assert set(eager["endpoints"]) == {"2", "3", "4", "5"}
    for block in eager["blocks"]:
        np.testing.assert_array_equal(block["num_units"], 1)
    patient = backbone(photographs(), halting_bias=-1e6, with_record=True)
    for block, units in zip(patient["blocks"], SMALL["units"], strict=True):
        np.testing.assert_array_equal(block["num_units"], units)
    assert np.all(eager["flops"] < patient["flops"])
    bias = backbone.introspect(photographs(), halting_bias=1e6)
    np.testing.assert_array_equal(bias["flops"], eager["flops"])


def test_fewer_blocks_read_a_checkpoint_of_all(tmp_path):
    network = small_network()
    path = tf.train.Checkpoint(backbone=network).write(str(tmp_path / "ckpt"))
    other = backbones.SACTResNetBackbone(small_network().config, num_blocks=3)
    status = tf.train.Checkpoint(backbone=other).read(path)
    status.expect_partial().assert_existing_objects_matched()
    assert list(other(photographs())) == ["2", "3", "4"]
    expected = network.introspect(photographs())["blocks"][2]["output"]
    np.testing.assert_allclose(other(photographs())["4"], expected, atol=1e-4)


def test_frozen_batch_norms_keep_their_statistics():
    backbone = from_factory(freeze_batch_norm=True)
    before = [v.numpy() for v in backbone.non_trainable_variables]
    assert before
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(backbone(photographs(), training=True)["5"])
    gradients = tape.gradient(loss, backbone.trainable_variables)
    for old, new in zip(before, backbone.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert not [v.name for v in backbone.trainable_variables if "gamma" in v.name]
    assert any(g is not None for g in gradients)


def test_config_round_trip():
    backbone = backbones.SACTResNetBackbone(small_network().config, num_blocks=2)
    earlier = {"network": small_network().get_config(), "num_blocks": 2, "name": "b"}
    for config in (backbone.get_config(), earlier):
        again = backbones.SACTResNetBackbone.from_config(config)
        assert again.get_config() == {**backbone.get_config(), "name": config["name"]}
        shapes = [variable.shape for variable in backbone.variables]
        assert [variable.shape for variable in again.variables] == shapes


def test_wrong_arguments():
    with pytest.raises(ValueError, match="num_blocks must be 1 to 4"):
        backbones.SACTResNetBackbone(small_network().config, num_blocks=5)
    with pytest.raises(ValueError, match="sact_resnet takes an L2 regularizer"):
        backbones.build_sact_resnet(
            tf_keras.layers.InputSpec(shape=[None, 64, 64, 3]),
            configs.Backbone(),
            None,
            tf_keras.regularizers.L1(0.1),
        )
