"""Mixed precision: what float16 has no numbers for is not lost."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from tests.models.test_resnet import spread_halting

IMAGES = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("f")
LABELS = np.array([0, 1, 2, 0])


def network(dtype, **options):
    tf_keras.utils.set_random_seed(0)
    model = sact_tf.ResNet(
        "cifar", (1, 2, 1), num_classes=3, base_channels=4, dtype=dtype, **options
    )
    return spread_halting(model)


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_float16_gives_about_the_numbers_of_float32(adaptivity):
    half = network("mixed_float16", adaptivity=adaptivity, execution="dense")
    whole = network("float32", adaptivity=adaptivity, execution="dense")
    expected = whole(IMAGES, with_record=True)
    found = half(IMAGES, with_record=True)
    assert found["blocks"][0]["output"].dtype == tf.float16
    assert found["logits"].dtype == found["ponder_cost"].dtype == tf.float32
    scale = np.abs(expected["logits"]).max()
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=0.02 * scale)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_fit_scales_the_loss(dtype):
    # Gradients of 1e-7, of which float16 has no more than a digit, if any.
    model = network(dtype, adaptivity="sact", tau=1e-9, weight_decay=0.0)
    model.compile(
        tf_keras.optimizers.SGD(1e5, jit_compile=False),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        loss_weights=1e-7,
        run_eagerly=True,
    )
    scaled = isinstance(model.optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    assert scaled == (dtype == "mixed_float16")
    before = [variable.numpy() for variable in model.trainable_variables]
    model.fit(IMAGES, LABELS, verbose=0)
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert new.dtype == tf.float32 and np.isfinite(new).all()
        # A bias in front of a batch norm has no gradient.
        if "conv1/bias" not in new.name and "conv/bias" not in new.name:
            assert (old != new.numpy()).any(), new.name
        assert np.abs(old - new.numpy()).max() < 1.0, new.name
