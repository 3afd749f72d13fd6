import pathlib

import pytest
from official.core import exp_factory
from official.modeling import hyperparams

from sact_tf.model_garden import detectors, registry_imports  # noqa: F401

FOLDER = pathlib.Path(__file__).parents[2] / "object_detection_configs"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_can_be_read(path):
    kind = "digit_scenes" if path.stem.startswith("digit") else "coco"
    pyramid = path.stem.startswith("sact")
    name = path.stem if pyramid else f"sact_fasterrcnn_{kind}"
    params = exp_factory.get_exp_config(name)
    params = hyperparams.override_params_dict(params, str(path), is_strict=True)
    params.validate()
    backbone = params.task.model.backbone.sact_resnet
    if pyramid:
        assert f"--experiment={name} " in path.read_text()
        assert (backbone.adaptivity, backbone.num_blocks) == ("sact", None)
        epochs = params.trainer.train_steps * 16 / 118_287
        assert params.task.train_data.global_batch_size == 16
        assert round(epochs, 2) == 12
        return
    assert backbone.num_blocks == detectors.NUM_BLOCKS
    assert path.name in path.read_text()  # In the command at its top.
    if path.stem.startswith(("coco", "head")):
        assert list(params.task.reference_units) == [3, 4, 23]
        assert params.task.train_data.shorter_side == 600
    else:
        assert list(params.task.reference_units) == list(backbone.units[:3])
        detector = detectors.build(params.task.model)
        assert len(detector.extractor.blocks) == 3


def test_rows_of_table_1():
    assert {path.stem for path in FILES} >= {
        "coco_resnet50",
        "coco_resnet101",
        "coco_sact_0.005",
        "coco_sact_0.001",
    }
