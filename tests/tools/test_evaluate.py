import functools
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import sact_tf
from sact_tf.checkpoints import files
from sact_tf.cli import evaluate, matched_baseline
from sact_tf.data import digit_scenes
from sact_tf.evaluation import report
from tests import golden
from tests.data.test_sources import TFDS, needs_cifar
from tests.models.test_resnet import spread_halting
from tests.tools.calling import call

UNITS = (2, 3, 1)


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Networks are loaded, and traced, once for all tests."""
    load = functools.cache(files.load)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "load", lambda path: load(str(path)))
        yield


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Paths of an adaptive and of a plain network for digit scenes."""
    folder = tmp_path_factory.mktemp("networks")
    for name, adaptivity in (("adaptive", "sact"), ("plain", "none")):
        model = sact_tf.ResNet("cifar", UNITS, adaptivity, 10, base_channels=4)
        spread_halting(model).save(folder / f"{name}.keras")
    return folder / "adaptive.keras", folder / "plain.keras"


@pytest.fixture
def evaluates(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, evaluate, *arguments)


def expected_row(path, size, num_images):
    model = files.load(path)
    scenes = digit_scenes.scenes(
        tf.range(num_images, dtype=tf.int64), "validation", size=size
    )
    images = tf.image.per_image_standardization(scenes["image"])
    return report.evaluate(model, [(images, scenes["label"])])


def assert_same(entry, row):
    assert entry["num_images"] == row.num_images
    assert entry["accuracy"] == row.accuracy
    assert entry["recall_at_5"] == row.recall_at_5
    for key in ("flops", "flops_std", "units", "units_std", "ponder_cost"):
        np.testing.assert_allclose(entry[key], getattr(row, key), rtol=1e-6)


def test_rows_of_two_networks_at_two_sizes(networks, evaluates, tmp_path):
    flags = ["--model", *networks, "--num_images", 7, "--batch_size", 3]
    flags += ["--image_size", 64, 96, "--output", tmp_path / "out"]
    code, out, _ = evaluates(*flags, "--json")
    assert code == 0
    rows = json.loads(out)["rows"]
    assert [(row["network"], row["image_size"]) for row in rows] == [
        *(("adaptive", 64), ("adaptive", 96), ("plain", 64), ("plain", 96))
    ]
    assert_same(rows[1], expected_row(networks[0], 96, 7))
    assert_same(rows[2], expected_row(networks[1], 64, 7))
    assert rows[1]["flops_std"] > 0 and rows[2]["flops_std"] == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        *("settings.json", "progress.json", "results.json", "table.md"),
        *("accuracy_against_flops.png", "accuracy_against_image_size.png"),
    }
    code, out, _ = evaluates(*flags, "--markdown")
    assert out == (tmp_path / "out" / "table.md").read_text()
    assert out.splitlines()[0].split("|")[3].strip() == "recall@5"
    assert len(out.splitlines()) == 6


def test_an_interrupted_evaluation_goes_on(networks, evaluates, monkeypatch, tmp_path):
    flags = ["--model", networks[0], "--num_images", 8, "--batch_size", 2]
    flags += ["--image_size", 64, "--output", tmp_path / "out", "--json"]
    seen = []

    def introspect(self, images, halting_bias=None, whole=sact_tf.ResNet.introspect):
        seen.append(len(images))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return whole(self, images, halting_bias)

    monkeypatch.setattr(sact_tf.ResNet, "introspect", introspect)
    code, _, err = evaluates(*flags)
    assert code == 130 and "goes on from here" in err
    code, out, err = evaluates(*flags)
    assert code == 0 and "going on after 4 images" in err
    assert seen == [2] * 5
    assert_same(json.loads(out)["rows"][0], expected_row(networks[0], 64, 8))
    seen.clear()
    assert evaluates(*flags)[:2] == (0, out)
    assert not seen


def test_another_evaluation_is_refused(networks, evaluates, tmp_path):
    flags = ["--num_images", 2, "--image_size", 64, "--output", tmp_path / "out"]
    assert evaluates("--model", networks[0], *flags)[0] == 0
    code, _, err = evaluates("--model", networks[1], *flags)
    assert code == 2 and "with other settings (networks)" in err


def test_a_folder_without_labels_has_costs_only(networks, evaluates, tmp_path):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.png")
    flags = ["--dataset", "folder", "--data_dir", tmp_path, "--image_size", 64]
    code, out, _ = evaluates(
        "--model", networks[0], *flags, "--output", tmp_path / "out", "--json"
    )
    (row,) = json.loads(out)["rows"]
    assert code == 0 and row["accuracy"] is None and row["flops"] > 0


def test_classes_are_named_where_folders_do_not_tell(networks, evaluates, tmp_path):
    for name in ("ant", "cat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        image = Image.new("RGB", (50, 40), "red")
        image.save(tmp_path / "data" / name / "0.png")
    flags = ["--model", networks[0], "--dataset", "folder", "--image_size", 64]
    flags += ["--data_dir", tmp_path / "data", "--json"]
    code, _, err = evaluates(*flags)
    assert code == 2 and "2 folders: ant, cat. Name the classes (--classes)" in err
    names = [*"defghijk", "ant", "cat"]
    (tmp_path / "names.txt").write_text("\ufeff" + "\n".join(names), "utf-8")
    by_file = evaluates(*flags, "--classes", tmp_path / "names.txt")
    by_name = evaluates(*flags, "--classes", *names)
    assert by_file[0] == 0 and by_file[1] == by_name[1]


def test_a_broken_image_is_named(networks, evaluates, tmp_path):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"not a photograph")
    flags = ["--dataset", "folder", "--data_dir", tmp_path, "--image_size", 64]
    code, _, err = evaluates("--model", networks[0], *flags)
    assert code == 2 and "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path / 'b.jpg'} is no readable image")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--dataset", "imagenet", "--data_dir", "/does/not/exist"], "no folder"),
        (["--image_size", 63], "size must be 64 to 400"),
        (["--image_size", 0], "--image_size must be at least 1"),
        (["--batch_size", 0], "--batch_size must be at least 1"),
    ],
)
def test_bad_input(flags, message, networks, evaluates):
    code, out, err = evaluates("--model", networks[0], *flags)
    assert code == 2 and not out and message in err.splitlines()[-1]


