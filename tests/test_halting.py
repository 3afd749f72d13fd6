import numpy as np
import pytest
import tensorflow as tf

from sact_tf import halting
from tests import golden

MATH = dict(np.load(golden.SAMPLES / "act_math.npz"))
DEPTHS = (1, 2, 3, 5, 23)


def run(scores, epsilon=0.01):
    """The whole algorithm on scores [..., L - 1]: its cost."""
    state, flags = halting.start(tf.shape(scores)[:-1]), []
    for index in range(scores.shape[-1]):
        state = halting.step(state, scores[..., index], epsilon)
        flags.append(state.active)
    return cost(scores, flags)


def cost(scores, flags):
    """The cost from scores [..., L - 1] and a list of flags [...]."""
    axes = [len(scores.shape) - 1, *range(len(scores.shape) - 1)]
    none = tf.zeros([0, *scores.shape[:-1]], tf.bool)
    return halting.cost(tf.transpose(scores, axes), tf.stack(flags) if flags else none)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("variant", ["wrapper", "early_stopping"])
def test_act_equals_the_authors(depth, variant):
    expected = {}
    # One unit has no variants, and its outputs are not among the data.
    for prefix in (f"act/L{depth}/", f"act/L{depth}/{variant}/"):
        for key, value in MATH.items():
            if key.startswith(prefix):
                expected[key.removeprefix(prefix)] = value
    scores = tf.constant(MATH[f"act/L{depth}/h"])
    states = tf.constant(MATH[f"act/L{depth}/states"])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([scores, states])
        state = run(scores)
        distribution = state.halting_distribution
        ponder_cost = tf.reduce_sum(state.ponder_cost)
        outputs = tf.reduce_sum(distribution[..., tf.newaxis] * states, axis=1)
        weighted = tf.reduce_sum(outputs * MATH[f"act/L{depth}/R"])
    np.testing.assert_array_equal(state.num_units, expected["num_units"])
    if depth == 1:
        expected["outputs"] = MATH["act/L1/states"][:, 0]
        expected["grad_outputsR/states"] = MATH["act/L1/R"][:, np.newaxis]
    for name, actual in {
        "ponder_cost": state.ponder_cost,
        "halting_distribution": distribution,
        "outputs": outputs,
        "grad_outputsR/states": tape.gradient(weighted, states),
    }.items():
        np.testing.assert_allclose(actual, expected[name], atol=1e-6, rtol=0)
    if depth > 1:
        gradient = tape.gradient(ponder_cost, scores)
        np.testing.assert_array_equal(gradient, expected["grad_ponder/h"])
        # These sum up to six products of size up to ten: 1e-6 relative to that.
        np.testing.assert_allclose(
            tape.gradient(weighted, scores),
            expected["grad_outputsR/h"],
            atol=1e-6,
            rtol=1e-6,
        )


@pytest.mark.parametrize("depth", DEPTHS)
def test_sact_equals_the_authors(depth):
    prefix = f"sact/L{depth}/residual/"
    expected = {
        key.removeprefix(prefix): value
        for key, value in MATH.items()
        if key.startswith(prefix)
    }
    scores = tf.constant(MATH[f"sact/L{depth}/h"])
    residuals = tf.constant(MATH[f"sact/L{depth}/residuals"])
    inputs = tf.constant(MATH[f"sact/L{depth}/inputs"])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([scores, residuals, inputs])
        state, features = halting.start(inputs.shape[:3]), inputs
        flags, maps = [], []
        for index in range(depth):
            mask = tf.cast(state.active, tf.float32)[..., tf.newaxis]
            if f"residual_mask/unit_{index + 1}" in expected:
                np.testing.assert_array_equal(
                    mask, expected[f"residual_mask/unit_{index + 1}"]
                )
            # The first unit is never masked, and then everything is active anyway.
            features += mask * residuals[:, :, :, index]
            maps.append(features)
            if index < depth - 1:
                state = halting.step(state, scores[..., index], 0.01)
                flags.append(state.active)
        state = cost(scores[..., : depth - 1], flags)
        probabilities = tf.unstack(state.halting_distribution, axis=-1)
        outputs = tf.add_n(
            [p[..., tf.newaxis] * x for p, x in zip(probabilities, maps, strict=True)]
        )
        ponder_cost = tf.reduce_sum(state.ponder_cost)
        weighted = tf.reduce_sum(outputs * MATH[f"sact/L{depth}/R"])
    np.testing.assert_array_equal(state.num_units, expected["num_units"])
    actual = {
        "ponder_cost": state.ponder_cost,
        "halting_distribution": state.halting_distribution,
        "outputs": outputs,
        "grad_outputsR/residuals": tape.gradient(weighted, residuals),
        "grad_outputsR/inputs": tape.gradient(weighted, inputs),
    }
    if depth > 1:
        actual["grad_outputsR/h"] = tape.gradient(weighted, scores)
        np.testing.assert_array_equal(
            tape.gradient(ponder_cost, scores), expected["grad_ponder/h"]
        )
    for name, values in actual.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6, rtol=1e-6)


def test_boundary_is_float32_and_halts_on_equality():
    below, boundary, above = (
        float(MATH[name]) for name in ("below", "boundary_float32", "above")
    )
    state = run(tf.constant([[below], [boundary], [above]]))
    np.testing.assert_array_equal(state.num_units, [2, 1, 1])


def test_gradient_of_ponder_cost_is_minus_one_before_the_halting_unit():
    scores = tf.constant([[0.2, 0.3, 0.6, 0.9], [0.995, 0.1, 0.1, 0.1]])
    with tf.GradientTape() as tape:
        tape.watch(scores)
        state = run(scores)
        total = tf.reduce_sum(state.ponder_cost)
    np.testing.assert_array_equal(state.num_units, [3, 1])
    np.testing.assert_array_equal(
        tape.gradient(total, scores), [[-1, -1, 0, 0], [0, 0, 0, 0]]
    )


def test_positions_that_never_start_cost_nothing():
    started = tf.constant([True, False, True])
    scores = tf.constant([0.4, 0.4, 1.0])
    state = halting.step(halting.start([3], started), scores, 0.01)
    np.testing.assert_allclose(state.remainder, [0.6, 0.0, 0.0])
    spent = halting.cost(scores[tf.newaxis], state.active[tf.newaxis], started)
    np.testing.assert_array_equal(spent.num_units, [2, 0, 1])
    np.testing.assert_allclose(
        tf.reduce_sum(spent.halting_distribution, axis=-1), [1.0, 0.0, 1.0]
    )
    assert spent.ponder_cost[1] == 0


def test_a_score_that_is_nan_never_halts_early():
    state = run(tf.constant([[np.nan, 0.999]]))
    assert state.num_units[0] == 3
    assert np.isnan(state.ponder_cost[0])


@pytest.mark.parametrize("height, width, tile", [(6, 8, 2), (7, 5, 3), (2, 3, 8)])
def test_shared_scores_are_means_over_tiles(height, width, tile):
    scores = np.random.default_rng(0).uniform(size=(2, height, width)).astype("f")
    shared = halting.share_in_tiles(tf.constant(scores), tile).numpy()
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            cell = np.s_[:, top : top + tile, left : left + tile]
            mean = scores[cell].mean(axis=(1, 2), keepdims=True)
            np.testing.assert_allclose(
                shared[cell], np.broadcast_to(mean, scores[cell].shape), rtol=1e-6
            )
