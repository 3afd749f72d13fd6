"""Photographs in a folder per class, for training: `train/<class>/*.jpg`.

```python
photos = image_folder.open_folder("photos")
model = sact_tf.ResNet(units=50, num_classes=len(photos.classes), base_channels=32)
model.compile(...)
model.fit(
    photos.training(image_size=128, batch_size=32),
    steps_per_epoch=photos.steps_per_epoch(32),
    validation_data=photos.validation(image_size=128, batch_size=32),
    epochs=20,
)
```
"""

import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sact_tf import errors
from sact_tf.data import (
    augmentation,
    class_folders,
    decoding,
    image_files,
    preprocessing,
)

#: What the folder of validation images may be called, beside "train".
VALIDATION = ("val", "validation", "valid")
_TRAIN = "train"
_SHOWN = 5  # names in a message
_CHECKED_AT_ONCE = 16


class Images(NamedTuple):
    """Files and their labels.

    Attributes:
      paths: of the files.
      labels: of each, its class's number.
    """

    paths: Sequence[pathlib.Path]
    labels: Sequence[int]


@dataclass(frozen=True)
class ImageFolder:
    """Images for training, and others for validation.

    Attributes:
      folder: where they are.
      classes: names, in the order of the labels: alphabetical.
      train_images, validation_images: files and labels.
      held_out: whether the validation images are some of the training folder's,
        because nobody had set any aside.
    """

    folder: pathlib.Path
    classes: Sequence[str]
    train_images: Images
    validation_images: Images
    held_out: bool

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches until each image has been seen once; the last one rounds up."""
        return -(-len(self.train_images.paths) // batch_size)

    def training(
        self,
        image_size: int,
        batch_size: int,
        *,
        family: str = "imagenet",
        min_area: float | None = None,
        seed: int = 0,
        first_step: int = 0,
    ) -> tf.data.Dataset:
        """Endless augmented batches, shuffled anew in each epoch.

        What is in a batch depends on the seed and on its number alone, so that a run
        which is taken up at some step sees what it would have seen
        (`sact_tf.training.fit` takes a function of the first step).

        Args:
          image_size: S, side of the images.
          batch_size: B.
          family: of the networks: `augmentation.imagenet` for those of photographs,
            `augmentation.cifar` for those of small images.
          min_area: least share of the image's area that a crop shows, for the first
            kind; the augmentation's own by default.
          seed: of the order and the augmentation.
          first_step: number of the first batch.

        Returns:
          A data set of pairs (float32 [B, S, S, 3], int32 [B]).

        Raises:
          ValueError: a number is too small.
        """
        _check(image_size=image_size, batch_size=batch_size)
        augment = _augmentation(family, image_size, min_area)
        paths, labels = _constants(self.train_images)
        count = len(self.train_images.paths)

        def prepare(number):
            epoch, place = number // count, number % count
            index = tf.random.experimental.index_shuffle(
                place, tf.stack([seed, epoch]), count - 1
            )
            encoded = _contents(tf.gather(paths, index))
            drawn = tf.random.experimental.stateless_fold_in(
                tf.constant([seed, 1]), number
            )
            return augment(encoded, drawn), tf.gather(labels, index)

        numbers = tf.data.Dataset.range(first_step * batch_size, np.iinfo(np.int64).max)
        images = numbers.map(prepare, tf.data.AUTOTUNE, deterministic=True)
        return images.batch(batch_size, drop_remainder=True).prefetch(2)

    def validation(
        self, image_size: int, batch_size: int, *, family: str = "imagenet"
    ) -> tf.data.Dataset:
        """The validation images, each once, as in evaluation.

        Args:
          image_size: S, side of the images.
          batch_size: B; the last batch may be smaller.
          family: of the networks, see `preprocessing.EVALUATION`.

        Returns:
          A data set of pairs (float32 [B, S, S, 3], int32 [B]).

        Raises:
          ValueError: a number is too small.
        """
        _check(image_size=image_size, batch_size=batch_size)

        def prepare(path, label):
            image = decoding.decode(_contents(path))
            return preprocessing.EVALUATION[family](image, image_size), label

        files = tf.data.Dataset.from_tensor_slices(_constants(self.validation_images))
        images = files.map(prepare, tf.data.AUTOTUNE, deterministic=True)
        return images.batch(batch_size).prefetch(2)

    def fingerprint(self) -> str:
        """Tells lists of images apart: names, labels and what each is for."""
        digest = hashlib.sha256()
        for images in (self.train_images, self.validation_images):
            for path, label in zip(*images, strict=True):
                digest.update(os.fsencode(path.relative_to(self.folder)))
                digest.update(f"\0{label}\n".encode())
            digest.update(b"\0\0")
        return digest.hexdigest()[:16]

    def check(self, progress: Callable[[int], object] = lambda count: None) -> None:
        """Decodes every image once.

        Args:
          progress: is told how many images more have been decoded.

        Raises:
          ValueError: some cannot be read; the message names the first ones.
        """
        paths = [*self.train_images.paths, *self.validation_images.paths]
        files = tf.data.Dataset.from_tensor_slices([os.fsencode(p) for p in paths])
        reasons = files.map(_reason, tf.data.AUTOTUNE, deterministic=True)
        broken = []
        for start, batch in enumerate(reasons.batch(_CHECKED_AT_ONCE)):
            for offset, reason in enumerate(batch.numpy()):
                if reason:
                    path = paths[start * _CHECKED_AT_ONCE + offset]
                    broken.append((path, reason.decode("utf-8", "replace")))
            progress(len(batch))
        if len(broken) == 1:
            raise image_files.UnreadableError(*broken[0])
        if broken:
            names = ", ".join(str(path) for path, _ in broken[:_SHOWN])
            more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
            raise ValueError(
                f"{len(broken)} of {len(paths)} images cannot be read: {names}{more}. "
                f"Mend them, or move them away. (The first: {broken[0][1]})"
            )


def open_folder(
    folder: str | os.PathLike, *, validation_share: float = 0.2, seed: int = 0
) -> ImageFolder:
    """Finds the images of a folder, and which class each one shows.

    Classes are the folders in FOLDER/train, or, where there is no such folder, those in
    FOLDER itself. Validation images are in FOLDER/val (or validation, or valid) in
    folders of the same names; if there is none, a share of each class's images is held
    out of training: always the same ones, for a seed, and the choice among the others
    hardly changes when images are added.

    Args:
      folder: where the images are.
      validation_share: of each class's images, if it has to be held out; rounded, but
        at least one.
      seed: of which ones are held out.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it holds less than two classes, a class has too few images, or the
        validation images have other classes; the message says what.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    if not 0 < validation_share < 1:
        raise ValueError(
            "validation_share must be between 0 and 1, both excluded. Received: "
            f"{validation_share}"
        )
    root = folder / _TRAIN if (folder / _TRAIN).is_dir() else folder
    apart = [folder / name for name in VALIDATION if (folder / name).is_dir()]
    if root == folder and apart:
        raise ValueError(
            f"{folder} has a folder {apart[0].name}, but no folder {_TRAIN} beside it"
        )
    if len(apart) > 1:
        raise ValueError(
            f"{folder} has several folders of validation images: "
            f"{', '.join(path.name for path in apart)}. Leave one of them there"
        )
    images, names = _found(root)
    if apart:
        return ImageFolder(folder, names, images, _also(apart[0], names), False)
    train, validation = _split(images, names, root, validation_share, seed)
    return ImageFolder(folder, names, train, validation, True)


