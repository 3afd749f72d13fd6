"""The Garden's own detectors with a feature pyramid: trained, exported."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import exp_factory, task_factory, train_utils

from sact_tf.cli import export_saved_model
from sact_tf.model_garden import (
    backbones,
    fpn_export,
    registry_imports,  # noqa: F401
)
from tests.model_garden.test_backbones import SMALL, photographs, small_network
from tests.tools.calling import call

#: Of the Faster R-CNNs, beside the backbone.
FASTER_RCNN = {
    "input_size": [64, 64, 3],
    "max_level": 5,
    "num_classes": 4,
    "include_mask": False,
    "decoder": {"fpn": {"num_filters": 8}},
    "rpn_head": {"num_filters": 8},
    "detection_head": {"num_convs": 1, "num_filters": 8, "fc_dims": 8},
    "roi_generator": {
        "pre_nms_top_k": 20,
        "num_proposals": 10,
        "test_pre_nms_top_k": 20,
        "test_num_proposals": 10,
    },
    "roi_sampler": {"num_sampled_rois": 8},
    "detection_generator": {"max_num_detections": 5, "pre_nms_score_threshold": 0.0},
}
RETINANET = {
    "input_size": [64, 64, 3],
    "max_level": 5,
    "num_classes": 4,
    "decoder": {"fpn": {"num_filters": 8}},
    "head": {"num_convs": 1, "num_filters": 8},
    "detection_generator": {
        "max_num_detections": 5,
        "pre_nms_top_k": 50,
        "pre_nms_score_threshold": 0.0,
    },
}


def test_the_gardens_retinanet_trains(tmp_path):
    trained = backbones.ClassificationModel(small_network())
    checkpoint = tf.train.Checkpoint(model=trained, **trained.checkpoint_items)
    config = exp_factory.get_exp_config("sact_retinanet_coco").task
    config.model.override({"backbone": {"sact_resnet": {**SMALL, "tau": 0.3}}})
    config.init_checkpoint = checkpoint.write(str(tmp_path / "ckpt"))
    config.model.input_size = [64, 64, 3]
    config.model.max_level = 5
    config.losses.l2_weight_decay = 0.0
    config.model.decoder.fpn.num_filters = 16
    config.model.head.num_convs, config.model.head.num_filters = 1, 16
    task = task_factory.get_task(config)
    model = task.build_model()
    optimizer = tf_keras.optimizers.legacy.SGD(0.1)
    images = photographs()
    cells = {"3": 8, "4": 4, "5": 2}
    labels = {
        "cls_targets": {
            level: tf.ones([2, n, n, 9], tf.int32) for level, n in cells.items()
        },
        "box_targets": {level: tf.zeros([2, n, n, 36]) for level, n in cells.items()},
        "cls_weights": tf.ones([2, 84 * 9]),
        "box_weights": tf.ones([2, 84 * 9]),
    }
    task.initialize(model)
    backbone = model.backbone
    np.testing.assert_array_equal(
        backbone.root_layer.conv.kernel, trained.network.root_layer.conv.kernel
    )
    bias = backbone.blocks[1].halting_scores[0].local_conv.bias
    before = bias.numpy()
    backbone(images, training=True)
    (ponder_loss,) = backbone.losses
    metrics = task.build_metrics()
    logs = task.train_step((images, labels), model, optimizer, metrics)
    np.testing.assert_allclose(
        logs["total_loss"] - logs["model_loss"], ponder_loss, rtol=1e-3
    )
    assert bias.numpy() != before


def test_the_gardens_faster_rcnn_trains_on_a_pyramid():
    config = exp_factory.get_exp_config("ssb_fasterrcnn_fpn_coco").task
    small = {"units": [1, 2, 2, 1], "base_channels": 4}
    config.model.override({"backbone": {"sact_resnet": small}, **FASTER_RCNN})
    task = task_factory.get_task(config)
    model = task.build_model()
    assert model.backbone.config.sampling == "adaptive"
    cells = {str(level): 64 // 2**level for level in range(2, 6)}
    boxes = tf.constant([[[8.0, 8.0, 40.0, 40.0]]] * 2)
    anchors = {
        level: tf.tile(tf.constant([[0.0, 0, 16, 16]]), [n * n * 3, 1])
        for level, n in cells.items()
    }
    labels = {
        "anchor_boxes": {
            level: tf.reshape(tf.stack([a, a]), [2, cells[level], cells[level], 12])
            for level, a in anchors.items()
        },
        "image_info": tf.constant([[[64.0, 64], [64, 64], [1, 1], [0, 0]]] * 2),
        "gt_boxes": boxes,
        "gt_classes": tf.ones([2, 1], tf.int32),
        "rpn_score_targets": {
            level: tf.ones([2, n, n, 3], tf.int32) for level, n in cells.items()
        },
        "rpn_box_targets": {
            level: tf.zeros([2, n, n, 12]) for level, n in cells.items()
        },
    }
    saliency = model.backbone.blocks[1].units[1].sampler.saliency.kernel
    before = saliency.numpy()
    logs = task.train_step(
        (photographs(), labels),
        model,
        tf_keras.optimizers.legacy.SGD(0.1),
        task.build_metrics(),
    )
    assert np.isfinite(logs["loss"])
    assert (saliency.numpy() != before).any()


@pytest.mark.parametrize(
    "name, settings",
    [("sact_retinanet_coco", RETINANET), ("sact_fasterrcnn_fpn_coco", FASTER_RCNN)],
)
def test_a_run_is_exported(name, settings, tmp_path, monkeypatch, capsys):
    params = exp_factory.get_exp_config(name)
    small = {"units": [1, 2, 1, 1], "base_channels": 2}
    params.task.model.override({"backbone": {"sact_resnet": small}, **settings})
    run = tmp_path / "run"
    train_utils.serialize_config(params, str(run))
    model = task_factory.get_task(params.task).build_model()
    checkpoint = tf.train.Checkpoint(model=model)
    tf.train.CheckpointManager(checkpoint, str(run), 1).save()
    assert fpn_export.is_run(run)
    code, out, err = call(
        monkeypatch,
        capsys,
        export_saved_model,
        *("--model", run, "--output", tmp_path / "served", "--name", "objects"),
    )
    assert code == 0, err
    folder = tmp_path / "served" / "objects" / "1"
    assert str(folder) in out and (folder / "assets.extra/signatures.md").exists()
    loaded = tf.saved_model.load(str(folder))
    images = np.random.default_rng(0).integers(0, 256, [2, 48, 96, 3], np.uint8)
    found = loaded.signatures["tensors"](images=tf.constant(images))
    detector = fpn_export.PyramidDetector(run)
    expected = detector.serve(tf.constant(images))
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-3)
    np.testing.assert_array_equal(
        detector.model.backbone.root_layer.conv.kernel,
        model.backbone.root_layer.conv.kernel,
    )
    # In pixels of the images, which the network sees at two thirds of their size.
    boxes = expected["detection_boxes"].numpy()
    assert boxes[..., 2].max() <= 48 and 64 < boxes[..., 3].max() <= 96
    file = tf.io.encode_png(images[0]).numpy()
    of_file = loaded.signatures["serving_default"](images=tf.constant([file]))
    np.testing.assert_allclose(
        of_file["detection_scores"][0], found["detection_scores"][0], atol=1e-4
    )
    code, _, err = call(
        monkeypatch,
        capsys,
        export_saved_model,
        *("--model", run, "--output", tmp_path / "served", "--num_proposals", 3),
    )
    assert code == 2 and "knows no --num_proposals" in err


def test_other_runs_are_none_with_a_pyramid(tmp_path):
    params = exp_factory.get_exp_config("sact_resnet_cifar10")
    train_utils.serialize_config(params, str(tmp_path))
    tf.train.Checkpoint(step=tf.Variable(1)).write(str(tmp_path / "ckpt-1"))
    assert not fpn_export.is_run(tmp_path / "ckpt-1")
    with pytest.raises(ValueError, match="no run of a detector with a feature pyramid"):
        fpn_export.params_of(tmp_path / "ckpt-1")
