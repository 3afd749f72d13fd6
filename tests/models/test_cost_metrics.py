"""Networks inside other models: what they cost is in the logs of any training step."""

import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.models.cost_metrics import CostMetric
from tests import replicas

COSTS = ("ponder_cost", "units_block1", "units_block2", "units_block3", "flops")


def network():
    return sact_tf.ResNet("cifar", (2, 1, 1), num_classes=4, base_channels=2)


def images(count=4):
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(count, 8, 8, 3)).astype("f")
    return pictures, rng.integers(0, 4, size=count)


class Wrapper(tf_keras.Model):
    """With a training step of its own, which does not call `compute_metrics`."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, pictures, training=None):
        return self.inner(pictures, training=training)

    def train_step(self, data):
        pictures, labels = data
        with tf.GradientTape() as tape:
            outputs = self.inner(pictures, training=True)
            loss = self.compute_loss(pictures, labels, outputs)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return {metric.name: metric.result() for metric in self.metrics}


class Subclass(sact_tf.ResNet):
    train_step = tf_keras.Model.train_step


def functional(inner):
    inputs = tf_keras.Input((None, None, 3))
    return tf_keras.Model(inputs, inner(inputs) * 2)


def sequential(inner):
    return tf_keras.Sequential([tf_keras.layers.Rescaling(1.0), inner])


def compiled(model, **options):
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.SGD(0.0), loss, **options)
    return model


def means(inner, pictures):
    """What the logs of an evaluation must contain."""
    record = inner.introspect(pictures)
    blocks = record["blocks"]
    values = [record["ponder_cost"], *(block["num_units"] for block in blocks)]
    return [float(np.mean(value)) for value in (*values, record["flops"])]


@pytest.mark.parametrize("wrap", [functional, sequential, Wrapper])
def test_costs_of_a_network_inside_another(wrap):
    inner = network()
    pictures, labels = images()
    model = compiled(wrap(inner))

    class Look(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            inner(pictures[:1] * 100)  # Nothing of the training.
            model(pictures[:1] * 100)

    data = tf.data.Dataset.from_tensor_slices((pictures, labels)).batch(2)
    history = model.fit(data, validation_data=data, callbacks=[Look()], verbose=0)
    logs = {name: values[0] for name, values in history.history.items()}
    for name, value in zip(COSTS, means(inner, pictures), strict=True):
        assert logs[f"val_{name}"] == pytest.approx(value, rel=1e-5)
        assert logs[name] > 0
    if wrap is sequential:
        model.predict(pictures[:1] * 100, verbose=0)
        assert float(inner.metrics[-1].result()) == pytest.approx(logs["val_flops"])


def test_costs_of_a_step_that_is_not_in_a_function():
    model = compiled(sequential(network()), run_eagerly=True)
    pictures, labels = images()
    logs = model.test_on_batch(pictures, labels, return_dict=True)
    expected = means(model.layers[-1], pictures)
    assert [logs[name] for name in COSTS] == pytest.approx(expected, rel=1e-5)


def test_costs_of_a_subclass():
    model = Subclass("cifar", (2, 1, 1), num_classes=4, base_channels=2)
    logs = compiled(model).train_on_batch(*images(), return_dict=True)
    assert all(logs[name] > 0 for name in COSTS)


def test_costs_of_all_replicas():
    pictures, labels = images()
    data = tf.data.Dataset.from_tensor_slices((pictures, labels)).batch(4)
    with replicas.mirrored().scope():
        inner = network()
        model = compiled(sequential(inner))
    logs = model.evaluate(data, verbose=0, return_dict=True)
    expected = means(inner, pictures)
    assert [logs[name] for name in COSTS] == pytest.approx(expected, rel=1e-5)


def test_unknown_costs_are_not_zero():
    metric = CostMetric("flops")
    assert np.isnan(metric.result())


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize("wrap", [functional, sequential])
def test_files_of_a_network_inside_another(tmp_path, wrap, ending):
    model = wrap(network())
    pictures, _ = images()
    logits = model(pictures)
    path = str(tmp_path / f"model.{ending}")
    model.save(path)
    again = tf_keras.models.load_model(path)
    np.testing.assert_array_equal(again(pictures), logits)
    model.save_weights(tmp_path / "some.weights.h5")
    other = wrap(network())
    other(pictures)
    other.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_array_equal(other(pictures), logits)


def test_checkpoints_of_a_network_that_was_called(tmp_path):
    model, other = network(), network()
    pictures, _ = images()
    logits = model(pictures)
    model.save_weights(tmp_path / "weights")  # In TensorFlow's form.
    other.load_weights(tmp_path / "weights").assert_existing_objects_matched()
    np.testing.assert_array_equal(other(pictures), logits)


def test_files_of_earlier_versions(tmp_path):
    """In .keras files the metrics had the place of another class."""
    path = str(tmp_path / "model.keras")
    model = network()
    model.save(path)
    earlier = str(tmp_path / "earlier.keras")
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(earlier, "w") as old:
        for name in new.namelist():
            (tmp_path / name).write_bytes(new.read(name))
            if name.endswith(".h5"):
                with h5py.File(tmp_path / name, "r+") as weights:
                    costs = weights["metrics"]
                    for cost in list(costs):
                        costs.move(cost, cost.replace("cost_metric", "mean"))
            old.write(tmp_path / name, name)
    pictures, _ = images()
    again = tf_keras.models.load_model(earlier)
    np.testing.assert_array_equal(again(pictures), model(pictures))
