"""Detectors by plain `compile` and `fit`, and in files."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.detection.config import FasterRCNNConfig
from sact_tf.detection.faster_rcnn import FasterRCNN
from sact_tf.model_garden import detection_configs, detection_tasks
from sact_tf.models.config import BackboneConfig
from tests.detection import tiny

COSTS = {"ponder_cost", "units_block1", "units_block2", "units_block3", "flops"}
HEAD_COSTS = {"head_ponder_cost", "head_flops"}
LOSSES = ("proposal_score_loss", "proposal_box_loss", "class_loss", "box_loss")


def batch():
    """Two images with an object or two; so few anchors that all are in the sample."""
    images = tf.random.stateless_uniform([2, 64, 48, 3], [1, 2], -1.0, 1.0)
    labels = {
        "boxes": tf.constant(
            [[[8.0, 8, 40, 40], [30, 20, 60, 44]], [[0, 0, 30, 30], [-1, -1, -1, -1]]]
        ),
        "classes": tf.constant([[1, 3], [2, -1]]),
        "image_shapes": tf.constant([[64.0, 48.0], [50.0, 48.0]]),
    }
    return images, labels


def made():
    """Always the same one; all regions are in the sample of the second stage."""
    tf_keras.utils.set_random_seed(0)
    head = {"head_adaptivity": "act", "head_tau": 0.3}
    detector = tiny.detector(tau=0.1, settings={"num_sampled": 22, **head})
    return tiny.decided(detector)


@pytest.fixture(scope="module")
def trained():
    detector = made()
    detector.compile(tf_keras.optimizers.SGD(0.01, momentum=0.9))
    data = tf.data.Dataset.from_tensors(batch())
    return detector, detector.fit(data.repeat(3), verbose=0, epochs=1).history


def test_logs(trained):
    detector, history = trained
    assert set(history) == {"loss", "auxiliary_loss", *LOSSES, *COSTS, *HEAD_COSTS}
    data = tf.data.Dataset.from_tensors(batch())
    logs = detector.evaluate(data, verbose=0, return_dict=True)
    parts = [logs[name] for name in (*LOSSES, "auxiliary_loss")]
    assert logs["loss"] == pytest.approx(sum(parts), rel=1e-5)
    images, labels = batch()
    record = detector.detect(images, labels["image_shapes"])["record"]
    assert logs["flops"] == pytest.approx(np.mean(record["flops"]), rel=1e-5)
    penalties = 0.1 * logs["ponder_cost"] + 0.3 * logs["head_ponder_cost"]
    assert logs["auxiliary_loss"] == pytest.approx(penalties, rel=1e-5)


def test_first_losses_are_those_of_the_gardens_trainer():
    images, labels = batch()
    ours = made()
    ours.compile(tf_keras.optimizers.SGD(0.01))
    config = detection_configs.DetectionTask()
    config.train_data.global_batch_size = 2
    task = detection_tasks.DetectionTask(config)
    theirs, optimizer = made(), tf_keras.optimizers.SGD(0.01)
    more = {**labels, "boxes_left_out": tf.zeros([2], tf.int32)}
    for _ in range(3):
        logs = ours.train_on_batch(images, labels, return_dict=True)
        metrics = task.build_metrics(training=True)
        task.train_step((images, more), theirs, optimizer, metrics)
        expected = {metric.name: float(metric.result()) for metric in metrics}
        for name in (*LOSSES, "auxiliary_loss", *COSTS, *HEAD_COSTS):
            assert logs[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), name
        assert logs["loss"] == pytest.approx(expected["total_loss"], rel=1e-4)


def test_a_step_is_traced_once():
    traced = []

    class Counted(FasterRCNN):
        def train_step(self, data):
            traced.append(data)
            return super().train_step(data)

    model = Counted(tiny.detector("none").config)
    model.compile("adam")
    model.fit(tf.data.Dataset.from_tensors(batch()).repeat(2), verbose=0)
    assert len(traced) == 1


def test_files(trained, tmp_path):
    detector, _ = trained
    images, _ = batch()
    path = tmp_path / "detector.keras"
    detector.save(path)
    again = sact_tf.load_model(path)
    assert again.get_config() == detector.get_config()
    expected, found = detector.detect(images), again.detect(images)
    for key in ("boxes", "scores", "classes", "count"):
        np.testing.assert_array_equal(found[key], expected[key])
    data = tf.data.Dataset.from_tensors(batch())
    assert again.evaluate(data, verbose=0) == detector.evaluate(data, verbose=0)
    ours, theirs = again.optimizer.variables, detector.optimizer.variables
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    again.extractor.tau = 0.25  # Is not what the config says any more.
    assert FasterRCNN.from_config(again.get_config()).extractor.tau == 0.25


def test_messages():
    wrong = {
        "family 'imagenet'": {"backbone": BackboneConfig(family="cifar", units=20)},
        "num_classes counts the background": {"num_classes": 1},
        "head_stride must be 1 or 2": {"head_stride": 3},
        "num_sampled must be an integer of at least 1": {"num_sampled": 0},
        "anchor_sizes must be positive": {"anchor_sizes": ()},
    }
    for message, options in wrong.items():
        with pytest.raises(ValueError, match=message):
            FasterRCNNConfig(**options)
    detector = tiny.detector("none")
    with pytest.raises(ValueError, match=r"losses and metrics of its own.*loss='mse'"):
        detector.compile("sgd", loss="mse")
    detector.compile("sgd", run_eagerly=True)
    images, labels = batch()
    with pytest.raises(ValueError, match=r"dict with boxes and classes.*\['boxes'\]"):
        detector.train_on_batch(images, {"boxes": labels["boxes"]})
    detector.compile("sgd")
    data = tf.data.Dataset.from_tensor_slices(batch()).batch(2)
    with pytest.raises(ValueError, match="drop_remainder=True"):
        detector.fit(data, verbose=0)
