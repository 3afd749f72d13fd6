"""The examples in docstrings run."""

import ast
import pathlib
import re
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from PIL import Image

import sact_tf
from sact_tf import annealing, device_data, resumable
from sact_tf.cli import command_line, flags
from sact_tf.data import augmentation, image_folder
from sact_tf.detection.config import FasterRCNNConfig
from sact_tf.detection.faster_rcnn import FasterRCNN
from sact_tf.distribution import sharding
from sact_tf.model_garden import configs, inputs
from sact_tf.models.backbone import Backbone
from sact_tf.models.config import BackboneConfig
from sact_tf.serving.client import Client

PACKAGE = pathlib.Path(sact_tf.__file__).parent
IMAGES = np.random.default_rng(0).uniform(-1, 1, [2, 64, 64, 3]).astype("f")


def examples():
    """All examples, by file and number."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        texts = [ast.get_docstring(node) for node in nodes if isinstance(node, kinds)]
        codes = re.findall(
            r"^```python\n(.*?)^```", "\n".join(filter(None, texts)), re.M | re.S
        )
        yield from ((f"{name}-{number}", code) for number, code in enumerate(codes))


EXAMPLES = dict(examples())


def small(kind, **changes):
    """A class whose objects are smaller than the example says."""
    return lambda **options: kind(**{**options, **changes})


SMALL = {"units": (1, 2, 1, 1), "base_channels": 2}
NETWORK = small(BackboneConfig, **SMALL)


def network(_):
    data = tf.data.Dataset.from_tensors((IMAGES, np.array([0, 1])))
    package = mock.Mock(ResNet=small(sact_tf.ResNet, **SMALL))
    return {"sact_tf": package, "tf_keras": tf_keras, "dataset": data}


def detector(_):
    labels = {"classes": [[1], [2]], "boxes": [[[8.0, 8, 40, 40]]] * 2}
    return {
        "BackboneConfig": NETWORK,
        "FasterRCNN": FasterRCNN,
        "FasterRCNNConfig": small(
            FasterRCNNConfig, num_sampled=4, proposal_filters=4, crop_size=7
        ),
        "tf_keras": tf_keras,
        "dataset": tf.data.Dataset.from_tensors((IMAGES, labels)),
    }


def schedule(_):
    model = sact_tf.ResNet("resnet_d_small", adaptivity="ssin", **SMALL)
    model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(True))
    return {
        "TemperatureSchedule": annealing.TemperatureSchedule,
        **{"epochs": 2, "steps_per_epoch": 1, "model": model},
        "dataset": tf.data.Dataset.from_tensors((IMAGES, np.array([0, 1]))),
    }


def run_of_images(folder):
    images = [mock.Mock(), mock.Mock()]
    for number, image in enumerate(images):
        image.name = f"{number}.jpg"
    return {
        "resumable": resumable,
        "folder": folder / "run",
        "names": [image.name for image in images],
        "images": images,
        "detect": lambda image: [image.name],
    }


def run_of_batches(folder):
    evaluation = mock.Mock()
    evaluation.state.return_value = {"count": 3}
    return {
        "run": resumable.claim(folder / "run", {}, "something"),
        "batches": range(3),
        "evaluation": evaluation,
    }


def data_of_the_garden(_):
    return {
        "configs": configs,
        "inputs": mock.create_autospec(inputs),
        "model": mock.create_autospec(sact_tf.ResNet, instance=True),
    }


def parts_of_workers(_):
    return {
        "sharding": sharding,
        **{"tf": tf, "tf_keras": tf_keras},
        "model": mock.create_autospec(sact_tf.ResNet, instance=True),
    }


def client(folder):
    (folder / "a.jpg").write_bytes(b"a picture")
    answer = {"names": ["a cat"], "flops": [7]}
    predict = mock.create_autospec(Client.predict, return_value=answer)
    return {"Client": type("Asked", (Client,), {"predict": predict})}


def command(_):
    return {
        "command_line": command_line,
        **{"__doc__": "Counts.", "__name__": "counting"},
        **{name: lambda *_: None for name in ("add_flags", "run", "show")},
    }


def folder_of_images(folder):
    for name in ("cats", "dogs"):
        (folder / "photos" / "train" / name).mkdir(parents=True)
        for number in range(10):
            image = Image.fromarray(np.full([8, 8, 3], number, np.uint8))
            image.save(folder / "photos" / "train" / name / f"{number}.png")
    package = mock.Mock(ResNet=mock.create_autospec(sact_tf.ResNet))
    return {"image_folder": image_folder, "sact_tf": package}


def data_on_the_device(_):
    loaded = np.zeros([256, 32, 32, 3], np.uint8), np.zeros([256], np.int64)
    return {
        "cifar10": mock.Mock(load=lambda *_: loaded),
        "augmentation": augmentation,
        "sact_tf": mock.Mock(device_data=device_data),
        "model": mock.create_autospec(sact_tf.ResNet, instance=True),
        **{"optimizer": "sgd", "loss": "mse"},
    }


#: What each example takes for granted, by functions of an empty folder.
SURROUNDINGS = {
    "annealing-0": schedule,
    "cli/command_line-0": command,
    "cli/flags-0": lambda _: {"Parser": flags.Parser},
    "data/image_folder-0": folder_of_images,
    "device_data-0": data_on_the_device,
    "detection/faster_rcnn-0": detector,
    "distribution/sharding-0": parts_of_workers,
    "model_garden/inputs-0": data_of_the_garden,
    "models/backbone-0": lambda _: {"BackboneConfig": NETWORK, "Backbone": Backbone},
    "models/resnet-0": network,
    "resumable-0": run_of_images,
    "resumable-1": run_of_batches,
    "serving/client-0": client,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, tmp_path, monkeypatch):
    assert name in SURROUNDINGS, "Say here what this example takes for granted."
    names = {"images": IMAGES, **SURROUNDINGS[name](tmp_path)}
    monkeypatch.chdir(tmp_path)
    # No traces, which take most of the time.
    monkeypatch.setattr(tf_keras.Model, "run_eagerly", True)
    tf.config.run_functions_eagerly(True)
    try:
        exec(compile(EXAMPLES[name], name, "exec"), names)
    finally:
        tf.config.run_functions_eagerly(False)
    if "record" in names:
        assert names["record"]["logits"].shape == (2, 10)
    if "maps" in names:
        assert names["maps"]["4"].shape == (2, 4, 4, 32)
    if "found" in names:
        assert names["found"]["boxes"].shape[0] == 2
    if "schedule" in names:
        (temperature, *_) = annealing.temperatures(names["model"])
        assert float(temperature) < 1.0
    if "evaluation" in names:
        assert names["run"].read("progress.json") == {"count": 3}
    if "make" in names:
        part = names["make"](tf.distribute.InputContext(4, 1))
        assert next(iter(part)).numpy().tolist() == [1, 5, 9, 13, 17, 21, 25, 29]
    if "COMMAND" in names:
        assert names["COMMAND"].parser().parse_args(["--json"]).json
    if "parser" in names:
        assert names["parser"].parse_args(["--size", "224"]).image_size == 224
    if "photos" in names:
        assert names["photos"].classes == ["cats", "dogs"]
        assert names["model"].fit.call_args.kwargs["steps_per_epoch"] >= 1
    if "data" in names and "labels" in names:
        assert names["model"].fit.call_args.args == (names["data"],)
    if "detect" in names:
        with names["run"].records("detections.jsonl") as records:
            assert records["1.jpg"] == ["1.jpg"]
