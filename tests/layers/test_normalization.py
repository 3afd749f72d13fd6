import numpy as np
import pytest
import tensorflow as tf

from sact_tf.layers.normalization import BatchNormalization
from tests.replicas import mirrored


def step(replicas, inputs, synchronized=True):
    """Outputs, gradients and statistics of a batch that replicas share."""
    strategy = mirrored(replicas)
    with strategy.scope():
        layer = BatchNormalization(5, momentum=0.9, epsilon=1e-3, name="norm")
        layer.synchronized = synchronized
    parts = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(
            np.split(inputs, replicas)[context.replica_id_in_sync_group]
        )
    )

    def forward_and_backward(part):
        with tf.GradientTape() as tape:
            tape.watch(part)
            outputs = layer(part, training=True)
            loss = tf.reduce_sum(tf.square(outputs) * tf.sin(part))
        return outputs, *tape.gradient(loss, [part, layer.gamma, layer.beta])

    results = tf.function(lambda: strategy.run(forward_and_backward, (parts,)))()
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


def test_two_replicas_compute_what_one_does(inputs):
    one, two = step(1, inputs), step(2, inputs)
    for name, expected in one.items():
        error = np.abs(two[name] - expected).max()
        assert error <= 1e-5 * np.abs(expected).max(), name


def test_replicas_by_themselves(inputs):
    alone = step(2, inputs, synchronized=False)
    first = step(1, inputs[:2])
    np.testing.assert_allclose(alone["outputs"][:2], first["outputs"], atol=1e-5)
