"""Names of a detector's classes: kept in the folder of its run, and found again."""

import os
from collections.abc import Sequence

import tensorflow as tf
from official.core import config_definitions as cfg

from sact_tf import text_files
from sact_tf.data import coco
from sact_tf.model_garden import detection_configs

#: In the folder of a run: a name on each line, that of the background first.
FILE = "labels.txt"
_DIGITS = ["background", *map(str, range(10))]


def read(path: str | os.PathLike, num_classes: int) -> list[str]:
    """Names from a file that a user gives.

    Args:
      path: of a text with one name on each line, that of the background first; or of a
        COCO JSON with categories, whose name ends in .json.
      num_classes: of the detector, background included.

    Raises:
      ValueError: the file is none of both, or has not one name for each class.
      OSError: the file cannot be opened.
    """
    path = os.fspath(path)
    if path.lower().endswith(".json"):
        return coco.class_names(path, num_classes)
    return _checked(text_files.lines(path), path, num_classes)


def keep(task: cfg.TaskConfig, folder: str | os.PathLike) -> None:
    """Writes the names of a run's classes into its folder, if its data have any.

    What is there already stays. Data that cannot be read are left to those who read
    them in earnest, and say what is wrong.

    Raises:
      ValueError: a file that is there already has not one name for each class.
    """
    path = os.path.join(folder, FILE)
    if not isinstance(task, detection_configs.DetectionTask):
        return
    if tf.io.gfile.exists(path):
        find(task, folder)
        return
    names = _of_data(task)
    if names:
        tf.io.gfile.makedirs(os.fspath(folder))
        with tf.io.gfile.GFile(f"{path}.new", "w") as file:
            # A name is a line, whatever is in the JSON.
            file.write("".join(f"{' '.join(name.split())}\n" for name in names))
        tf.io.gfile.rename(f"{path}.new", path, overwrite=True)


def find(
    task: detection_configs.DetectionTask, folder: str | os.PathLike | None = None
) -> list[str] | None:
    """Names of the classes of a run; None where nothing knows any.

    Args:
      task: config of its task.
      folder: of the run; of runs of earlier versions the data are asked.

    Raises:
      ValueError: the run's file has not one name for each class.
    """
    path = folder and os.path.join(folder, FILE)
    if path and tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            return _checked(file.read().splitlines(), path, task.model.num_classes)
    return _of_data(task)


def by_class(names: Sequence[str] | None) -> dict[int, str]:
    """Names by number of the class; none where there are none."""
    return dict(enumerate(names or ()))


def _of_data(task):
    """Names from the annotations of a task, if they are still there, or of digits."""
    count = task.model.num_classes
    for data in (task.train_data, task.validation_data):
        if isinstance(data, detection_configs.DetectionScenes):
            if count == len(_DIGITS):
                return list(_DIGITS)
        elif getattr(data, "annotation_file", ""):
            try:
                return coco.class_names(data.annotation_file, count)
            except (OSError, ValueError):
                continue
    return None


def _checked(names, path, num_classes):
    if len(names) != num_classes:
        raise ValueError(
            f"{path}: the detector has {num_classes} classes, the background included, "
            f"so it needs as many labels. Received: {len(names)} lines"
        )
    return names
