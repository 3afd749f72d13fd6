import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sact_tf.data import digit_scenes, preprocessing, sources
from tests.data import pictures

TFDS = pathlib.Path(__file__).parents[3] / "shared" / "data" / "tfds"
needs_cifar = pytest.mark.skipif(
    not TFDS.is_dir(), reason="CIFAR-10 (../shared/data/tfds) is not here"
)


def everything(source, *arguments, **options):
    batches = list(source.batches(*arguments, **options))
    images = np.concatenate([images for images, _ in batches])
    if batches[0][1] is None:
        return images, None
    return images, np.concatenate([labels for _, labels in batches])


def picture(number):
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, [40 + number, 50, 3], np.uint8)


def write_records(path, labels, key="image/class/label"):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, label in enumerate(labels):
            encoded = tf.io.encode_png(picture(number)).numpy()
            feature = {
                "image/encoded": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[encoded])
                ),
                key: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


@pytest.fixture
def imagenet_records(tmp_path):
    write_records(tmp_path / "validation-00000-of-00002", [1, 1000, 5])
    write_records(tmp_path / "validation-00001-of-00002", [17, 3])
    return tmp_path


@pytest.mark.parametrize("start", [0, 2, 3])
def test_imagenet_records(imagenet_records, start):
    source = sources.open_source("imagenet", imagenet_records)
    images, labels = everything(
        source, "imagenet", 32, 2, start=start, num_classes=1001
    )
    np.testing.assert_array_equal(labels, [1, 1000, 5, 17, 3][start:])
    numbers = [0, 1, 2, 0, 1][start:]
    for image, number in zip(images, numbers, strict=True):
        expected = preprocessing.imagenet(tf.constant(picture(number)), 32)
        np.testing.assert_allclose(image, expected, atol=1e-6)
    _, labels = everything(source, "imagenet", 32, 2, num_classes=1000)
    np.testing.assert_array_equal(labels, [0, 999, 4, 16, 2])


def test_missing_shard(imagenet_records):
    (imagenet_records / "validation-00001-of-00002").unlink()
    with pytest.raises(FileNotFoundError, match="has 1 of the 2 files"):
        sources.open_source("imagenet", imagenet_records)


def test_cifar_records(tmp_path):
    write_records(tmp_path / "cifar10_test.tfrecord", [0, 9, 4])
    source = sources.open_source("cifar10", tmp_path, num_images=2)
    _, labels = everything(source, "cifar", 32, 5, num_classes=10)
    np.testing.assert_array_equal(labels, [0, 9])


def test_other_records_are_refused(tmp_path):
    write_records(tmp_path / "cifar10_test.tfrecord", [0], key="label")
    with pytest.raises(ValueError, match="no examples with image/encoded and"):
        sources.open_source("cifar10", tmp_path)
    (tmp_path / "cifar10_test.tfrecord").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="no examples with image/encoded and"):
        sources.open_source("cifar10", tmp_path)
    write_records(tmp_path / "cifar10_test.tfrecord", [10])
    source = sources.open_source("cifar10", tmp_path)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be 0 to 9"):
        everything(source, "cifar", 32, 5)


@needs_cifar
@pytest.mark.parametrize("data_dir", [TFDS, TFDS / "cifar10" / "3.0.2"])
def test_cifar_of_tfds(data_dir):
    import tensorflow_datasets as tfds

    source = sources.open_source("cifar10", data_dir)
    assert source.num_images == 10000
    images, labels = everything(
        sources.open_source("cifar10", data_dir, num_images=7),
        *("cifar", 32, 3),
        start=3,
        num_classes=10,
    )
    data = tfds.load("cifar10", split="test", data_dir=TFDS, download=False)
    expected = list(tfds.as_numpy(data.take(7)))[3:]
    np.testing.assert_array_equal(labels, [example["label"] for example in expected])
    for image, example in zip(images, expected, strict=True):
        pixels = example["image"].astype(np.float64)
        standardised = (pixels - pixels.mean()) / pixels.std()
        np.testing.assert_allclose(image, standardised, atol=1e-5)


def test_imagenet_of_tfds_mocked(tmp_path):
    import tensorflow_datasets as tfds

    policy = tfds.testing.MockPolicy.USE_CODE
    with tfds.testing.mock_data(num_examples=5, policy=policy):
        source = sources.open_source("imagenet", tmp_path)
        images, labels = everything(source, "imagenet", 64, 2, num_classes=1001)
    assert source.num_images == 5 and images.shape == (5, 64, 64, 3)
    assert labels.shape == (5,) and labels.min() >= 1


def test_data_that_are_not_prepared(tmp_path):
    with pytest.raises(FileNotFoundError, match="`tfds build imagenet2012"):
        sources.open_source("imagenet", tmp_path)