def test_a_halting_bias_is_for_networks_that_halt(networks, evaluates):
    flags = ["--num_images", 2, "--image_size", 64, "--halting_bias", 9]
    code, _, err = evaluates("--model", networks[1], *flags)
    assert code == 2 and "--halting_bias is for ACT and SACT networks" in err
    code, out, _ = evaluates("--model", *networks, *flags, "--json")
    assert code == 0
    adaptive, plain = (row["units"] for row in json.loads(out)["rows"])
    assert sum(adaptive) < sum(UNITS) and plain == list(UNITS)


@pytest.mark.parametrize("size", [224, 352])
def test_imagenet_mocked(size, evaluates, tmp_path):
    import tensorflow_datasets as tfds

    model = sact_tf.ResNet("imagenet", (1, 2, 2, 1), "sact", 1001, base_channels=4)
    model.save(tmp_path / "net.keras")
    policy = tfds.testing.MockPolicy.USE_CODE
    with tfds.testing.mock_data(num_examples=3, policy=policy):
        code, out, _ = evaluates(
            *("--model", tmp_path / "net.keras", "--dataset", "imagenet"),
            *("--data_dir", tmp_path, "--image_size", size, "--json"),
        )
    (row,) = json.loads(out)["rows"]
    assert code == 0
    assert (row["num_images"], row["image_size"]) == (3, size)


@needs_cifar
def test_cifar_10_agrees_with_a_direct_loop(evaluates, tmp_path):
    import tensorflow_datasets as tfds

    model = golden.network("cifar_sact")
    prefix = golden.SAMPLES / "cifar_sact" / "model.ckpt"
    sact_tf.load_authors_checkpoint(model, prefix)
    model.save(tmp_path / "net.keras")
    code, out, _ = evaluates(
        *("--model", tmp_path / "net.keras", "--dataset", "cifar10"),
        *("--data_dir", TFDS, "--num_images", 120, "--json"),
    )
    assert code == 0
    data = tfds.load("cifar10", split="test", data_dir=TFDS, download=False)
    examples = list(tfds.as_numpy(data.take(120)))
    images = np.stack([example["image"] for example in examples]).astype(np.float32)
    images -= images.mean((1, 2, 3), keepdims=True)
    images /= images.std((1, 2, 3), keepdims=True)
    record = model.introspect(images)
    (row,) = json.loads(out)["rows"]
    labels = np.array([example["label"] for example in examples])
    logits = record["logits"].numpy()
    assert row["accuracy"] == np.mean(logits.argmax(-1) == labels)
    assert row["flops"] == pytest.approx(np.mean(record["flops"]), rel=1e-4)
    for mean, block in zip(row["units"], record["blocks"], strict=True):
        assert mean == pytest.approx(np.mean(block["num_units"]), rel=1e-4)


@pytest.fixture
def matches(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, matched_baseline, *arguments)


def test_matched_baseline(networks, evaluates, matches, tmp_path):
    adaptive, plain = networks
    flags = ["--num_images", 4, "--image_size", 64]
    code, out, _ = matches(
        *("--model", adaptive, "--source", plain),
        *(*flags, "--output", tmp_path / "measured.keras", "--json"),
    )
    assert code == 0
    measured = json.loads(out)
    row = expected_row(adaptive, 64, 4)
    np.testing.assert_allclose(measured["average_units"], row.units, rtol=1e-6)
    assert measured["units"] == [int(mean + 0.5) for mean in row.units]
    load = sact_tf.checkpoints.files.load
    baseline, source = load(tmp_path / "measured.keras"), load(plain)
    assert baseline.adaptivity == "none"
    paths = sact_tf.checkpoints.paths.variables_by_path
    for path, variable in paths(baseline).items():
        np.testing.assert_array_equal(variable, paths(source)[path])

    evaluates("--model", adaptive, plain, *flags, "--output", tmp_path / "out")
    results = tmp_path / "out" / "results.json"
    code, out, _ = matches(
        *("--model", adaptive, "--results", results, "--rounding", "flops"),
        *("--output", tmp_path / "read.keras", "--json"),
    )
    assert code == 0
    nearest = json.loads(out)
    assert nearest["average_units"] == measured["average_units"]
    error = abs(nearest["flops"] - row.flops)
    assert error <= abs(measured["flops"] - row.flops)


@pytest.mark.parametrize("content", ["{}", "nonsense", '{"rows": []}'])
def test_matched_baseline_of_other_results(content, networks, matches, tmp_path):
    results = pathlib.Path(tmp_path / "results.json")
    results.write_text(content)
    code, _, err = matches(
        *("--model", networks[0], "--results", results),
        *("--output", tmp_path / "net.keras"),
    )
    assert code == 2 and str(results) in err
    assert not (tmp_path / "net.keras").exists()


def test_matched_baseline_of_a_plain_network(networks, matches, tmp_path):
    code, _, err = matches("--model", networks[1], "--output", tmp_path / "net")
    assert code == 2 and "is a plain network itself" in err
