"""SSBNet as a network: arguments, files, exports, what its record says."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from tests.models.test_resnet import images


def tiny(sampling="adaptive", family="resnet_d_small", **options):
    options = {"units": (1, 2, 1, 2), "num_classes": 5, "base_channels": 4, **options}
    tf_keras.utils.set_random_seed(0)
    model = sact_tf.ResNet(family, adaptivity="none", sampling=sampling, **options)
    for block in model.blocks:
        for unit in block.units:
            gamma = unit.conv3_norm.gamma
            gamma.assign(tf.ones_like(gamma))
    return model


@pytest.fixture(scope="module")
def adaptive():
    return tiny()


def test_full_network_has_the_parameters_and_flops_of_its_row():
    model = sact_tf.ResNet(
        family="resnet_d",
        units=50,
        adaptivity="none",
        num_classes=1000,
        sampling="adaptive",
        sampling_sizes=(16, 8, 4),
    )
    counts = [v.shape.num_elements() for v in model.trainable_variables]
    assert sum(counts) == 25_587_016

    @tf.function(autograph=False)
    def flops(batch):
        return model(batch, training=False, with_record=True)["flops"]

    expected = 2 * (2_858_196_992 + 88_309_760 + 2_408_448)
    np.testing.assert_array_equal(flops(tf.zeros([1, 224, 224, 3])), [expected])


def test_record_says_where_units_sampled(adaptive):
    record = adaptive.introspect(images(2, 64, 96))
    first, second, *_ = record["blocks"]
    assert "sample_lines" not in first
    # Maps of 16 x 24, of which four sevenths are 9 x 14.
    assert second["sample_lines"].shape == (2, 1, 9)
    assert second["sample_columns"].shape == (2, 1, 14)
    assert np.all(second["num_units"] == 2)
    total = sum(block["flops"] for block in record["blocks"])
    assert np.all(record["flops"] > total) and np.all(total > 0)


def test_sizes_scale_with_the_image_or_are_given():
    scaled = tiny(sampling_sizes=0.5).introspect(images(1, 64, 64))
    given = tiny(sampling_sizes=(8, 4, 2)).introspect(images(1, 64, 64))
    np.testing.assert_allclose(scaled["logits"], given["logits"], atol=1e-5)
    larger = tiny(sampling_sizes=(8, 4, 2)).introspect(images(1, 96, 96))
    assert larger["blocks"][1]["sample_lines"].shape == (1, 1, 8)


def test_sizes_are_in_the_config():
    for sizes in (None, 0.5, (4, 2, 1), (0.5, 2, 0.75)):
        config = tiny(sampling_sizes=sizes).get_config()
        assert sact_tf.ResNet.from_config(config).get_config() == config


def test_export_without_conditionals(tmp_path, adaptive):
    # Calls outside of functions must not be in the way.
    adaptive(images(1, 32, 32))
    adaptive.export(tmp_path / "exported")
    exported = tf.saved_model.load(tmp_path / "exported")
    for size in (32, 64):
        batch = images(2, size, size)
        expected = adaptive(batch, training=False)
        np.testing.assert_allclose(
            exported.serve(tf.constant(batch)), expected, atol=1e-4
        )
    function = tf.function(lambda x: adaptive(x, training=False), autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec([2, 64, 64, 3])).graph
    kinds = {op.type for op in graph.get_operations()}
    assert not kinds & {"If", "StatelessIf", "While", "StatelessWhile"}


def test_xla(adaptive):
    block = adaptive.blocks[1]
    maps = tf.constant(np.random.default_rng(0).normal(size=[2, 12, 8, 16]), tf.float32)
    compiled = tf.function(
        lambda x: block(x)["output"], autograph=False, jit_compile=True
    )
    np.testing.assert_allclose(compiled(maps), block(maps)["output"], atol=1e-4)


def test_padding_is_not_sampled():
    # As many samples for the image alone as in the batch: then it is the same.
    model = tiny(sampling_sizes=(6, 3, 2))
    batch, sizes = images(2, 64, 64), np.array([[64, 64], [48, 48]], np.int32)
    batch[1, 48:] = batch[1, :, 48:] = 9.0
    together = model.run(tf.constant(batch), image_shapes=tf.constant(sizes))
    alone = model.run(tf.constant(batch[1:, :48, :48]))
    np.testing.assert_array_equal(together["flops"][1], alone["flops"][0])
    for block, other in zip(together["blocks"], alone["blocks"], strict=True):
        side = other["output"].shape[1]
        np.testing.assert_allclose(
            block["output"][1, :side, :side], other["output"][0], atol=1e-4
        )
        assert not np.any(block["output"][1, side:])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampling": "nearest"}, "sampling must be one of 'adaptive'"),
        ({"sampling": None, "sampling_sizes": (4, 2, 1)}, "need a sampling"),
        ({"sampling_sizes": (4, 2)}, "must be 3, one for each block but the first"),
        ({"sampling_sizes": (4, 2, 0)}, "at least 1"),
        ({"sampling_sizes": (1.5, 2, 1)}, "at least 1"),
        ({"sampling_sizes": "small"}, "must be"),
        ({"family": "imagenet"}, "families resnet_d and resnet_d_small"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_halting_is_refused():
    with pytest.raises(ValueError, match="adaptivity='none'"):
        sact_tf.ResNet("resnet_d", 50, "sact", sampling="adaptive")


def test_more_samples_than_the_map_has():
    model = tiny(sampling_sizes=(16, 8, 4))
    with pytest.raises(ValueError, match="no more samples than the map has: 8 along"):
        model(images(1, 32, 32), training=False)
    # Where the size is known at run time only.
    function = tf.function(
        lambda x: model(x, training=False),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
        autograph=False,
    )
    assert np.isfinite(function(images(1, 64, 64))).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="no more samples"):
        function(images(1, 32, 32))
