"""What everything in the catalogue promises, each promise once."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from tests.conformance import catalogue
from tests.conformance.catalogue import ENTRIES, built, with_weights
from tests.replicas import mirrored


def entries(**wanted):
    """Names of the entries whose fields have some values, as parameters."""
    names = [
        name
        for name, entry in ENTRIES.items()
        if all(getattr(entry, key) == value for key, value in wanted.items())
    ]
    return pytest.mark.parametrize("name", names)


def said(name, maps, training=False):
    """What an entry says of maps: a list of tensors."""
    return tf.nest.flatten(ENTRIES[name].call(built(name), maps, training))


@functools.cache
def expected(name):
    """What it says of the catalogue's maps, at inference and outside of functions."""
    return [value.numpy() for value in said(name, ENTRIES[name].maps())]


@functools.cache
def traced(name):
    """At inference, as a function of maps of unknown sizes."""
    spec = tf.TensorSpec([None, None, None, ENTRIES[name].size[2]])
    function = tf.function(
        functools.partial(said, name), input_signature=[spec], autograph=False
    )
    return function.get_concrete_function()


def assert_close(found, wanted, tolerance=1e-5):
    """Equal up to rounding, relative to the largest number; integers are equal."""
    for value, other in zip(found, wanted, strict=True):
        value, other = np.asarray(value), np.asarray(other)
        assert value.shape == other.shape and value.dtype == other.dtype
        if value.dtype.kind in "iub":
            np.testing.assert_array_equal(value, other)
        else:
            atol = tolerance * max(1.0, np.abs(other).max())
            np.testing.assert_allclose(value, other, rtol=0, atol=atol)


@entries()
def test_variables_are_there_at_once_and_have_full_names(name):
    entry, layer = ENTRIES[name], built(name)
    assert layer.built
    before = [id(weight) for weight in layer.weights]
    outputs = expected(name)
    assert [id(weight) for weight in layer.weights] == before
    assert bool(before) == entry.variables
    assert all(np.isfinite(value).all() for value in outputs)
    assert np.std(outputs[0]) > 0
    names = [weight.name for weight in layer.weights]
    assert len(set(names)) == len(names)
    if not isinstance(layer, tf_keras.Model) and name not in catalogue.PARTS:
        assert all(each.startswith(f"{layer.name}/") for each in names)


def assert_takes_any_size(name, function):
    """And says of maps of all sizes what the entry says."""
    entry = ENTRIES[name]
    assert_close(function(tf.constant(entry.maps())), expected(name))
    height, width = (2 * side + 1 for side in entry.size[:2])
    other = entry.maps(height, width, batch=1)
    assert_close(function(tf.constant(other)), said(name, other))


# Of models these are what is saved below: once optimised is enough.
@entries(file=False)
def test_functions_of_unknown_sizes(name):
    assert_takes_any_size(name, traced(name))


@entries()
def test_an_image_does_not_depend_on_its_batch(name):
    maps = ENTRIES[name].maps()
    apart = [said(name, maps[index : index + 1]) for index in range(2)]
    together = [np.concatenate(pair) for pair in zip(*apart, strict=True)]
    assert_close(together, expected(name))


@entries(trains=True)
def test_gradients_reach_every_variable(name):
    entry, layer = ENTRIES[name], built(name)
    before = layer.get_weights()
    maps = tf.constant(entry.maps())
    with tf.GradientTape() as tape:
        tape.watch(maps)
        outputs = said(name, maps, training=True)
        loss = sum(
            tf.reduce_sum(tf.square(value) + value)
            for value in outputs
            if value.dtype.is_floating
        )
        loss += tf.add_n(layer.losses or [0.0])
    variables = layer.trainable_variables
    gradients = tape.gradient(loss, [maps, *variables])
    layer.set_weights(before)  # Moving statistics have moved.
    names = ["maps", *(variable.name for variable in variables)]
    for where, gradient in zip(names, gradients, strict=True):
        assert gradient is not None, where
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, where


@entries()
def test_mixed_bfloat16(name):
    entry = ENTRIES[name]
    layer = with_weights(entry.make("mixed_bfloat16"), name)
    assert all(
        variable.dtype == tf.float32
        for variable in layer.variables
        if variable.dtype.is_floating
    )
    outputs = tf.nest.flatten(entry.call(layer, entry.maps(), False))
    assert outputs[0].dtype == entry.dtype
    for value, wanted in zip(outputs, expected(name), strict=True):
        value = tf.cast(value, tf.float32).numpy()
        assert np.isfinite(value).all() and value.shape == wanted.shape
    # Where a score is close to the threshold, a position may halt elsewhere.
    value, wanted = tf.cast(outputs[0], tf.float32), expected(name)[0]
    assert np.mean(np.abs(value - wanted)) < 0.1 * np.std(wanted)


@entries()
def test_saved_models(name, tmp_path):
    module = tf.Module()
    # Not the layer itself, of which Keras would save functions that nobody asked for.
    module.variables_of_layer, module.call = built(name).variables, traced(name)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    if ENTRIES[name].file:
        assert_takes_any_size(name, loaded.call)
    else:
        maps = tf.constant(ENTRIES[name].maps())
        assert_close(loaded.call(maps), expected(name))


@entries(config=True)
def test_configs(name):
    layer = built(name)
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    assert [v.name for v in again.weights] == [v.name for v in layer.weights]
    with_weights(again, name)
    entry = ENTRIES[name]
    found = tf.nest.flatten(entry.call(again, entry.maps(), False))
    assert_close(found, expected(name), tolerance=0)


@entries(file=True)
def test_files(name, tmp_path):
    layer, entry = built(name), ENTRIES[name]
    layer.save(tmp_path / "model.keras")
    again = sact_tf.load_model(tmp_path / "model.keras")
    assert again.get_config() == layer.get_config()
    for value, wanted in zip(again.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(value, wanted)
    found = tf.nest.flatten(entry.call(again, entry.maps(), False))
    assert_close(found, expected(name), tolerance=0)


@entries(replicas=True)
def test_two_replicas_compute_what_one_does(name):
    """Outputs, gradients and statistics of a batch that the replicas share."""
    entry = ENTRIES[name]

    def step(replicas):
        strategy = mirrored(replicas)
        with strategy.scope():
            layer = with_weights(entry.make(), name)
        maps = np.split(entry.maps(), replicas)

        def forward_and_backward(maps):
            with tf.GradientTape() as tape:
                outputs = tf.nest.flatten(entry.call(layer, maps, True))
                outputs = [v for v in outputs if v.dtype.is_floating]
                loss = sum(tf.reduce_sum(tf.square(v) + v) for v in outputs)
            return outputs, tape.gradient(loss, layer.trainable_variables)

        parts = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(maps[context.replica_id_in_sync_group])
        )
        outputs, gradients = (
            [strategy.experimental_local_results(value) for value in values]
            for values in strategy.run(forward_and_backward, (parts,))
        )
        return (
            [np.concatenate(values) for values in outputs],
            [np.sum(values, axis=0) for values in gradients],
            [weight.numpy() for weight in layer.non_trainable_weights],
        )

    for values, others in zip(step(2), step(1), strict=True):
        # Some gradients are sums of large numbers, and really zero.
        largest = max((np.abs(wanted).max() for wanted in others), default=0)
        for found, wanted in zip(values, others, strict=True):
            error = np.abs(found - wanted).max()
            assert error <= 1e-3 * np.abs(wanted).max() + 1e-5 * largest
