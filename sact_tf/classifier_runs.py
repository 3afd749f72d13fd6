"""What a training on a folder of images leaves: a network, and what goes with it."""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from sact_tf import folders
from sact_tf.checkpoints import files
from sact_tf.models.resnet import ResNet

#: The settings of a run: it is one, finished or not, if they are there.
SETTINGS = "training.json"
#: The network; it is the last thing to be written.
NETWORK = "network.keras"
_ABOUT = "classifier.json"


class ClassifierRun(NamedTuple):
    """A trained classifier.

    Attributes:
      network: with its weights.
      image_size: side of its images in pixels.
      classes: their names, in the order of the logits.
    """

    network: ResNet
    image_size: int
    classes: Sequence[str]


def is_run(path: str | os.PathLike) -> bool:
    """Whether a path is the folder of a run, or the network in it."""
    path = pathlib.Path(path)
    return (path / SETTINGS).is_file() or (
        path.name == NETWORK and (path.parent / SETTINGS).is_file()
    )


def write(run: ClassifierRun, folder: str | os.PathLike) -> None:
    """Writes a network and what goes with it into the folder of its run.

    A network that is there already stays: that of an equal training.
    """
    folder = pathlib.Path(folder)
    if (folder / NETWORK).exists():
        return
    about = {"image_size": run.image_size, "classes": list(run.classes)}
    folders.write_json(folder / _ABOUT, about)
    files.save(run.network, folder / NETWORK)


def load(path: str | os.PathLike) -> ClassifierRun:
    """Opens what `write` has written.

    Args:
      path: see `is_run`.

    Raises:
      FileNotFoundError: the training has not ended.
      ValueError: the files are damaged, or do not belong together.
    """
    path = pathlib.Path(path)
    folder = path if path.is_dir() else path.parent
    if not (folder / NETWORK).exists():
        raise FileNotFoundError(
            f"{folder} has no {NETWORK}: its training has not ended. The command that "
            "began it goes on"
        )
    about = folders.read_json(folder / _ABOUT)
    network = files.load(folder / NETWORK)
    if len(about["classes"]) != network.config.num_classes:
        raise ValueError(
            f"{folder / _ABOUT} names {len(about['classes'])} classes of a network "
            f"that has {network.config.num_classes}"
        )
    return ClassifierRun(network, about["image_size"], about["classes"])
