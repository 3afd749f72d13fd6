import pickle

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.data import cifar10
from tests.data.test_sources import TFDS, needs_cifar, write_records


def pictures(count):
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, [count, 32, 32, 3], np.uint8)
    return images, rng.integers(0, 10, count)


def planes(images):
    """As in the files: channel by channel."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


@pytest.fixture(scope="module")
def train():
    return pictures(15)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, train):
    """The same images in both of the authors' forms, three in each file."""
    folder = tmp_path_factory.mktemp("cifar")
    binary, python = (folder / f"cifar-10-batches-{kind}" for kind in ("bin", "py"))
    binary.mkdir()
    python.mkdir()
    parts = [(f"data_batch_{n + 1}", slice(3 * n, 3 * n + 3)) for n in range(5)]
    for name, part in [*parts, ("test_batch", slice(0, 2))]:
        images, labels = train[0][part], train[1][part]
        rows = np.concatenate([labels[:, np.newaxis], planes(images)], axis=1)
        (binary / f"{name}.bin").write_bytes(rows.astype(np.uint8).tobytes())
        content = {b"data": planes(images), b"labels": labels.tolist()}
        (python / name).write_bytes(pickle.dumps(content, protocol=2))
    return binary, python


@pytest.mark.parametrize("form", [0, 1])
def test_forms_of_the_authors(folders, train, form):
    for place in (folders[form], folders[form].parent):
        images, labels = cifar10.load(place, "train")
        assert images.dtype == np.uint8 and labels.dtype == np.int64
        np.testing.assert_array_equal(images, train[0])
        np.testing.assert_array_equal(labels, train[1])
    images, labels = cifar10.load(folders[form], "test")
    np.testing.assert_array_equal(images, train[0][:2])


def test_records(tmp_path, train):
    images, labels = train
    path = tmp_path / "cifar10" / "3.0.2"
    path.mkdir(parents=True)
    name = str(path / "cifar10-test.tfrecord-00000-of-00001")
    with tf.io.TFRecordWriter(name) as writer:
        for image, label in zip(images, labels, strict=True):
            png = tf.io.encode_png(image).numpy()
            values = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=values))
            writer.write(example.SerializeToString())
    for place in (tmp_path, path):
        found, classes = cifar10.load(place, "test")
        np.testing.assert_array_equal(found, images)
        np.testing.assert_array_equal(classes, labels)


@needs_cifar
def test_tfds():
    images, labels = cifar10.load(TFDS, "test")
    assert images.shape == (10000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(labels), [1000] * 10)


def test_what_is_not_there_or_not_whole(folders, tmp_path):
    with pytest.raises(ValueError, match="split must be one of train, test"):
        cifar10.load(tmp_path, "validation")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        cifar10.load(tmp_path / "none", "train")
    with pytest.raises(FileNotFoundError, match=r"neither data_batch_1\.bin nor"):
        cifar10.load(tmp_path, "train")
    content = (folders[0] / "test_batch.bin").read_bytes()
    (tmp_path / "test_batch.bin").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"multiple of 3073 bytes. Received: 6145"):
        cifar10.load(tmp_path, "test")
    (tmp_path / "data_batch_2.bin").write_bytes(content)
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin, .*missing"):
        cifar10.load(tmp_path, "train")
    (tmp_path / "test_batch.bin").write_bytes(b"\xff" + content[1:])
    with pytest.raises(ValueError, match=r"labels 0 to 9.*labels up to 255"):
        cifar10.load(tmp_path, "test")


def test_other_images_are_refused(tmp_path):
    write_records(tmp_path / "cifar10_test.tfrecord", [1, 2])  # Of 40 x 50 pixels.
    with pytest.raises(ValueError, match="is no CIFAR-10"):
        cifar10.load(tmp_path, "test")


class Evil:
    def __reduce__(self):
        return print, ("this must not run",)


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(ValueError, match=r"no batch of CIFAR-10.*builtins.print"):
        cifar10.load(tmp_path, "test")
    assert "must not run" not in capsys.readouterr().out
