import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import Dense

FEATURES = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype("f")
MASK = np.random.default_rng(1).uniform(size=(2, 5, 7)) < 0.3


def test_residuals_reach_active_positions_only():
    geometry = Dense(tf.constant(FEATURES))
    geometry.add(tf.ones_like(FEATURES))
    geometry.halt(tf.constant(MASK))
    geometry.add(tf.ones_like(FEATURES))
    expected = FEATURES + 1.0 + MASK[..., np.newaxis]
    np.testing.assert_allclose(geometry.features(1), expected)
    np.testing.assert_allclose(
        geometry.global_mean(), expected.mean(axis=(1, 2)), atol=1e-6
    )


@pytest.mark.parametrize("per_image", [False, True])
def test_output_is_the_weighted_sum(per_image):
    geometry = Dense(tf.constant(FEATURES), per_image)
    shape = (3, 2) if per_image else (3, 2, 5, 7)
    weights = np.random.default_rng(2).dirichlet(np.ones(3), shape[1:])
    weights = np.moveaxis(weights, -1, 0).astype("f")
    expected = 0.0
    for index, weight in enumerate(weights):
        if index:
            left = tf.constant(weights[index:].sum(axis=0))
            geometry.halt(left > 0, left)
            geometry.add(tf.ones_like(FEATURES))
        over_map = weight[:, None, None, None] if per_image else weight[..., None]
        expected = expected + over_map * geometry.features(0)
    np.testing.assert_allclose(geometry.leave(), expected, atol=1e-6)
