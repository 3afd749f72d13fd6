"""CIFAR-10 whole, as arrays, in any of the forms in which it is passed on.

| form | files |
|---|---|
| binary | `data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin` |
| for Python | `data_batch_1` to `data_batch_5`, `test_batch` |
| TFDS | `cifar10-train.tfrecord-00000-of-00001`, `cifar10-test...` |
| TF-Slim | `cifar10_train.tfrecord`, `cifar10_test.tfrecord` |

They are looked for in the folder itself, and where archives and TFDS put them:
`cifar-10-batches-bin`, `cifar-10-batches-py`, `cifar10/3.0.2`. Neither TFDS nor the
Model Garden is needed.
"""

import io
import os
import pathlib
import pickle
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from sact_tf.data import decoding

SPLITS = ("train", "test")
NUM_CLASSES = 10
SIZE = 32

_PLACES = ("", "cifar-10-batches-bin", "cifar-10-batches-py", "cifar10/*")
_STEMS = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
_PIXELS = 3 * SIZE * SIZE
#: What a batch for Python consists of, beside lists, dictionaries and numbers.
_PICKLED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


def load(folder: str | os.PathLike, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads all images of a split, in the order of the files.

    Args:
      folder: where the data are, see above.
      split: "train" or "test".

    Returns:
      Images uint8 [N, 32, 32, 3] and labels int64 [N].

    Raises:
      FileNotFoundError: there are no such data, or not all of their files.
      ValueError: an unknown split, or a file that does not hold what it should.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}. Received: {split}")
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    for place in (path for pattern in _PLACES for path in _folders(folder, pattern)):
        for suffix, read in ((".bin", _read_binary), ("", _read_pickled)):
            files = [place / f"{stem}{suffix}" for stem in _STEMS[split]]
            if any(file.is_file() for file in files):
                return _joined(_whole(files), read)
        files = [*place.glob(f"cifar10-{split}.tfrecord-*-of-*")]
        files += place.glob(f"cifar10_{split}.tfrecord*")
        if files:
            return _read_records(_whole_shards(sorted(files)))
    raise FileNotFoundError(
        f"{folder} has no CIFAR-10, split {split}: neither {_STEMS[split][0]}.bin nor "
        f"{_STEMS[split][0]} (the archives of its authors, unpacked), nor "
        f"cifar10-{split}.tfrecord-00000-of-00001 (TFDS), nor "
        f"cifar10_{split}.tfrecord (TF-Slim)."
    )


def _folders(folder, pattern):
    return (
        [folder] if not pattern else sorted(filter(os.path.isdir, folder.glob(pattern)))
    )


def _whole(files: Sequence[pathlib.Path]):
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{files[0].parent} has not all of CIFAR-10: {', '.join(missing)} missing."
        )
    return files


def _whole_shards(files):
    shards = re.search(r"-of-(\d+)$", files[0].name)
    if shards and int(shards[1]) != len(files):
        raise FileNotFoundError(
            f"{files[0].parent} has {len(files)} of the {int(shards[1])} files of "
            f"{files[0].name.partition('.')[0]}."
        )
    return files


def _joined(files, read):
    images, labels = zip(*map(read, files), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _read_binary(path):
    content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % (1 + _PIXELS):
        raise ValueError(
            f"{path} is no whole file of CIFAR-10: it should have a multiple of "
            f"{1 + _PIXELS} bytes. Received: {content.size}"
        )
    rows = content.reshape(-1, 1 + _PIXELS)
    return _checked(path, rows[:, 1:], rows[:, 0])


class _Unpickler(pickle.Unpickler):
    """Takes arrays, lists and dictionaries: a file may come from anywhere."""

    def find_class(self, module, name):
        if (module, name) not in _PICKLED:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}")
        return super().find_class(module, name)


def _read_pickled(path):
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels, labels = content[b"data"], np.asarray(content[b"labels"])
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path} is no batch of CIFAR-10 for Python ({error})."
        ) from error
    return _checked(path, np.asarray(pixels), labels)


def _checked(path, pixels, labels):
    right = pixels.dtype == np.uint8 and pixels.shape == (len(labels), _PIXELS)
    if not right or labels.max() >= NUM_CLASSES:
        raise ValueError(
            f"{path} should hold uint8 [N, {_PIXELS}] and labels 0 to "
            f"{NUM_CLASSES - 1}. Received: {pixels.dtype} {list(pixels.shape)}, labels "
            f"up to {labels.max()}"
        )
    # Channel by channel in the file.
    images = pixels.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels.astype(np.int64)


def _read_records(files):
    slim = "cifar10_" in files[0].name
    image, label = (
        ("image/encoded", "image/class/label") if slim else ("image", "label")
    )
    features = {
        image: tf.io.FixedLenFeature([], tf.string),
        label: tf.io.FixedLenFeature([], tf.int64),
    }

    def decode(record):
        example = tf.io.parse_single_example(record, features)
        pixels = decoding.decode(example[image])
        return tf.ensure_shape(pixels, [SIZE, SIZE, 3]), example[label]

    examples = tf.data.TFRecordDataset([str(file) for file in files])
    batches = examples.map(decode, tf.data.AUTOTUNE).batch(1000)
    try:
        images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise ValueError(
            f"{files[0]} is no CIFAR-10 ({str(error).splitlines()[0]})."
        ) from error
    return np.concatenate(images), np.concatenate(labels)
