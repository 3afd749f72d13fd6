"""ResNet-D: its counts, and that it carries ACT and SACT."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.checkpoints.transfer import initialize_from
from tests.models.test_resnet import images, spread_halting


def tiny(adaptivity="none", family="resnet_d", **options):
    options = {"units": (2, 2, 3, 2), "num_classes": 5, "base_channels": 4, **options}
    tf_keras.utils.set_random_seed(0)
    model = sact_tf.ResNet(family, adaptivity=adaptivity, root_channels=8, **options)
    rng = np.random.default_rng(0)
    for block in model.blocks:
        for unit in block.units:
            gamma = unit.conv3_norm.gamma
            gamma.assign(rng.uniform(0.3, 0.9, gamma.shape))
    return model


@pytest.mark.parametrize(
    "depth, parameters, multiply_adds",
    [
        (50, 25_576_264, 4_328_824_832),
        (101, 44_568_392, 8_041_046_016),
        (152, 60_212_040, 11_753_267_200),
    ],
)
def test_counts_of_the_published_depths(depth, parameters, multiply_adds):
    model = sact_tf.ResNet("resnet_d", depth, "none", num_classes=1000)
    assert sum(v.shape.num_elements() for v in model.trainable_variables) == parameters

    @tf.function(autograph=False)
    def flops(images):
        return model(images, training=False, with_record=True)["flops"]

    # Only the count is computed.
    counted = flops(tf.zeros([1, 224, 224, 3]))
    np.testing.assert_array_equal(counted, [2 * multiply_adds])


def test_small_family_halves_four_times():
    record = tiny(family="resnet_d_small").introspect(images(1, 64, 48))
    sides = [block["output"].shape[1:3] for block in record["blocks"]]
    assert sides == [(32, 24), (16, 12), (8, 6), (4, 3)]


# "auto" is one of the others: see test_execution.
@pytest.mark.parametrize(
    "adaptivity, executions",
    [("act", ("dense", "positions")), ("sact", ("dense", "positions", "tiles"))],
)
def test_executions_agree(adaptivity, executions):
    batch, records = images(2, 64, 96), {}
    units = (2, 3, 1, 1)
    for execution in executions:
        model = tiny(adaptivity, units=units, execution=execution)
        spread_halting(model, bias=-1.0)
        for block in model.blocks:
            for score in block.halting_scores:  # Features are never negative.
                kernel = score.global_conv.kernel
                kernel.assign(kernel - tf.reduce_mean(kernel))
        records[execution] = model(batch, training=False, with_record=True)
    dense = records.pop("dense")
    units = np.concatenate([b["num_units"].numpy().ravel() for b in dense["blocks"]])
    assert len(np.unique(units)) > 1
    for record in records.values():
        np.testing.assert_allclose(record["logits"], dense["logits"], atol=1e-5)
        np.testing.assert_array_equal(record["flops"], dense["flops"])
        for block, other in zip(record["blocks"], dense["blocks"], strict=True):
            np.testing.assert_allclose(block["output"], other["output"], atol=1e-5)


def test_halting_nowhere_is_the_plain_network():
    adaptive, plain = tiny("sact"), tiny()
    initialize_from(adaptive, plain)
    expected = plain.introspect(images())
    record = adaptive.introspect(images(), halting_bias=-100.0)
    np.testing.assert_allclose(record["logits"], expected["logits"], atol=1e-5)


def test_padded_images_are_what_they_are_alone():
    model = spread_halting(tiny("sact", execution="dense"), bias=-1.0)
    batch = images(2, 96, 64)
    sizes = np.array([[96, 64], [65, 49]], np.int32)
    padded = batch.copy()
    padded[1, 65:] = padded[1, :, 49:] = 7.0
    run = tf.function(model.run, autograph=False)
    together = run(tf.constant(padded), image_shapes=tf.constant(sizes))
    alone = run(tf.constant(batch[1:, :65, :49]))
    np.testing.assert_array_equal(together["flops"][1], alone["flops"][0])
    for block, other in zip(together["blocks"], alone["blocks"], strict=True):
        height, width = other["output"].shape[1:3]
        np.testing.assert_allclose(
            block["output"][1, :height, :width], other["output"][0], atol=1e-4
        )


def test_authors_published_none(tmp_path):
    with pytest.raises(ValueError, match="families imagenet and cifar only"):
        sact_tf.save_authors_checkpoint(tiny(), tmp_path / "model.ckpt")
