import functools
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image

from sact_tf.cli import detect, evaluate_detection
from sact_tf.model_garden import detectors, runs
from tests.data import pictures
from tests.detection import coco_files
from tests.model_garden.test_detection_tasks import experiment
from tests.model_garden.test_tasks import run, summaries, untrained
from tests.tools.calling import call


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return coco_files.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Detectors are loaded, and traced, once for all tests."""
    load = functools.cache(detectors.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detectors, "load", lambda path, *how: load(str(path), *how))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """A run that the trainer has evaluated."""
    folder = tmp_path_factory.mktemp("tiny_run")
    params = experiment(data)
    untrained(params, folder)
    run(params, folder, "eval")
    return folder


def test_evaluation_agrees_with_the_trainers(
    trained, data, tmp_path, monkeypatch, capsys
):
    arguments = ("--model", trained, "--output", tmp_path / "out", "--json")
    code, out, _ = call(
        monkeypatch, capsys, evaluate_detection, *arguments, "--time_images", 1
    )
    assert code == 0
    (row,) = json.loads(out)["rows"]
    logged = summaries(trained, "validation")
    for ours, theirs in (
        (row["flops"], "flops"),
        (row["share"], "flops_share"),
        (row["ponder_cost"], "ponder_cost"),
        (row["head_flops"], "head_flops"),
        (row["head_ponder_cost"], "head_ponder_cost"),
        (row["metrics"]["AP"], "AP"),
        (row["metrics"]["AR100"], "ARmax100"),
    ):
        np.testing.assert_allclose(ours, logged[theirs][-1][1], rtol=1e-3, atol=1e-4)
    assert set(row["seconds"]) == {
        "dense",
        "sparse",
        "extractor, dense",
        "extractor, sparse",
    }
    assert min(row["seconds"].values()) > 0
    assert "tiny_run" in (tmp_path / "out" / "table.md").read_text()
    # What is there is not computed again.
    store = next((tmp_path / "out").glob("1-*.json"))
    assert len(json.loads(store.read_text())["images"]) == 4
    monkeypatch.setattr(
        evaluate_detection.detection.Evaluation, "add", lambda *a, **k: 1 / 0
    )
    again = call(
        monkeypatch, capsys, evaluate_detection, *arguments, "--time_images", 1
    )
    assert json.loads(again[1])["rows"][0]["metrics"] == row["metrics"]


def test_a_row_for_every_number_of_regions(trained, tmp_path, monkeypatch, capsys):
    flags = ["--model", trained, "--output", tmp_path / "out", "--json"]
    # The run proposes 20.
    flags += ["--num_proposals", 30, 5, "--time_images", 0, "--num_images", 2]
    code, out, _ = call(monkeypatch, capsys, evaluate_detection, *flags)
    assert code == 0
    rows = json.loads(out)["rows"]
    names = [f"{trained.name}, {number} regions" for number in (30, 5)]
    assert [row["name"] for row in rows] == names
    assert rows[0]["num_regions"] > 20 > rows[1]["num_regions"] == 5
    assert rows[0]["head_flops"] > rows[1]["head_flops"]
    assert rows[0]["flops"] == rows[1]["flops"]
    stores = {path.name for path in (tmp_path / "out").glob("1-*.json")}
    assert stores == {f"1-{trained.name}-{number}.json" for number in (30, 5)}


def test_a_row_for_every_threshold(trained, tmp_path, monkeypatch, capsys):
    flags = ["--model", trained, "--output", tmp_path / "out", "--json"]
    flags += ["--proposal_threshold", 0, 1, "--time_images", 0, "--num_images", 1]
    code, out, _ = call(monkeypatch, capsys, evaluate_detection, *flags)
    assert code == 0
    rows = json.loads(out)["rows"]
    names = [f"{trained.name}, scores from {score}" for score in (0, 1)]
    assert [row["name"] for row in rows] == names
    assert rows[0]["num_regions"] > rows[1]["num_regions"] == 0
    stores = {path.name for path in (tmp_path / "out").glob("1-*.json")}
    assert stores == {f"1-{trained.name}-from-{score}.json" for score in (0, 1)}


def test_an_interrupted_evaluation_goes_on(trained, tmp_path, monkeypatch, capsys):
    flags = ["--model", trained, "--output", tmp_path / "out", "--time_images", 0]

    class Interrupted:
        """Counts two images, without detecting anything."""

        def __init__(self, state):
            self.images = list(state["images"]) if state else []

        @property
        def num_images(self):
            return len(self.images)

        def state(self):
            return {"images": list(self.images)}

        def detect(self, *_, **__):
            if len(self.images) == 2:
                raise KeyboardInterrupt
            self.images.append(len(self.images))

    with monkeypatch.context() as patched:
        patched.setattr(evaluate_detection.detection, "Evaluation", Interrupted)
        code, _, errors = call(patched, capsys, evaluate_detection, *flags)
        assert code == 130 and "goes on from here" in errors
        # Without a folder nothing is kept, and nothing else is said.
        code, _, errors = call(patched, capsys, evaluate_detection, *flags[:2])
        assert code == 130 and "goes on from here" not in errors
    (store,) = (tmp_path / "out").glob("1-*.json")
    assert json.loads(store.read_text()) == {"images": [0, 1]}
    settings = tmp_path / "out" / "settings.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "checkpoints": ["an earlier one"]}))
    code, _, errors = call(monkeypatch, capsys, evaluate_detection, *flags)
    assert code == 2 and "with other settings (checkpoints)" in errors


def test_costs_of_plain_extractors(data, monkeypatch, capsys):
    arguments = ("--annotations", data[0], "--images", data[1])
    code, out, _ = call(
        monkeypatch, capsys, evaluate_detection, *arguments, "--json", "--num_images", 1
    )
    rows = json.loads(out)
    # One image of 60 x 80: 600 x 800.
    assert code == 0 and rows["ResNet-101"]["num_images"] == 1
    assert rows["ResNet-101"]["flops_std"] == 0
    share = rows["ResNet-50"]["flops"] / rows["ResNet-101"]["flops"]
    np.testing.assert_allclose(share, 0.466, atol=2e-3)  # Table 1.
    code, out, _ = call(monkeypatch, capsys, evaluate_detection, *arguments)
    assert code == 0 and "the paper has 1.42e+11" in out


def test_detect(trained, data, tmp_path, monkeypatch, capsys):
    file, folder = data
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    other = tmp_path / "other.jpg"
    Image.fromarray(np.zeros([70, 90], np.uint8)).save(other)
    arguments = [folder, other, "--model", trained, "--output", tmp_path / "out"]
    arguments += ["--annotations", file, "--score", 0.0, "--num_proposals", 4]
    code, out, _ = call(monkeypatch, capsys, detect, *arguments)
    assert code == 0 and "pictures of 5 images" in out
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [image["id"] for image in images] == [10, 20, 30, 40, 45]
    assert {image["num_regions"] for image in images} == {4}
    assert len(list((tmp_path / "out").glob("*.png"))) == 5
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    assert entries
    for entry in entries:
        # COCO has gaps, and class 2 no name.
        name = {1: "red", 2: "2", 3: "green", 4: "blue"}[entry["category_id"]]
        assert entry["category_name"] == name
        x, y, width, height = entry["bbox"]
        limit = sizes[entry["image_id"]]
        assert x >= 0 and y >= 0 and width > 0 and height > 0
        assert x + width <= limit[0] + 0.5 and y + height <= limit[1] + 0.5
    arguments[0] = broken
    code, _, errors = call(monkeypatch, capsys, detect, *arguments)
    assert code == 2 and "other settings (images)" in errors
    arguments[arguments.index("--output") + 1] = tmp_path / "more"
    code, _, errors = call(monkeypatch, capsys, detect, *arguments)
    assert code == 2 and "1 of 2 images could not be used" in errors


@pytest.fixture
def folders_of_images(tmp_path):
    """Images of one name in two folders, and one of a very long name; annotated."""
    file, folder = coco_files.write(tmp_path, sizes=[(60, 80), (60, 80), (50, 40)])
    names = ["left/000.png", "right/000.png", "猫" * 83 + ".png"]
    content = json.loads(file.read_text())
    for image, name in zip(content["images"], names, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / image["file_name"]).rename(folder / name)
        image["file_name"] = name
    file.write_text(json.dumps(content))
    return file, folder


def test_classes_have_the_names_of_the_run(
    trained, data, tmp_path, monkeypatch, capsys
):
    kept = (trained / "labels.txt").read_text()
    assert kept.splitlines() == ["background", "red", "2", "green", "blue"]
    captions = []
    drawn = detect.visualization.detections
    monkeypatch.setattr(
        detect.visualization,
        "detections",
        lambda *given, **more: captions.append(given[3]) or drawn(*given, **more),
    )
    image = data[1] / "000010.png"
    flags = [image, "--model", trained, "--json", "--output"]
    given = tmp_path / "names.txt"
    given.write_text("nothing\nrot\nzwei\ngr\u00fcn\nblau\n")
    for number, (more, names) in enumerate(
        (
            ([], kept.splitlines()),
            (["--labels", given], given.read_text().splitlines()),
        )
    ):
        code, out, _ = call(
            monkeypatch, capsys, detect, *flags, tmp_path / str(number), *more
        )
        assert code == 0 and captions.pop() == dict(enumerate(names))
        entries = json.loads(out)["detections"]
        assert entries
        for entry in entries:
            assert entry["category_name"] == names[entry["category_id"]]
    given.write_text("one\ntwo\n")
    code, _, errors = call(
        monkeypatch, capsys, detect, *flags, tmp_path / "x", "--labels", given
    )
    assert code == 2 and "needs as many labels. Received: 2 lines" in errors


def test_images_are_known_by_their_paths(
    trained, folders_of_images, tmp_path, monkeypatch, capsys
):
    file, folder = folders_of_images
    upright = np.asarray(Image.open(folder / "left" / "000.png"))
    (folder / "left" / "000.png").write_bytes(pictures.rotated(upright, 6))
    output = tmp_path / "out"
    flags = ["--model", trained, "--output", output, "--annotations", file, "--json"]
    # Stopped at the last image: what is done is kept.
    drawn = []

    def save(figure, path, whole=detect.visualization.save):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(path.name)
        whole(figure, path)

    with monkeypatch.context() as patched:
        patched.setattr(detect.visualization, "save", save)
        code, _, errors = call(patched, capsys, detect, *flags, folder)
    assert code == 130 and "The same command goes on from here" in errors
    before = {path: path.stat().st_mtime_ns for path in output.glob("*.png")}
    code, out, errors = call(monkeypatch, capsys, detect, *flags, folder)
    assert code == 0 and "not in" not in errors
    assert (
        before.items()
        <= {path: path.stat().st_mtime_ns for path in output.glob("*.png")}.items()
    )
    result = json.loads(out)
    assert {image["file_name"]: image["id"] for image in result["images"]} == {
        image["file_name"]: image["id"]
        for image in json.loads(file.read_text())["images"]
    }
    assert len(list(output.glob("*.png"))) == 3 and len(before) == 2
    left = next(i for i in result["images"] if i["file_name"] == "left/000.png")
    assert (left["height"], left["width"]) == (60, 80)
    assert json.loads((output / "images.json").read_text()) == result["images"]


def test_images_of_another_size_than_annotated(
    trained, folders_of_images, tmp_path, monkeypatch, capsys
):
    file, folder = folders_of_images
    path = folder / "left" / "000.png"
    Image.open(path).resize((40, 30)).save(path)
    flags = ["--model", trained, "--output", tmp_path / "out", "--annotations", file]
    code, _, errors = call(monkeypatch, capsys, detect, *flags, path)
    assert code == 2 and "has 40 x 30 pixels, but the annotations say 80 x 60" in errors


def test_messages(trained, data, tmp_path, monkeypatch, capsys):
    def complain(tool, match, *arguments):
        code, _, errors = call(monkeypatch, capsys, tool, *arguments)
        assert code == 2 and match in errors

    complain(evaluate_detection, "Give --model, or --annotations")
    complain(evaluate_detection, "go together", "--images", data[1])
    complain(evaluate_detection, "has no checkpoint", "--model", tmp_path)
    complain(
        evaluate_detection,
        "--num_images must be at least 1",
        *("--model", trained, "--num_images", 0),
    )
    for flag, value, message in (
        ("--num_proposals", 0, "--num_proposals must be at least 1. Received: 0"),
        ("--proposal_threshold", 1.5, "number from 0 to 1"),
    ):
        flags = ("--model", trained, flag, 1, value)
        complain(evaluate_detection, message, *flags)
    there = (data[1], "--model", trained, "--output", tmp_path / "a")
    for flag, value in (("--num_proposals", 0), ("--proposal_threshold", 1.5)):
        complain(detect, f"{flag} must be", *there, flag, value)
    complain(
        detect,
        "is no COCO JSON with categories",
        *(data[1], "--model", trained, "--output", tmp_path / "a"),
        *("--annotations", trained / "params.yaml"),
    )


def test_a_training_that_was_killed_goes_on(data, tmp_path, capsys):
    folder = tmp_path / "run"
    params = experiment(data, units=[1, 1, 2, 1])
    params.override({"trainer": {"train_steps": 1000, "checkpoint_interval": 2}})
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(params.as_dict()))
    command = [sys.executable, "-m", "sact_tf.cli.train", "--mode=train"]
    command += ["--experiment=sact_fasterrcnn_coco", f"--model_dir={folder}"]
    with open(tmp_path / "log.txt", "w") as log:
        process = subprocess.Popen(
            [*command, f"--config_file={tmp_path / 'long.yaml'}"],
            stdout=log,
            stderr=log,
        )
        try:
            while process.poll() is None and runs.steps_done(str(folder)) < 2:
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL, (tmp_path / "log.txt").read_text()
    done = runs.steps_done(str(folder))
    assert 2 <= done < 1000
    # What the same command does, without waiting for TensorFlow to be loaded.
    run(params.replace(trainer={"train_steps": done + 2}), folder, "train")
    assert f"restored from checkpoint: {folder}/ckpt-{done}" in capsys.readouterr().out
    assert runs.steps_done(str(folder)) == done + 2
    detectors.load(folder)
