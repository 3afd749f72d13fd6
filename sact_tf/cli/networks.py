"""Classification networks, wherever they are: what tools take as --model."""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from sact_tf import classifier_runs
from sact_tf.checkpoints import authors, files
from sact_tf.data import preprocessing
from sact_tf.models.resnet import ResNet

#: What `open_network` takes, for --help.
KINDS = (
    "a .keras file, a SavedModel of tf_keras, the folder of a run (of train-folder or "
    "train), or the prefix of a checkpoint: of a run, or in the published format"
)


class Found(NamedTuple):
    """A network, and the images that it was made for.

    Attributes:
      network: with its weights.
      image_size: side of its images in pixels.
      crop: whether photographs are cropped, as in the supplement's A.1.
      classes: their names, if a run has kept any.
    """

    network: ResNet
    image_size: int
    crop: bool
    classes: Sequence[str] | None = None


def open_network(path: str | os.PathLike) -> Found:
    """Opens a network.

    Args:
      path: a `.keras` file; a SavedModel's folder; a run on a folder of images; a run
        of the trainer, by its folder or by the prefix of one of its checkpoints; or the
        prefix of a checkpoint of the authors' code.

    Raises:
      OSError, ValueError: there is none.
    """
    path = os.fspath(path)
    if classifier_runs.is_run(path):
        run = classifier_runs.load(path)
        return Found(run.network, run.image_size, True, run.classes)
    if is_run(path):
        # Slow to import, and needed here only.
        from sact_tf.model_garden import configs, runs

        run = runs.load(path)
        data = run.validation_data
        size = data.image_size or run.model.input_size[0]
        return Found(run.network, size, not isinstance(data, configs.DigitScenes))
    if os.path.exists(f"{path}.index"):
        network = ResNet(**authors.structure(path))
        authors.load_authors_checkpoint(network, path)
    else:
        network = files.load(path)
    return Found(network, preprocessing.SIZES[network.family], True)


def load(path: str | os.PathLike) -> ResNet:
    """The network alone; see `open_network`."""
    return open_network(path).network


def is_run(path: str | os.PathLike) -> bool:
    """Whether this is a run of the Garden's trainer, or one of its checkpoints."""
    path = os.fspath(path)
    if classifier_runs.is_run(path):
        return False
    if os.path.isdir(path):
        return not os.path.exists(f"{path}/saved_model.pb")
    folder = pathlib.Path(path).absolute().parent
    places = (folder, folder.parent)
    described = any((place / "params.yaml").exists() for place in places)
    return described and os.path.exists(f"{path}.index")
