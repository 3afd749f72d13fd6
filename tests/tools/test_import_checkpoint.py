import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sact_tf.checkpoints.authors import variables_by_authors_name
from sact_tf.checkpoints.paths import variables_by_path
from sact_tf.cli import export_checkpoint, import_checkpoint
from tests import golden
from tests.tools.calling import call


@pytest.fixture
def imports(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, import_checkpoint, *arguments)


@pytest.fixture
def exports(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, export_checkpoint, *arguments)


def tensors(prefix):
    reader = tf.train.load_checkpoint(str(prefix))
    return {
        name: reader.get_tensor(name) for name in reader.get_variable_to_dtype_map()
    }


PUBLISHED = [
    *(
        pytest.param(golden.SAMPLES, spec, "model.ckpt", id=spec)
        for spec in golden.SPECS
    ),
    *(
        pytest.param(
            golden.WHOLE,
            spec,
            "tf100/model-0",
            id=f"{spec}-of-tensorflow-1",
            marks=golden.needs_whole,
        )
        for spec in ("cifar_sact", "imagenet_tiny_sact")
    ),
]


@pytest.mark.parametrize("folder, spec, prefix", PUBLISHED)
def test_there_and_back(folder, spec, prefix, imports, exports, tmp_path):
    published = folder / spec / prefix
    code, out, _ = imports(
        "--checkpoint", published, "--output", tmp_path / "net.keras", "--json"
    )
    assert code == 0
    assert json.loads(out)["adaptivity"] == golden.kind_of(spec)
    model = tf_keras.models.load_model(tmp_path / "net.keras")
    expected = golden.Golden(spec, "golden.npz")
    record = model.introspect(expected["images"])
    expected.close("logits", record["logits"], 1e-4)
    np.testing.assert_array_equal(record["flops"], golden.column(expected["flops"]))

    code, *_ = exports(
        "--model", tmp_path / "net.keras", "--output", tmp_path / "out" / "model.ckpt"
    )
    assert code == 0
    old, new = tensors(published), tensors(tmp_path / "out" / "model.ckpt")
    assert new.pop("global_step").dtype == np.int64
    old.pop("global_step", None)
    assert old.keys() == new.keys()
    for name, value in old.items():
        assert value.tobytes() == new[name].tobytes(), name
    # As TF-Slim's evaluation finds it, and as TensorFlow 1's Saver restores it.
    assert tf.train.latest_checkpoint(str(tmp_path / "out")) == str(
        tmp_path / "out" / "model.ckpt"
    )
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        name = max(old)
        variable = tf.compat.v1.get_variable(name, old[name].shape)
        saver = tf.compat.v1.train.Saver([variable])
        saver.restore(session, str(tmp_path / "out" / "model.ckpt"))
        assert session.run(variable).tobytes() == old[name].tobytes()


def test_saved_model_folder(imports, tmp_path):
    prefix = golden.SAMPLES / "cifar_act" / "model.ckpt"
    code, *_ = imports("--checkpoint", prefix, "--output", tmp_path / "net")
    assert code == 0
    model = tf_keras.models.load_model(tmp_path / "net")
    assert model.units == (3, 3, 3) and model.adaptivity == "act"
    stored = tensors(prefix)
    for name, variable in variables_by_authors_name(model).items():
        np.testing.assert_array_equal(variable, stored[name])


def test_two_stage_start_and_shallower_at_once(imports, tmp_path):
    code, out, _ = imports(
        *("--checkpoint", golden.SAMPLES / "cifar_vanilla" / "model.ckpt"),
        *("--to_adaptivity", "sact", "--to_units", 2, 3, 1),
        *("--tau", 0.02, "--output", tmp_path / "net.keras"),
    )
    assert code == 0 and "variables of halting scores" in out
    model = tf_keras.models.load_model(tmp_path / "net.keras")
    assert model.units == (2, 3, 1)
    assert (model.adaptivity, model.tau) == ("sact", 0.02)
    stored = tensors(golden.SAMPLES / "cifar_vanilla" / "model.ckpt")
    for name, variable in variables_by_authors_name(model).items():
        if "halting" not in name:
            np.testing.assert_array_equal(variable, stored[name])
    bias = variables_by_path(model)["block1/halting1/local_conv/bias"]
    np.testing.assert_array_equal(bias, [-3.0])


KERNEL = "resnet_residual/block_2/unit_2/residual/conv1/weights"


def change(**changes):
    def write(folder):
        stored = tensors(golden.SAMPLES / "cifar_sact" / "model.ckpt")
        for name, value in changes.items():
            if value is None:
                del stored[name]
            else:
                stored[name] = value
        names = sorted(stored)
        tf.raw_ops.SaveV2(
            prefix=str(folder / "model.ckpt"),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[stored[name] for name in names],
        )

    return write


