"""The data sets that networks are evaluated on, behind one interface.

| name | where the data is | labels |
|---|---|---|
| digit_scenes | embedded | 10 |
| cifar10 | TFDS, or TF-Slim's TFRecords (`cifar10_test.tfrecord`) | 10 |
| imagenet | TFDS, or TFRecords (`validation-00000-of-00128`, ...) | 1000 |
| folder | images in a folder per class, or none | as found, or as named |
"""

import os
import pathlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from sact_tf import errors
from sact_tf.data import (
    class_folders,
    decoding,
    digit_scenes,
    image_files,
    preprocessing,
)

NAMES = ("digit_scenes", "cifar10", "imagenet", "folder")
DIGIT_SCENES = 1000  # validation scenes, unless another number is asked for

_CLASSES = {"cifar10": 10, "imagenet": 1000}
_SPLITS = {
    "digit_scenes": "validation",
    "cifar10": "test",
    "imagenet": "validation",
    "folder": None,
}
_TFDS_NAMES = {"cifar10": "cifar10", "imagenet": "imagenet2012"}
_RECORD_PATTERNS = {
    "cifar10": "cifar10_{split}.tfrecord*",
    "imagenet": "{split}-?????-of-?????",
}
_RECORD_FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
}
#: TF-Slim's ImageNet records count from one, and zero is the background.
_RECORD_FIRST_LABEL = {"cifar10": 0, "imagenet": 1}


@dataclass(frozen=True)
class Source:
    """Images with labels, in an order that never changes.

    Attributes:
      name: of the data set and the split.
      num_images: how many there are; None if nobody has counted.
      num_classes: labels are 0 to num_classes - 1; None if there are no labels.
      found_classes: folders that were taken for the classes, if nobody has named them.
    """

    name: str
    num_images: int | None
    num_classes: int | None
    _batches: Callable[[str, int, int, int], tf.data.Dataset]
    found_classes: Sequence[str] = ()

    def batches(
        self,
        family: str,
        image_size: int,
        batch_size: int,
        *,
        start: int = 0,
        num_classes: int | None = None,
    ) -> tf.data.Dataset:
        """Batches of images as a family's networks take them, each image once.

        Args:
          family: of networks, see `preprocessing`.
          image_size: S, side of the images.
          batch_size: B; the last batch may be smaller.
          start: number of the first image, to go on where a run stopped.
          num_classes: logits of the network, for `label_offset`.

        Returns:
          A data set of pairs (float32 [B, S, S, 3], int64 [B]), or, if there are no
          labels, (float32 [B, S, S, 3], None).

        Raises:
          ValueError: the numbers of classes do not fit.
        """
        batches = self._batches(family, image_size, batch_size, start)
        if self.num_classes is None:
            return batches.map(lambda images, _: (images, None))
        offset = 0 if num_classes is None else self.label_offset(num_classes)
        return batches.map(lambda images, labels: (images, labels + offset))

    def label_offset(self, num_classes: int) -> int:
        """What to add to labels for a network of so many logits.

        One, if it has one class more than the data: class 0 is the background then, as
        in the networks of the paper. But where classes are the folders that happen to
        be there, one could be missing as well: then they must be named.

        Raises:
          ValueError: the network has another number of classes.
        """
        offset = num_classes - self.num_classes
        if self.found_classes and offset:
            folders = class_folders.listed(self.found_classes)
            raise ValueError(
                f"The network has {num_classes} classes, but {self.name} has "
                f"{self.num_classes} folders: {folders}. Name the "
                "classes (--classes), in the order of the network, with or without its "
                "background; classes without images then need no folder"
            )
        if offset not in (0, 1):
            raise ValueError(
                f"{self.name} has {self.num_classes} classes; the network must have as "
                f"many, or one more for the background. Received: {num_classes} classes"
            )
        return offset


def open_source(
    name: str,
    data_dir: str | os.PathLike | None = None,
    *,
    split: str | None = None,
    num_images: int | None = None,
    classes: Sequence[str] | None = None,
) -> Source:
    """Opens a data set.

    Args:
      name: one of NAMES.
      data_dir: where it is. For cifar10 and imagenet either a folder with TFRecords, or
        a TFDS directory (by default ~/tensorflow_datasets); for "folder" the folder.
      split: "test" (cifar10) or "validation" (all others) by default.
      num_images: only the first so many images.
      classes: of "folder", names of the folders that are classes, in the order of the
        network's classes, with or without its background; by default all folders, in
        alphabetical order.

    Raises:
      ValueError: an unknown name or split, or data that are not what they should be.
      FileNotFoundError: there are no such data; the message says what to do.
    """
    if name not in NAMES:
        raise ValueError(
            f"The data set must be one of {', '.join(NAMES)}. Received: {name!r}"
        )
    if num_images is not None and num_images < 1:
        raise ValueError(
            f"num_images must be at least 1. Received: num_images={num_images}"
        )
    if classes is not None and name != "folder":
        raise ValueError(
            f"Only the data set 'folder' takes names of classes; {name} has its own"
        )
    if data_dir is not None and not pathlib.Path(data_dir).is_dir():
        raise FileNotFoundError(f"There is no folder {data_dir}.")
    if name == "digit_scenes":
        return _digit_scenes(split or _SPLITS[name], num_images or DIGIT_SCENES)
    if name == "folder":
        if split is not None or data_dir is None:
            raise ValueError(
                "The data set 'folder' needs data_dir, the folder with the images, and "
                f"has no splits. Received: data_dir={data_dir}, split={split}"
            )
        return _folder(pathlib.Path(data_dir), num_images, classes)
    split = split or _SPLITS[name]
    files = data_dir and sorted(
        pathlib.Path(data_dir).glob(_RECORD_PATTERNS[name].format(split=split))
    )
    if files:
        return _records(name, split, files, num_images)
    return _tfds(name, split, data_dir, num_images)