def _found(root):
    """The images of a folder with all classes, and their names."""
    files = image_files.below(root)
    labels, names = class_folders.labels(root, files, None) if files else ([], None)
    if not names and not files:
        names = sorted(
            path.name
            for path in root.iterdir()
            if path.is_dir() and not image_files.is_hidden(path.name)
        )
    if not names or len(names) < 2:
        raise ValueError(
            f"{root} must have a folder of images for each class, and at least two. "
            f"Received: {class_folders.listed(names or [])}"
        )
    empty = sorted({*range(len(names))} - {*labels})
    if empty:
        raise ValueError(
            f"{root}: no images in {class_folders.listed([names[i] for i in empty])}: "
            f"no file ends in {', '.join(image_files.SUFFIXES)}"
        )
    return Images(files, labels), names


def _also(root, names):
    """The validation images, of the same classes."""
    files = image_files.below(root)
    if not files:
        raise ValueError(
            f"{root} has no images: no file ends in {', '.join(image_files.SUFFIXES)}"
        )
    labels, found = class_folders.labels(root, files, names)
    if found is None:
        raise ValueError(f"{root} must have a folder of images for each class")
    return Images(files, labels)


def _split(images, names, root, share, seed):
    """Training images, and those of each class that are held out."""
    held_out = set()
    for label, name in enumerate(names):
        files = [p for p, other in zip(*images, strict=True) if other == label]
        if len(files) < 2:
            raise ValueError(
                f"{root / name} has one image, and one of each class is held out for "
                f"validation. Add images, or set some of each class aside in "
                f"{root.parent / VALIDATION[0]}"
            )
        count = min(max(1, round(share * len(files))), len(files) - 1)
        held_out.update(sorted(files, key=lambda p: _rank(p, root, seed))[:count])
    pairs = list(zip(*images, strict=True))
    return tuple(
        Images(*zip(*[p for p in pairs if (p[0] in held_out) == chosen], strict=True))
        for chosen in (False, True)
    )


def _rank(path, root, seed):
    name = os.fsencode(path.relative_to(root))
    return hashlib.sha256(b"%d\0%s" % (seed, name)).digest()


def _check(**numbers):
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {value}")


def _augmentation(family, size, min_area):
    if family in preprocessing.STANDARDIZED:
        if min_area is not None:
            raise ValueError(
                f"min_area is for networks of photographs; images of {family} networks "
                f"are shifted, not cropped. Received: {min_area}"
            )

        def augment(encoded, seed):
            image = preprocessing.resized(decoding.decode(encoded), size)
            return augmentation.cifar(image, seed, size)

        return augment
    areas = augmentation.AREAS if min_area is None else (min_area, 1.0)
    if not 0 < areas[0] <= 1:
        raise ValueError(f"min_area must be in (0, 1]. Received: {min_area}")
    return lambda encoded, seed: augmentation.imagenet(
        encoded, tf.zeros([0, 4]), size, seed, areas=areas
    )


def _constants(images):
    # As bytes: names need not be in UTF-8.
    paths = tf.constant([os.fsencode(path) for path in images.paths])
    return paths, tf.constant(images.labels, tf.int32)


def _contents(path):
    """The file as `decoding` takes it, string scalar."""
    encoded = tf.numpy_function(
        lambda path: image_files.contents(os.fsdecode(path)), [path], tf.string
    )
    return tf.ensure_shape(encoded, [])


def _reason(path):
    """Why a file cannot be read: string scalar, empty if it can be."""

    def reason(path):
        try:
            image_files.read_raw(os.fsdecode(path))
        except image_files.UnreadableError as error:
            return error.reason.encode()
        except (ValueError, OSError) as error:
            return errors.cause(error).encode()
        return b""

    return tf.ensure_shape(tf.numpy_function(reason, [path], tf.string), [])
