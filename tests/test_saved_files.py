"""Files and folders that earlier versions wrote; see make_saved_files."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

import sact_tf
from sact_tf.checkpoints import files
from sact_tf.model_garden import backbones, detectors, runs
from tests import make_saved_files
from tests.make_saved_files import SAVED
from tests.models.test_resnet import images


@pytest.fixture(scope="module")
def expected():
    return dict(np.load(SAVED / "expected.npz"))


def assert_equal(values, expected):
    """What was computed then, by another TensorFlow build perhaps."""
    for key, value in values.items():
        scale = np.abs(expected[key]).max() + 1e-6
        np.testing.assert_allclose(
            value, expected[key], rtol=0, atol=1e-4 * scale, err_msg=key
        )


def test_a_network(expected):
    path = SAVED / "network.keras"
    network = sact_tf.load_model(path)
    record = network.introspect(images())
    assert_equal(make_saved_files.results("network", record), expected)
    # The optimizer's momenta are there, too.
    assert any(np.any(value) for value in network.optimizer.variables[2:])
    assert files.fingerprint(network) == "82f61067a3a56da1"


def test_a_folder_of_fit(expected, tmp_path):
    folder = shutil.copytree(SAVED / "fit", tmp_path / "fit")
    network = make_saved_files.small()
    make_saved_files.fit(network, folder, make_saved_files.EPOCHS)
    record = network.introspect(images())
    assert_equal(make_saved_files.results("fit", record), expected)
    # One epoch more, from the momenta that are there.
    make_saved_files.fit(network, folder, make_saved_files.EPOCHS + 1)
    record = network.introspect(images())
    assert_equal(make_saved_files.results("fit_more", record), expected)


def test_a_run_of_the_garden(expected):
    run = runs.load(SAVED / "classifier")
    record = run.network.introspect(images())
    assert_equal(make_saved_files.results("classifier", record), expected)
    # Optimizers know variables by their order.
    names = make_saved_files.names(run.network)
    assert names.tolist() == expected["classifier/names"].tolist()
    # Other tasks take the backbone alone.
    backbone = backbones.SACTResNetBackbone(run.network.config)
    status = tf.train.Checkpoint(backbone=backbone).read(run.checkpoint)
    status.expect_partial().assert_existing_objects_matched()
    network = backbones.build_network(run.model.backbone.sact_resnet, num_classes=10)
    model = backbones.ClassificationModel(network)
    checkpoint = tf.train.Checkpoint(model=model, **model.checkpoint_items)
    status = checkpoint.read(run.checkpoint)
    status.expect_partial().assert_existing_objects_matched()
    for part in (backbone, network):
        np.testing.assert_array_equal(
            part.blocks[1].units[1].conv1.kernel,
            run.network.blocks[1].units[1].conv1.kernel,
        )


def test_a_run_of_a_detector(expected):
    detector = detectors.load(SAVED / "detector").detector
    found = detector.detect(images(1))
    values = make_saved_files.results("detector", found["record"])
    assert_equal({**values, **make_saved_files.found(found)}, expected)
    names = make_saved_files.names(detector)
    assert names.tolist() == expected["detector/names"].tolist()
