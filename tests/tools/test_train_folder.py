"""From a folder of images to answers that name its classes."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from PIL import Image

import sact_tf
from sact_tf import classifier_runs, folder_training, training
from sact_tf.cli import (
    evaluate,
    export_saved_model,
    networks,
    ponder_maps,
    train_folder,
)
from tests.tools import calling

TINY = "--family cifar --units 1 2 1 --base_channels 4 --image_size 16 --batch_size 4"
TINY = [*TINY.split(), "--epochs", "4", "--learning_rate", "0.01"]
CLASSES = ["light", "night"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Upper half light, or lower half: learnt in a few steps."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for part, count in (("train", 8), ("val", 3)):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 60, [20, 18, 3], np.uint8)
                pixels[10 * label : 10 * label + 10] += 180
                path = folder / part / name / f"{number}.png"
                Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A trained run, and what its command printed as JSON."""
    output = tmp_path_factory.mktemp("runs") / "photos"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv", ["train_folder", str(photos), "--output", str(output), *TINY]
        )
        flags = train_folder.COMMAND.parser().parse_args()
        result = train_folder.run(flags)
    return output, result


@pytest.fixture
def call(monkeypatch, capsys):
    return lambda tool, *arguments: calling.call(monkeypatch, capsys, tool, *arguments)


def test_what_it_prints(run):
    output, result = run
    text = train_folder.show(result, None)
    share = round(100 * result["flops"] / result["plain_flops"])
    assert f"{output}: accuracy " in text and "on 6 validation images" in text
    assert f"{share} % of the plain network's" in text
    assert f"ponder_maps --model {output} --output {output}/maps" in text
    assert f"export_saved_model --model {output} --output {output}/served" in text
    assert 0 < result["share_of_flops"] < 1.05
    json.dumps(result)


def test_the_run_is_a_network_with_the_names_of_its_classes(run, photos):
    output, result = run
    for path in (output, output / classifier_runs.NETWORK):
        found = networks.open_network(path)
        assert found.classes == CLASSES and found.image_size == 16
    assert found.network.adaptivity == "sact" and found.network.units == (1, 2, 1)
    assert not networks.is_run(output)  # Of the Garden, which need not be there.
    plain = sact_tf.ResNet(
        family="cifar",
        units=(1, 2, 1),
        base_channels=4,
        root_channels=4,
        adaptivity="none",
        num_classes=2,
    )
    flops = plain.introspect(tf.zeros([1, 16, 16, 3]))["flops"]
    assert result["plain_flops"] == int(flops[0])


def test_the_same_command_again_trains_nothing(run, photos, call, monkeypatch):
    output, result = run

    def train(*_, **__):
        raise AssertionError("a step was made")

    monkeypatch.setattr(tf_keras.Model, "fit", train)
    monkeypatch.setattr(folder_training, "evaluate", train)
    code, out, _ = call(train_folder, photos, "--output", output, *TINY, "--json")
    assert code == 0 and json.loads(out) == result


def test_an_interrupted_run_goes_on(run, photos, call, monkeypatch, tmp_path):
    fit = training.fit

    def interrupted(model, batches, *, directory, callbacks, **options):
        def stop(batch, logs):
            # In the second stage, after a step of its second epoch.
            if directory.name.startswith("2-") and model.optimizer.iterations == 5:
                raise KeyboardInterrupt

        callbacks = [
            *callbacks,
            tf_keras.callbacks.LambdaCallback(on_train_batch_end=stop),
        ]
        options["backup_every"] = 1
        return fit(model, batches, directory=directory, callbacks=callbacks, **options)

    monkeypatch.setattr(folder_training.training, "fit", interrupted)
    output = tmp_path / "run"
    command = (train_folder, photos, "--output", output, *TINY, "--json")
    code, _, err = call(*command)
    assert code == 130 and "The same command goes on from here." in err
    with pytest.raises(FileNotFoundError, match="its training has not ended"):
        networks.open_network(output)
    monkeypatch.setattr(folder_training.training, "fit", fit)
    code, out, _ = call(*command)
    assert code == 0
    again, before = json.loads(out), run[1]
    assert again["flops"] == pytest.approx(before["flops"], rel=1e-5)
    assert again["accuracy"] == before["accuracy"]


def test_other_settings_in_the_same_folder(run, photos, call):
    output, _ = run
    arguments = [photos, "--output", output, *TINY, "--tau", 0.5]
    code, _, err = call(train_folder, *arguments)
    assert code == 2 and "training with other settings (network)" in err


