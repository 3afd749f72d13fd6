import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import without_padding
from sact_tf.layers.normalization import BatchNormalization
from tests.replicas import mirrored


def step(replicas, inputs, synchronized=True, valid=None):
    """Outputs, gradients and statistics of a batch that replicas share."""
    strategy = mirrored(replicas)
    with strategy.scope():
        layer = BatchNormalization(5, momentum=0.9, epsilon=1e-3, name="norm")
        layer.synchronized = synchronized

    def shared(values):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                np.split(values, replicas)[context.replica_id_in_sync_group]
            )
        )

    parts = (shared(inputs), None if valid is None else shared(valid))

    def forward_and_backward(part, valid):
        with tf.GradientTape() as tape:
            tape.watch(part)
            outputs = layer(part, training=True, valid=valid)
            values = tf.square(outputs) * tf.sin(without_padding(part, valid))
            loss = tf.reduce_sum(without_padding(values, valid))
        return outputs, *tape.gradient(loss, [part, layer.gamma, layer.beta])

    results = tf.function(lambda: strategy.run(forward_and_backward, parts))()
    outputs, to_inputs, to_gamma, to_beta = (
        [value.numpy() for value in strategy.experimental_local_results(result)]
        for result in results
    )
    return {
        "outputs": np.concatenate(outputs),
        "gradients of inputs": np.concatenate(to_inputs),
        "gradients of gamma": sum(to_gamma),
        "gradients of beta": sum(to_beta),
        "moving mean": layer.moving_mean.numpy(),
        "moving variance": layer.moving_variance.numpy(),
    }


@pytest.fixture
def inputs():
    return np.random.default_rng(0).normal(1.0, 3.0, [4, 3, 3, 5]).astype(np.float32)


def assert_equal(results, expected):
    for name, value in expected.items():
        error = np.abs(results[name] - value).max()
        assert error <= 1e-5 * np.abs(value).max(), name


def test_replicas_by_themselves(inputs):
    alone = step(2, inputs, synchronized=False)
    first = step(1, inputs[:2])
    np.testing.assert_allclose(alone["outputs"][:2], first["outputs"], atol=1e-5)


def test_without_padding_a_mask_changes_nothing(inputs):
    inputs += 20.0  # Which the difference of two sums of squares would notice.
    everywhere = np.ones(inputs.shape[:3], bool)
    assert_equal(step(1, inputs, valid=everywhere), step(1, inputs))


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("padding", [100.0, -np.inf, np.nan])
def test_padding_is_no_part_of_the_statistics(inputs, padding, replicas):
    valid = np.zeros(inputs.shape[:3], bool)
    for image, (height, width) in enumerate([(3, 2), (1, 3), (2, 2), (3, 3)]):
        valid[image, :height, :width] = True
    real = inputs[valid]
    inputs[~valid] = padding
    results = step(replicas, inputs, valid=valid)
    assert all(np.isfinite(value).all() for value in results.values())
    # The same positions as rows, which have no padding.
    expected = step(1, real[:, np.newaxis, np.newaxis])
    np.testing.assert_allclose(
        expected["moving variance"], 0.9 + 0.1 * real.var(axis=0), rtol=1e-5
    )
    for name in ("outputs", "gradients of inputs"):
        results[name] = results[name][valid]
        expected[name] = expected[name][:, 0, 0]
    assert_equal(results, expected)


def test_replicas_by_themselves_without_padding(inputs):
    valid = np.ones(inputs.shape[:3], bool)
    valid[:, :, 2] = False
    alone = step(2, inputs, synchronized=False, valid=valid)
    first = step(1, inputs[:2, :, :2])
    np.testing.assert_allclose(alone["outputs"][:2, :, :2], first["outputs"], atol=1e-5)


def test_a_part_that_is_nothing_but_padding_moves_no_statistics(inputs):
    nothing = step(1, inputs, valid=np.zeros(inputs.shape[:3], bool))
    np.testing.assert_array_equal(nothing["moving mean"], np.zeros(5))
    np.testing.assert_array_equal(nothing["moving variance"], np.ones(5))


def test_fixed_statistics_need_no_mask(inputs):
    layer = BatchNormalization(5, momentum=0.9, epsilon=1e-3, name="norm")
    valid = tf.zeros(inputs.shape[:3], tf.bool)
    np.testing.assert_array_equal(
        layer(inputs, training=False, valid=valid), layer(inputs, training=False)
    )
