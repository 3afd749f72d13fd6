"""Writes files and folders that later versions must be able to read.

    python -m tests.make_saved_files

Those under version control were written by this script as of commit 1a78f9b, before
networks had a backbone. They are not to be written anew: a change that
cannot read them is a change that loses somebody's network. Of expected.npz the
detector's boxes and scores alone are newer: regions at the edge of an image lost a line
of samples to rounding then (by as much as 0.0005 in one of ten scores).
"""

import pathlib
import shutil
import tempfile
import zipfile

import numpy as np
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf import training
from sact_tf.model_garden import detectors, runs
from tests.detection import coco_files
from tests.model_garden import test_detection_tasks, test_tasks
from tests.models.test_resnet import images, spread_halting, tiny

SAVED = pathlib.Path(__file__).parent / "data" / "saved"
#: Epochs that the run of `training.fit` has seen.
EPOCHS = 2


def batches(classes):
    """A batch, again and again, of images with labels."""
    data = tf.data.Dataset.from_tensors((images(2, 32, 32), np.arange(2) % classes))
    return data.repeat()


def compiled(model):
    model.compile(
        tf_keras.optimizers.SGD(0.05, momentum=0.9),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def small(family="cifar"):
    """A network as in the files, with weights of its own."""
    if family == "cifar":
        tf_keras.utils.set_random_seed(1)
        network = sact_tf.ResNet(family, (2, 1, 1), "sact", 3, base_channels=2)
        return spread_halting(network)
    return spread_halting(tiny(units=(2, 1, 2, 1), base_channels=1, num_classes=3))


def save_small(model, path):
    """Saves a network; tf_keras does not compress its files."""
    with tempfile.TemporaryDirectory() as folder:
        written = pathlib.Path(folder) / "model.keras"
        model.save(written)
        with (
            zipfile.ZipFile(written) as source,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
        ):
            for name in source.namelist():
                target.writestr(name, source.read(name))


def fit(model, folder, epochs):
    training.fit(
        compiled(model),
        batches(3),
        epochs=epochs,
        steps_per_epoch=1,
        directory=folder,
        verbose=0,
    )
    return model


def results(name, record):
    keys = ("logits", "ponder_cost", "flops")
    return {f"{name}/{key}": record[key].numpy() for key in keys if key in record}


def found(record):
    keys = ("boxes", "scores", "classes", "count")
    return {f"detector/{key}": record[key].numpy() for key in keys}


def garden_run(params, name):
    """Trains, and keeps what is needed to read the run again."""
    with tempfile.TemporaryDirectory() as folder:
        runs.train(params, folder, "train")
        target = SAVED / name
        target.mkdir()
        for file in pathlib.Path(folder).iterdir():
            last = file.name.startswith(f"ckpt-{params.trainer.train_steps}.")
            if last or file.name in ("checkpoint", "params.yaml"):
                shutil.copy(file, target)
    return target


def names(model):
    return np.array([variable.name for variable in model.trainable_variables])


def main():
    SAVED.mkdir(parents=True)
    expected = {}
    network = compiled(small("imagenet"))
    network.fit(batches(3), steps_per_epoch=1, verbose=0)
    save_small(network, SAVED / "network.keras")
    expected |= results("network", network.introspect(images()))

    network = fit(small(), SAVED / "fit", EPOCHS)
    for file in (SAVED / "fit").glob("ckpt-1.*"):
        file.unlink()
    expected |= results("fit", network.introspect(images()))
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(SAVED / "fit", f"{folder}/fit")
        network = fit(small(), copy, EPOCHS + 1)
    expected |= results("fit_more", network.introspect(images()))

    run = garden_run(
        test_tasks.experiment(base_channels=1, root_channels=1), "classifier"
    )
    network = runs.load(run).network
    expected |= results("classifier", network.introspect(images()))
    expected["classifier/names"] = names(network)

    with tempfile.TemporaryDirectory() as folder:
        params = test_detection_tasks.experiment(
            coco_files.write(pathlib.Path(folder)), base_channels=1, root_channels=1
        )
        params.task.model.proposal_filters = 4
        run = garden_run(params, "detector")
    detector = detectors.load(run).built.detector
    record = detector.detect(images(1))
    expected |= {**found(record), **results("detector", record["record"])}
    expected["detector/names"] = names(detector)
    np.savez_compressed(SAVED / "expected.npz", **expected)


if __name__ == "__main__":
    main()