def test_evaluate_takes_size_and_classes_from_the_run(run, photos, call):
    output, result = run
    flags = ["--model", output, "--dataset", "folder", "--data_dir", photos / "val"]
    code, out, err = call(evaluate, *flags, "--json")
    assert code == 0, err
    (row,) = json.loads(out)["rows"]
    assert row["image_size"] == 16
    assert row["accuracy"] == result["accuracy"]
    assert row["flops"] == pytest.approx(result["flops"])


def test_ponder_maps_of_the_run(run, photos, call, tmp_path):
    flags = ["--model", run[0], "--output", tmp_path / "maps", "--longer_side", 18]
    code, _, err = call(ponder_maps, *flags, photos / "val/light/0.png")
    assert code == 0, err
    assert (tmp_path / "maps" / "0.png").exists()


def test_what_is_served_names_the_classes(run, photos, call, tmp_path):
    flags = ["--model", run[0], "--output", tmp_path / "served", "--json"]
    code, out, err = call(export_saved_model, *flags)
    assert code == 0, err
    served = tf.saved_model.load(json.loads(out)["folder"])
    image = (photos / "val/night/0.png").read_bytes()
    answer = served.signatures["serving_default"](
        images=tf.constant([image]), halting_bias=tf.constant(0.0)
    )
    names = [name.decode() for name in answer["names"].numpy()[0]]
    assert sorted(names) == CLASSES
    network = networks.open_network(run[0]).network
    assert network.config.num_classes == 2


def test_a_start_of_other_classes_and_of_the_same(run, photos, tmp_path):
    output, _ = run
    images = train_folder.image_folder.open_folder(photos)
    found = networks.open_network(output)
    recipe = folder_training.Recipe(
        image_size=16, epochs=1, plain_epochs=0, batch_size=4, learning_rate=1e-9
    )
    config = found.network.get_config()
    names = ("family", "units", "base_channels", "root_channels", "tau", "adaptivity")
    network = {name: config[name] for name in names}
    rows = {}
    for name, classes in (("same", CLASSES), ("others", ["day", "night"])):
        folder_training.train(
            images,
            tmp_path / name,
            network,
            recipe,
            start=folder_training.Start(found.network, classes),
            say=lambda text: None,
        )
        trained = networks.load(tmp_path / name)
        rows[name] = trained.head.trainable_variables[-2].numpy()
    kernel = found.network.head.trainable_variables[-2].numpy()
    np.testing.assert_allclose(rows["same"], kernel, atol=1e-4)
    assert np.abs(rows["others"] - kernel).max() > 1e-2


def test_initialize_from_says_what_does_not_fit(run, photos, call, tmp_path):
    flags = ["--output", tmp_path / "new", "--initialize_from", run[0]]
    code, _, err = call(train_folder, photos, *flags, "--units", "9", "9", "9")
    assert code == 2 and "as many units in every block" in err
    code, _, err = call(train_folder, photos, *flags, "--family", "imagenet")
    assert code == 2 and "--family must be cifar" in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--plain_epochs", "30"], "--plain_epochs must be less than --epochs"),
        (["--adaptivity", "none", "--plain_epochs", "3"], "--plain_epochs is for"),
        (["--learning_rate", "-1"], "learning_rate must be positive"),
        (["--image_size", "8"], "--image_size must be at least 32"),
        (["--validation_share", "0"], "validation_share must be between"),
        (["--family", "cifar", "--min_area", "0.5"], "min_area is for networks of"),
    ],
)
def test_flags_that_are_wrong(photos, call, tmp_path, flags, words):
    code, _, err = call(train_folder, photos, "--output", tmp_path / "run", *flags)
    assert code == 2 and words in err
    assert not (tmp_path / "run").exists()


def test_an_image_that_cannot_be_read(photos, call, tmp_path):
    folder = tmp_path / "photos"
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (20, 20)).save(folder / name / f"{number}.png")
    broken = folder / "night" / "1.png"
    broken.write_bytes(b"nothing")
    code, _, err = call(train_folder, folder, "--output", tmp_path / "run", *TINY)
    assert code == 2 and f"{broken} is no readable image" in err
    Image.new("RGB", (20, 20)).save(broken)
    code, _, err = call(train_folder, folder, "--output", tmp_path / "run", *TINY)
    assert code == 0, err
