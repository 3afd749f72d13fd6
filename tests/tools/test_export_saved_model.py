import json

import numpy as np
import pytest
import tensorflow as tf

import sact_tf
from sact_tf.checkpoints import authors
from sact_tf.cli import export_saved_model, serving_client, serving_load
from sact_tf.data import image_files, preprocessing
from sact_tf.model_garden import detectors, runs
from tests.detection import coco_files
from tests.model_garden import test_tasks
from tests.model_garden.test_detection_tasks import experiment
from tests.models.test_resnet import spread_halting
from tests.serving import pictures
from tests.serving.loopback_server import Server
from tests.tools.calling import call


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    model = sact_tf.ResNet("cifar", (2, 1, 1), "sact", 4, base_channels=4)
    path = tmp_path_factory.mktemp("network") / "sact.keras"
    spread_halting(model).save(path)
    return path


@pytest.fixture
def tool(monkeypatch, capsys):
    return lambda tool, *arguments: call(monkeypatch, capsys, tool, *arguments)


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, size in enumerate([(40, 60), (64, 32), (20, 20)]):
        image = pictures.image(*size, index)
        (folder / f"{index}.png").write_bytes(pictures.png(image))
    return folder


def test_from_a_network_to_drawn_answers(network, photographs, tool, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_bytes("\ufeffant\r\nbee \r\ncat\r\ndog\r\n\r\n".encode())
    served = tmp_path / "served"
    flags = ["--model", network, "--output", served, "--labels", labels]
    code, out, _ = tool(export_saved_model, *flags, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["folder"] == str(served / "sact" / "1")
    kept = served / "sact" / "1" / "assets" / "labels.txt"
    assert kept.read_text() == "ant\nbee\ncat\ndog\n"
    code, _, err = tool(export_saved_model, *flags, "--version", 1)
    assert code == 2 and "exists already" in err and "--overwrite" in err

    with Server("sact", served / "sact") as server:
        ask = ["--server", server.grpc, photographs]
        code, out, _ = tool(serving_client, *ask, "--json", "--batch_size", 2)
        assert code == 0
        answers = json.loads(out)
        assert [answer["image"][-5:] for answer in answers] == [
            *("0.png", "1.png", "2.png")
        ]
        model = tf.saved_model.load(result["folder"])
        for answer in answers:
            with open(answer["image"], "rb") as file:
                expected = model.serving_default(tf.constant([file.read()]))
            assert answer["flops"] == expected["flops"][0]
            names = [name.decode() for name in expected["names"][0].numpy()]
            assert answer["names"] == names and set(names) == {
                *("ant", "bee", "cat", "dog")
            }

        code, _, err = tool(serving_client, *ask, "--num_proposals", 3)
        assert code == 2 and "no detector, or an earlier version" in err

        drawn = tmp_path / "drawn"
        ask = ["--server", server.rest, "--rest"]
        draw = ["--explain", "--output", drawn, "--batch_size", 1]
        # Answers are kept as they come: the second image ends it.
        (photographs / "1.png").rename(tmp_path / "1.png")
        (photographs / "1.png").write_bytes(b"no image")
        code, _, err = tool(serving_client, *ask, *draw, photographs)
        assert code == 2 and "Image 0 of the request" in err.splitlines()[-1]
        first = (drawn / "0000_0.png").stat().st_mtime_ns
        (tmp_path / "1.png").rename(photographs / "1.png")
        code, out, _ = tool(serving_client, *ask, *draw, photographs)
        assert code == 0 and out.count("ponder cost") == 3
        assert (drawn / "0000_0.png").stat().st_mtime_ns == first
        assert {path.name for path in drawn.glob("*.png")} == {
            *("0000_0.png", "0001_1.png", "0002_2.png")
        }
        code, _, err = tool(serving_client, *ask, *draw, photographs / "0.png")
        assert code == 2 and "other settings (images)" in err

        nowhere = ["--explain", "--output", tmp_path / "nowhere", photographs]
        code, _, err = tool(serving_client, *ask, *nowhere, "--model", "other")
        assert code == 2 and "serves no model other" in err
        assert not (tmp_path / "nowhere").exists()
        (photographs / "3.png").write_bytes(b"no image")
        code, _, err = tool(
            serving_client, "--server", server.grpc, photographs, "--batch_size", 4
        )
        assert code == 2 and "Image 3 of the request" in err.splitlines()[-1]

        (photographs / "3.png").unlink()
        load = ["--server", server.grpc, photographs, "--requests", 6, "--json"]
        code, out, _ = tool(serving_load, *load, "--clients", 1, 2)
        assert code == 0
        rows = json.loads(out)
        assert [(row["clients"], row["requests"]) for row in rows] == [(1, 6), (2, 6)]
        other = server.grpc.replace("127.0.0.1", "localhost")
        code, out, _ = tool(
            serving_load, *load, "--server", other, "--clients", 1, "--rounds", 4
        )
        assert code == 0
        turns = json.loads(out)
        assert [(row["server"], row["requests"]) for row in turns] == [
            (load[1], 6),
            (other, 6),
        ]
        speeds = [row["images_per_second"] for row in turns]
        assert [row["ratio"] for row in turns] == [1.0, speeds[1] / speeds[0]]
        for row in rows + turns:
            assert 0 < row["50 %"] <= row["99 %"] < 60
            assert row["images_per_second"] > 0


def test_a_published_checkpoint(network, tool, tmp_path):
    model = sact_tf.checkpoints.files.load(network)
    prefix = tmp_path / "model.ckpt"
    authors.save_authors_checkpoint(model, str(prefix))
    flags = ["--model", prefix, "--output", tmp_path / "served", "--top_k", 2]
    code, out, _ = tool(export_saved_model, *flags)
    assert code == 0 and "tensorflow_model_server" in out
    image = pictures.image(32, 32)
    served = tf.saved_model.load(str(tmp_path / "served" / "sact" / "1"))
    answer = served.tensors(image[np.newaxis])
    images = tf.image.per_image_standardization(image[np.newaxis])
    record = model.introspect(images)
    assert answer["flops"][0] == record["flops"][0]
    np.testing.assert_allclose(
        answer["probabilities"][0],
        np.sort(tf.nn.softmax(record["logits"][0]))[:1:-1],
        atol=1e-5,
    )


def test_a_run_of_the_trainer(tool, tmp_path):
    run = tmp_path / "run"
    test_tasks.untrained(test_tasks.experiment(units=[1, 2, 1]), run)
    flags = ["--model", run, "--output", tmp_path / "served"]
    code, out, _ = tool(export_saved_model, *flags, "--json")
    assert code == 0
    # Digit scenes are not cropped, and seen at the size of the run.
    trained = runs.load(run)
    size = trained.model.input_size[0]
    image = pictures.image(size, size)[np.newaxis]
    served = tf.saved_model.load(json.loads(out)["folder"])
    answer = served.tensors(image)
    record = trained.network.introspect(tf.image.per_image_standardization(image))
    assert answer["flops"][0] == record["flops"][0]
    np.testing.assert_allclose(answer["ponder_cost"], record["ponder_cost"], rtol=1e-5)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """What a run of the trainer leaves: params.yaml and a checkpoint."""
    params = experiment(coco_files.write(tmp_path_factory.mktemp("data")))
    folder = tmp_path_factory.mktemp("detector")
    test_tasks.untrained(params, folder, lambda model: spread_halting(model.extractor))
    return folder


def test_from_a_detector_to_drawn_answers(detector, photographs, tool, tmp_path):
    (photographs / "2.png").unlink()  # Too small.
    served = tmp_path / "served"
    flags = ["--model", detector, "--output", served]
    code, out, _ = tool(export_saved_model, *flags, "--json")
    assert code == 0
    labels = (served / "sact" / "1" / "assets" / "labels.txt").read_text()
    # Those of the data; ids without a category are numbers.
    assert labels.split() == ["background", "red", "2", "green", "blue"]

    run = detectors.load(detector)
    with Server("sact", served / "sact") as server:
        ask = ["--server", server.grpc, photographs]
        code, out, _ = tool(serving_client, *ask, "--json", "--halting_bias", 1)
        assert code == 0
        everything = json.loads(tool(serving_client, *ask, "--json")[1])
        for answer in json.loads(out):
            pixels = image_files.read(answer["image"])
            seen = preprocessing.detection(pixels, 64, 96)
            found = run.detector.detect(seen[tf.newaxis], halting_bias=1.0)
            count = int(found["count"][0])
            assert len(answer["boxes"]) == answer["num_detections"] == count > 0
            scale = np.tile(np.divide(seen.shape[:2], pixels.shape[:2]), 2)
            boxes = found["boxes"][0, :count] / scale
            np.testing.assert_allclose(answer["boxes"], boxes, atol=1e-3)
            assert answer["flops"] == found["record"]["flops"][0]
        for protocol in (
            ["--server", server.grpc],
            ["--server", server.rest, "--rest"],
        ):
            code, out, _ = tool(
                serving_client, *protocol, photographs, "--json", "--num_proposals", 3
            )
            assert code == 0
            for answer, every in zip(json.loads(out), everything, strict=True):
                assert 0 < answer["head_flops"] < every["head_flops"]
                assert answer["flops"] == every["flops"]
        drawn = tmp_path / "drawn"
        ask = [*ask, "--explain", "--output", drawn, "--score", 0]
        code, out, _ = tool(serving_client, *ask)
        assert code == 0 and "ponder cost" in out
        assert {path.name for path in drawn.glob("*.png")} == {
            *("0000_0.png", "0001_1.png")
        }
        code, out, _ = tool(
            serving_client, "--server", server.grpc, photographs, "--score", 1.1
        )
        assert code == 0 and ": nothing; ponder cost" in out

    for arguments, message in (
        (["--top_k", 3], "is a detector, which knows no --top_k"),
        (["--shorter_side", 200], "not above longer_side. Received: 200, 96"),
        (["--num_proposals", 21], "num_proposals must be an integer from 1 to 20"),
        (["--labels", detector / "params.yaml"], "needs as many labels"),
    ):
        code, _, err = tool(export_saved_model, *flags, *arguments)
        assert code == 2 and message in err.splitlines()[-1]


def test_bad_input(network, tool, tmp_path):
    flags = ["--output", tmp_path / "served", "--model"]
    for arguments, message in (
        ([tmp_path / "nowhere.keras"], "There is no saved network"),
        ([tmp_path], "has no checkpoint"),
        ([network, "--labels", tmp_path / "none"], "There is no file of labels"),
        ([network, "--name", "a/b"], "The name of a model"),
        ([network, "--image_size", 3], "image_size must be at least 4"),
        ([network, "--max_batch_size", 0], "max_batch_size must be at least 1"),
        ([network, "--longer_side", 9], "network, which knows no --longer_side"),
        ([network, "--num_proposals", 9], "network, which knows no --num_proposals"),
    ):
        code, _, err = tool(export_saved_model, *flags, *arguments)
        assert code == 2 and message in err.splitlines()[-1]
    assert not (tmp_path / "served").exists()
    code, _, err = tool(serving_client, "x.png", "--server", "nowhere")
    assert code == 2 and "no file, folder or match of x.png" in err
    load = ["x.png", "--server", "a:1", "--requests", 2]
    for arguments, message in (
        ([], "no file, folder or match of x.png"),
        (["--rounds", 3], "--rounds must be at least 1 and not above --requests"),
        (["--clients", 1, 0], "--clients must be at least 1"),
    ):
        code, _, err = tool(serving_load, *load, *arguments)
        assert code == 2 and message in err
    for flag, value in (("--num_proposals", 0), ("--proposal_threshold", -1)):
        code, _, err = tool(serving_client, "x", "--server", "a:1", flag, value)
        assert code == 2 and f"{flag} must be" in err
    code, _, err = tool(serving_client, "x", "--server", "a:1", "--output", "b")
    assert code == 2 and "--explain" in err