def truncate(ending, size):
    def write(folder):
        change()(folder)
        file = folder / f"model.ckpt{ending}"
        if size:
            file.write_bytes(file.read_bytes()[:size])
        else:
            file.unlink()

    return write


@pytest.mark.parametrize(
    "write, flags, message",
    [
        (change(**{KERNEL: None}), [], f"1 missing ({KERNEL})"),
        (
            change(**{"resnet_residual/new": [1.0]}),
            [],
            "left over (resnet_residual/new",
        ),
        (change(**{KERNEL: np.zeros([3, 3, 5, 32], "f")}), [], "[3, 3, 5, 32] instead"),
        (change(**{"resnet_residual/logits/weights": None}), [], "logits/weights"),
        (change(), ["--family", "imagenet"], "holds a network of family cifar"),
        (change(), ["--units", "56"], "of units (3, 3, 3), not (9, 9, 9)"),
        (change(), ["--adaptivity", "act"], "of adaptivity sact, not act"),
        (change(), ["--to_units", 4, 3, 3], "as many units in every block"),
        (truncate(".index", None), [], "no readable TensorFlow checkpoint"),
        (truncate(".index", 500), [], "no readable TensorFlow checkpoint"),
        (truncate(".data-00000-of-00001", None), [], "is it whole?"),
        (truncate(".data-00000-of-00001", 20000), [], "is it whole?"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    write, flags, message, imports, tmp_path
):
    write(tmp_path)
    before = set(tmp_path.iterdir())
    code, out, err = imports(
        "--checkpoint", tmp_path / "model.ckpt", "--output", tmp_path / "net", *flags
    )
    assert code == 2 and not out
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert set(tmp_path.iterdir()) == before


def test_other_variables_are_named(imports, tmp_path):
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "model.ckpt"),
        tensor_names=["a", "b"],
        shape_and_slices=["", ""],
        tensors=[1.0, 2.0],
    )
    prefix = tmp_path / "model.ckpt"
    code, _, err = imports("--checkpoint", prefix, "--output", tmp_path / "net")
    assert code == 2 and "its variables are a, b." in err


def test_slots_and_averages_are_ignored(imports, tmp_path):
    stored = tensors(golden.SAMPLES / "cifar_sact" / "model.ckpt")
    extra = {"global_step": np.int64(7)}
    for slot in ("Momentum", "ExponentialMovingAverage"):
        extra |= {f"{name}/{slot}": 0 * value for name, value in stored.items()}
    change(**extra)(tmp_path)
    output = tmp_path / "net.keras"
    code, *_ = imports("--checkpoint", tmp_path / "model.ckpt", "--output", output)
    assert code == 0
    model = tf_keras.models.load_model(output)
    for name, variable in variables_by_authors_name(model).items():
        np.testing.assert_array_equal(variable, stored[name])


def test_nothing_is_overwritten(imports, exports, tmp_path):
    output = tmp_path / "net.keras"
    output.write_text("precious")
    prefix = golden.SAMPLES / "cifar_act" / "model.ckpt"
    code, _, err = imports("--checkpoint", prefix, "--output", output)
    assert code == 2 and "exists already" in err
    assert output.read_text() == "precious"
    golden.network("cifar_act").save(tmp_path / "fresh.keras")
    index = tmp_path / "model.ckpt.index"
    index.write_text("precious")
    code, _, err = exports(
        "--model", tmp_path / "fresh.keras", "--output", tmp_path / "model.ckpt"
    )
    assert code == 2 and "exists already" in err
    assert index.read_text() == "precious"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: None, "There is no saved network"),
        (lambda path: path.write_text("text"), "is no saved network"),
        (lambda path: path.mkdir(), "has no checkpoint"),
    ],
)
def test_what_is_no_network_cannot_be_exported(make, message, exports, tmp_path):
    make(tmp_path / "net")
    code, _, err = exports("--model", tmp_path / "net", "--output", tmp_path / "x")
    assert code == 2 and message in err.splitlines()[-1]


def test_another_model_cannot_be_exported(exports, tmp_path):
    inputs = tf_keras.Input([3])
    other = tf_keras.Model(inputs, tf_keras.layers.Dense(1)(inputs))
    other.save(tmp_path / "other.keras")
    output = tmp_path / "x"
    code, _, err = exports("--model", tmp_path / "other.keras", "--output", output)
    assert code == 2 and "not a sact_tf.ResNet" in err.splitlines()[-1]
