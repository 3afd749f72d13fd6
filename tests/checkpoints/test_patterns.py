"""Folders and files whose names TensorFlow takes for patterns."""

import pathlib
import shutil

import pytest
import tensorflow as tf

import sact_tf
from sact_tf.checkpoints import authors, files, patterns
from sact_tf.model_garden import runs

DATA = pathlib.Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("name", ["tau=[0.1]", "a*b", "a\\b"])
def test_published_checkpoints_are_read(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    for file in (DATA / "cifar_vanilla").glob("model.ckpt.*"):
        shutil.copy(file, folder / f"{name}{file.name.removeprefix('model')}")
    prefix = str(folder / f"{name}.ckpt")
    plain = str(DATA / "cifar_vanilla" / "model.ckpt")
    structure = authors.structure(prefix)
    assert structure == authors.structure(plain)
    one, other = sact_tf.ResNet(**structure), sact_tf.ResNet(**structure)
    sact_tf.load_authors_checkpoint(one, prefix)
    sact_tf.load_authors_checkpoint(other, plain)
    kernels = [model.root_layer.weights[0].numpy() for model in (one, other)]
    assert (kernels[0] == kernels[1]).all()
    with pytest.raises(FileNotFoundError, match="is no readable"):
        authors.structure(str(folder / "other.ckpt"))


def test_what_others_have_to_find_is_not_written_there(tmp_path):
    model = sact_tf.ResNet("cifar", (1, 1, 1), num_classes=3, base_channels=2)
    for write in (files.save, sact_tf.save_authors_checkpoint):
        with pytest.raises(ValueError, match=r"takes \[ for a pattern"):
            write(model, tmp_path / "[a]" / "model")
    with pytest.raises(ValueError, match="A run cannot be kept"):
        runs.train(None, tmp_path / "a*b")
    assert not list(tmp_path.iterdir())
    files.save(model, tmp_path / "[a]" / "model.keras")  # Keras' own files may be.
    assert files.load(tmp_path / "[a]" / "model.keras").units == (1, 1, 1)


def test_runs_that_are_there_are_found(tmp_path):
    folder = tmp_path / "tau=[0.1]"
    for step in (3, 5):
        variables = tf.train.Checkpoint(global_step=tf.Variable(step, dtype=tf.int64))
        manager = tf.train.CheckpointManager(variables, str(folder), max_to_keep=5)
        manager.save(checkpoint_number=step)
    (folder / "params.yaml").write_text("task: {}\n")
    assert runs.steps_done(str(folder)) == 5
    found = (str(folder), str(folder / "ckpt-5"), {"task": {}})
    assert runs.locate(folder) == found == runs.locate(folder / "ckpt-5")
    part = tf.Module()
    part.step = tf.Variable(0)
    with pytest.raises(ValueError, match="does not fit"):
        runs.restore(part, str(folder / "ckpt-5"), str(folder))
    tf.train.Checkpoint(model=part).write(str(folder / "of-model"))
    part.step.assign(7)
    runs.restore(part, str(folder / "of-model"), str(folder))
    assert int(part.step) == 0
    assert patterns.latest_checkpoint(tmp_path) is None


def test_folders_by_another_name(tmp_path):
    assert not patterns.is_pattern(tmp_path / "{a}, b=2")
    folder = tmp_path / "[a]"
    module = tf.Module()
    module.step = tf.Variable(3)
    tf.saved_model.save(module, str(folder))
    with patterns.literal_folder(folder) as literal:
        assert int(tf.saved_model.load(literal).step) == 3