def test_folder_of_classes(tmp_path):
    for number, name in enumerate(["zebra/1.png", "ant/2.png", "zebra/deep/3.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(picture(number)).save(tmp_path / name)
    source = sources.open_source("folder", tmp_path)
    assert (source.num_images, source.num_classes) == (3, 2)
    images, labels = everything(source, "imagenet", 32, 2, num_classes=2)
    np.testing.assert_array_equal(labels, [0, 1, 1])
    expected = preprocessing.imagenet(tf.constant(picture(1)), 32)
    np.testing.assert_allclose(images[0], expected, atol=1e-6)


def folder_of(tmp_path, *names):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(picture(number)).save(tmp_path / name)
    return tmp_path


def test_a_class_without_images(tmp_path):
    folder = folder_of(tmp_path, "ant/0.png", "cat/1.png")
    # Absent: the network may have a background, or a class is missing.
    source = sources.open_source("folder", folder)
    with pytest.raises(
        ValueError, match=r"3 classes, but .* 2 folders: ant, cat. Name"
    ):
        source.batches("imagenet", 32, 2, num_classes=3)
    named = sources.open_source("folder", folder, classes=["ant", "bee", "cat"])
    for count, expected in ((3, [0, 2]), (4, [1, 3])):
        _, labels = everything(named, "imagenet", 32, 2, num_classes=count)
        np.testing.assert_array_equal(labels, expected)
    # Another order, and a background by name.
    names = ["background", "cat", "ant"]
    named = sources.open_source("folder", folder, classes=names)
    _, labels = everything(named, "imagenet", 32, 2, num_classes=3)
    np.testing.assert_array_equal(labels, [2, 1])
    # Empty.
    (folder / "bee").mkdir()
    (folder / "__MACOSX").mkdir()
    source = sources.open_source("folder", folder)
    _, labels = everything(source, "imagenet", 32, 2, num_classes=3)
    np.testing.assert_array_equal(labels, [0, 2])
    with pytest.raises(ValueError, match=r"folders ant, bee, cat; no class .* bee"):
        sources.open_source("folder", folder, classes=["ant", "cat"])
    with pytest.raises(ValueError, match="'ant' is named twice"):
        sources.open_source("folder", folder, classes=["ant", "ant"])


def test_images_beside_folders_of_classes(tmp_path):
    folder = folder_of(tmp_path, "ant/0.png", "cat/1.png", "thumbnail.png")
    with pytest.raises(ValueError, match=r"thumbnail.png, beside the folders ant, cat"):
        sources.open_source("folder", folder)


def test_rotated_and_foreign_files_of_a_folder(tmp_path):
    for orientation in pictures.ORIENTATIONS:
        content = pictures.rotated(picture(0), orientation)
        (tmp_path / f"{orientation}.png").write_bytes(content)
    odd = os.fsdecode(b"9\xff.png")  # Names need not be in UTF-8.
    (tmp_path / odd).write_bytes(pictures.encode(picture(0), "TIFF"))
    images, _ = everything(sources.open_source("folder", tmp_path), "imagenet", 32, 4)
    expected = preprocessing.imagenet(tf.constant(picture(0)), 32)
    np.testing.assert_allclose(images, [expected] * 9, atol=1e-6)
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(tf.errors.OpError, match=r"3\.png is no readable image"):
        everything(sources.open_source("folder", tmp_path), "imagenet", 32, 4)


def test_rotated_files_in_records(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "cifar10_test.tfrecord")) as writer:
        content = pictures.rotated(picture(0), 6)
        features = {
            "image/encoded": {"bytes_list": {"value": [content]}},
            "image/class/label": {"int64_list": {"value": [0]}},
        }
        example = tf.train.Example(features={"feature": features})
        writer.write(example.SerializeToString())
    images, _ = everything(sources.open_source("cifar10", tmp_path), "cifar", 32, 1)
    expected = preprocessing.cifar(tf.constant(picture(0)), 32)
    np.testing.assert_allclose(images[0], expected, atol=1e-5)


def test_folder_without_classes(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    source = sources.open_source("folder", tmp_path)
    images, labels = everything(source, "cifar", 32, 2, num_classes=77)
    assert labels is None and images.shape == (1, 32, 32, 3)


@pytest.mark.parametrize("family", ["imagenet", "cifar"])
def test_digit_scenes(family):
    source = sources.open_source("digit_scenes", num_images=5)
    images, labels = everything(source, family, 64, 2, start=2, num_classes=10)
    scenes = digit_scenes.scenes(tf.range(2, 5, dtype=tf.int64), "validation", size=64)
    np.testing.assert_array_equal(labels, scenes["label"])
    expected = scenes["image"]
    if family == "cifar":
        expected = tf.image.per_image_standardization(expected)
    np.testing.assert_allclose(images, expected, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (["mnist"], {}, "must be one of digit_scenes, cifar10"),
        (["folder"], {}, "needs data_dir"),
        (["cifar10", "/does/not/exist"], {}, "There is no folder /does/not/exist"),
        (["digit_scenes"], {"split": "test"}, "split must be one of"),
        (["digit_scenes"], {"num_images": 0}, "num_images must be at least 1"),
    ],
)
def test_wrong_arguments(arguments, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        source = sources.open_source(*arguments, **options)
        source.batches("imagenet", 64, 1)


def test_more_images_than_there_are(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="has 1 images"):
        sources.open_source("folder", tmp_path, num_images=2)


def test_classes_that_do_not_fit():
    source = sources.open_source("digit_scenes")
    assert (source.label_offset(10), source.label_offset(11)) == (0, 1)
    with pytest.raises(ValueError, match=r"Received: 1001 classes"):
        source.batches("imagenet", 64, 1, num_classes=1001)