def _digit_scenes(split, num_images):
    def batches(family, image_size, batch_size, start):
        dataset = digit_scenes.dataset(
            split,
            batch_size,
            num_scenes=num_images - start,
            start=start,
            size=image_size,
        )
        if family in preprocessing.STANDARDIZED:
            dataset = dataset.map(
                lambda images, labels: (
                    tf.image.per_image_standardization(images),
                    labels,
                )
            )
        return dataset.map(lambda images, labels: (images, tf.cast(labels, tf.int64)))

    return Source(
        f"digit_scenes {split}", num_images, digit_scenes.NUM_CLASSES, batches
    )


def _tfds(name, split, data_dir, num_images):
    # Slow to import, and needed here only.
    import tensorflow_datasets as tfds

    tfds_name = _TFDS_NAMES[name]
    if data_dir is not None and (pathlib.Path(data_dir) / "dataset_info.json").exists():
        builder = tfds.builder_from_directory(data_dir)
        if builder.name != tfds_name:
            raise ValueError(
                f"{data_dir} holds the data set {builder.name}, not {tfds_name}."
            )
    else:
        builder = tfds.builder(tfds_name, data_dir=data_dir)
    splits = builder.info.splits
    if splits and split not in splits:
        raise ValueError(
            f"{tfds_name} has the splits {', '.join(splits)}. Received: {split!r}"
        )
    try:
        examples = builder.as_dataset(
            split=split,
            shuffle_files=False,
            # Decoded after skipping.
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False),
        )
    except AssertionError as error:  # TFDS' way to say that nothing is there.
        pattern = _RECORD_PATTERNS[name].format(split=split)
        raise FileNotFoundError(
            f"There is no prepared {tfds_name} in {builder.data_dir}, and no TFRecords "
            f"({pattern}) in {data_dir}. `tfds build {tfds_name} --data_dir DIR` "
            "prepares it."
        ) from error

    def decode(example):
        return decoding.decode(example["image"]), example["label"]

    return _photographs(f"{name} {split}", examples, decode, _CLASSES[name], num_images)


def _records(name, split, files, num_images):
    shards = re.search(r"-of-(\d+)$", files[0].name)
    if shards and int(shards[1]) != len(files):
        raise FileNotFoundError(
            f"{files[0].parent} has {len(files)} of the {int(shards[1])} files of "
            f"{name} {split}."
        )
    examples = tf.data.TFRecordDataset([str(file) for file in files])
    first = _RECORD_FIRST_LABEL[name]
    classes = _CLASSES[name]

    def decode(record):
        example = tf.io.parse_single_example(record, _RECORD_FEATURES)
        label = example["image/class/label"] - first
        check = tf.debugging.Assert(
            (label >= 0) & (label < classes),
            [f"labels of {name} must be {first} to {first + classes - 1}, not", label],
        )
        with tf.control_dependencies([check]):
            return decoding.decode(example["image/encoded"]), tf.identity(label)

    # Complains about wrong records now, not later.
    try:
        for record in examples.take(1):
            tf.io.parse_single_example(record, _RECORD_FEATURES)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise ValueError(
            f"{files[0]} has no examples with {' and '.join(_RECORD_FEATURES)}, as "
            f"TF-Slim writes them. ({errors.cause(error)})"
        ) from error
    return _photographs(f"{name} {split}", examples, decode, classes, num_images)


def _folder(folder, num_images, classes):
    files = image_files.below(folder)
    if not files:
        raise FileNotFoundError(
            f"{folder} has no images: no file ends in "
            f"{', '.join(image_files.SUFFIXES)}."
        )
    labels, names = class_folders.labels(folder, files, classes)
    examples = tf.data.Dataset.from_tensor_slices(
        # As bytes: names need not be in UTF-8.
        ([os.fsencode(path) for path in files], np.array(labels, np.int64))
    )

    def decode(path, label):
        pixels, encoded = tf.numpy_function(
            lambda path: image_files.read_raw(os.fsdecode(path)),
            [path],
            (tf.uint8, tf.string),
        )
        pixels = tf.ensure_shape(pixels, [None, None, 3])
        return decoding.upright(pixels, tf.ensure_shape(encoded, [])), label

    return _photographs(
        str(folder),
        examples,
        decode,
        names and len(names),
        num_images,
        found_classes=() if classes else names or (),
    )


def _photographs(name, examples, decode, num_classes, num_images, found_classes=()):
    """A source of images that are decoded and preprocessed one by one."""
    count = int(examples.cardinality())
    count = count if count >= 0 else None
    if num_images is not None:
        if count is not None and num_images > count:
            raise ValueError(
                f"{name} has {count} images. Received: num_images={num_images}"
            )
        examples, count = examples.take(num_images), num_images

    def batches(family, image_size, batch_size, start):
        def prepare(*example):
            image, label = decode(*example)
            return preprocessing.EVALUATION[family](image, image_size), label

        # What is skipped is not decoded.
        dataset = examples.skip(start).map(prepare, tf.data.AUTOTUNE)
        return dataset.batch(batch_size).prefetch(2)

    return Source(name, count, num_classes, batches, tuple(found_classes))
