import shutil

import numpy as np
import pytest

import sact_tf
from sact_tf.checkpoints.authors import variables_by_authors_name
from tests import golden


@pytest.mark.parametrize("spec", golden.SPECS)
def test_names_and_shapes_are_the_published_ones(spec):
    import tensorflow as tf

    stored = tf.train.load_checkpoint(str(golden.SAMPLES / spec / "model.ckpt"))
    shapes = stored.get_variable_to_shape_map()
    ours = variables_by_authors_name(golden.network(spec))
    assert {name: v.shape.as_list() for name, v in ours.items()} == shapes


@golden.needs_whole
@pytest.mark.parametrize("spec", ["cifar_sact", "imagenet_tiny_sact"])
def test_checkpoints_of_tensorflow_1_load(spec):
    old, new = golden.network(spec), golden.network(spec)
    sact_tf.load_authors_checkpoint(old, golden.WHOLE / spec / "tf100" / "model-0")
    sact_tf.load_authors_checkpoint(new, golden.WHOLE / spec / "model.ckpt")
    for a, b in zip(old.weights, new.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"adaptivity": "act"}, "left over .*local_bn"),
        (
            {"units": (3, 3, 4)},
            "22 missing .*block_3/unit_3/halting_proba/global_bn/beta",
        ),
        ({"num_classes": 11}, r"of another shape .*logits.*\[10\] instead of \[11\]"),
        ({"family": "imagenet", "units": 50}, "missing .*resnet_v2"),
    ],
)
def test_misfits_are_refused_and_nothing_changes(options, message):
    options = {"family": "cifar", "units": 20, "num_classes": 10, **options}
    model = sact_tf.ResNet(**options)
    before = model.weights[0].numpy()
    with pytest.raises(ValueError, match=message):
        sact_tf.load_authors_checkpoint(
            model, golden.SAMPLES / "cifar_sact" / "model.ckpt"
        )
    np.testing.assert_array_equal(model.weights[0], before)


def test_missing_checkpoint():
    model = golden.network("cifar_sact")
    with pytest.raises(FileNotFoundError, match="no readable TensorFlow checkpoint"):
        sact_tf.load_authors_checkpoint(model, "/nowhere/model.ckpt")


def test_truncated_checkpoint(tmp_path):
    for file in (golden.SAMPLES / "cifar_act").glob("model.ckpt.*"):
        shutil.copy(file, tmp_path)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    model = golden.network("cifar_act")
    before = [weight.numpy() for weight in model.weights]
    with pytest.raises(ValueError, match="cannot be read"):
        sact_tf.load_authors_checkpoint(model, tmp_path / "model.ckpt")
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
