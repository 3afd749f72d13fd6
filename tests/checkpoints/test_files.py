import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from tests.models.test_resnet import images, tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    model = tiny(units=(1, 2, 1, 1))
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.SGD(0.1, momentum=0.9), loss)
    model.fit(images(2), np.array([0, 1]), verbose=0)
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return model, path


def test_loaded_as_tf_keras_loads_it(trained, monkeypatch):
    model, path = trained

    def through_the_archive(*arguments, **options):
        raise AssertionError("this takes minutes for large networks")

    monkeypatch.setattr(tf_keras.models, "load_model", through_the_archive)
    loaded = sact_tf.load_model(path)
    assert loaded.get_config() == model.get_config()
    for value, wanted in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, wanted)
    for value, wanted in zip(
        loaded.optimizer.variables, model.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(value, wanted)
    assert sact_tf.load_model(path, compile=False).optimizer is None


def test_whatever_else_tf_keras_loads(trained, tmp_path):
    model, _ = trained
    inputs = tf_keras.Input([None, None, 3])
    tf_keras.Model(inputs, model(inputs)).save(tmp_path / "wrapper.keras")
    loaded = sact_tf.load_model(tmp_path / "wrapper.keras")
    batch = tf.constant(images(1))
    np.testing.assert_allclose(loaded(batch), model(batch), atol=1e-5)


def test_what_is_no_model(trained, tmp_path):
    with pytest.raises(OSError, match="No file or directory"):
        sact_tf.load_model(tmp_path / "nothing.keras")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ValueError):
        sact_tf.load_model(tmp_path / "other.keras")
