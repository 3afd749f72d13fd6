"""Steps of Keras compiled by XLA."""

import numpy as np
import pytest
import tf_keras

import sact_tf
from sact_tf.layers import loops
from tests.models.test_resnet import spread_halting


def network(adaptivity="sact", **options):
    tf_keras.utils.set_random_seed(1)
    model = sact_tf.ResNet(
        "cifar", (2, 1, 1), adaptivity, 3, base_channels=2, **options
    )
    return spread_halting(model)


def compiled(model, **options):
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.SGD(0.01, jit_compile=False), loss, **options)
    return model


def test_fit_evaluate_and_predict(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 16, 16, 3)).astype("f")
    labels = np.array([0, 1, 2, 0])
    options = {"batch_size": 2, "verbose": 0}
    results = []
    for model in (
        compiled(network(execution="dense")),
        compiled(network(), jit_compile=True, steps_per_execution=2),
    ):
        before = model.evaluate(images, labels, return_dict=True, **options)
        trained = model.fit(images, labels, shuffle=False, **options).history
        results.append((before, trained))
    (before, trained), (before_by_xla, trained_by_xla) = results
    for key, value in before.items():
        np.testing.assert_allclose(before_by_xla[key], value, rtol=1e-4, atol=1e-6)
    for key, value in trained.items():
        np.testing.assert_allclose(trained_by_xla[key], value, rtol=1e-3, atol=1e-6)
    # Else images that have halted leave the batch.
    logits = network("act")(images)
    monkeypatch.setattr(loops, "loop_over_images", None)
    model = compiled(network("act"), jit_compile=True)
    np.testing.assert_allclose(model.predict(images, **options), logits, atol=1e-4)


@pytest.mark.parametrize("execution", ["positions", "tiles"])
def test_packed_positions_are_refused(execution):
    model = compiled(network(execution=execution), jit_compile=True)
    images, labels = np.zeros([1, 16, 16, 3], "f"), np.zeros([1], int)
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="XLA compiles for fixed shapes"):
            run(images, labels, verbose=0)
    with pytest.raises(ValueError, match="XLA compiles for fixed shapes"):
        model.predict(images, verbose=0)
