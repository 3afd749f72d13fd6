"""The cat2000 saliency data set, in the layout in which it is distributed.

    trainSet/Stimuli/<category>/NNN.jpg        the images
    trainSet/FIXATIONLOCS/<category>/NNN.mat   `fixLocs`: who looked where, all together
    trainSet/OBSERVERS/<category>/NNN/*.mat    optional: `fixLocs` of one observer each

The distribution has the fixations of single observers in a MATLAB container that only
MATLAB reads (`allFixData.mat`), so OBSERVERS is for those who have exported them.
Folders named Output (heat maps laid over images) are passed over.

As in section 4.3, the first half of the images of every category is for tuning and the
second half for validation.
"""

import pathlib
from dataclasses import dataclass

import numpy as np
import scipy.io
from PIL import Image

from sact_tf.data import image_files

TUNE, VALIDATION = "tune", "validation"


@dataclass(frozen=True)
class Example:
    """Where an image and its fixations are; nothing is read yet.

    Attributes:
      name: "<category>/NNN".
      half: "tune" or "validation".
      stimulus: path of the image.
      fixations: path of the fixations of all observers together.
      observers: paths of the fixations of one observer each; empty if not exported.
    """

    name: str
    half: str
    stimulus: pathlib.Path
    fixations: pathlib.Path
    observers: tuple[pathlib.Path, ...] = ()


def find(directory) -> list[Example]:
    """All images of the training set, which alone has public fixations, in order.

    Args:
      directory: the folder that holds `trainSet`.

    Raises:
      ValueError: a folder or a file of fixations is missing, or a category is empty;
        the message names it.
    """
    root = pathlib.Path(directory) / "trainSet"
    for folder in (root / "Stimuli", root / "FIXATIONLOCS"):
        if not folder.is_dir():
            raise ValueError(
                f"There is no folder {folder}. Give the folder that holds "
                "trainSet/Stimuli and trainSet/FIXATIONLOCS"
            )
    examples = []
    for category in _folders(root / "Stimuli"):
        stimuli = sorted(
            path
            for path in category.iterdir()
            if path.suffix.lower() in image_files.SUFFIXES
            and not image_files.is_hidden(path.name)
        )
        if not stimuli:
            raise ValueError(
                f"The category {category} has no images "
                f"({', '.join(image_files.SUFFIXES)}). Remove the folder, or unpack "
                "the data set again"
            )
        for index, stimulus in enumerate(stimuli):
            if index and stimuli[index - 1].stem == stimulus.stem:
                raise ValueError(
                    f"{stimuli[index - 1]} and {stimulus} have the same name: whose "
                    "are the fixations? Keep one of them"
                )
            fixations = root / "FIXATIONLOCS" / category.name / f"{stimulus.stem}.mat"
            if not fixations.is_file():
                raise ValueError(
                    f"There are no fixations for {stimulus}: {fixations} is missing"
                )
            observers = root / "OBSERVERS" / category.name / stimulus.stem
            examples.append(
                Example(
                    name=f"{category.name}/{stimulus.stem}",
                    half=TUNE if index < len(stimuli) // 2 else VALIDATION,
                    stimulus=stimulus,
                    fixations=fixations,
                    observers=tuple(sorted(observers.glob("[!.]*.mat"))),
                )
            )
    if not examples:
        raise ValueError(f"There are no categories in {root / 'Stimuli'}")
    return examples


def read_image(path, size: tuple[int, int] | None = None) -> Image.Image:
    """Reads an image as RGB, upright.

    Args:
      path: of the image.
      size: (width, height) of the fixations; see `decoding.upright`.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        return Image.fromarray(image_files.read(path, size=size and size[::-1]))
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read the image {path}: {error}") from error


def for_network(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Scales an image for a network of the imagenet family.

    Args:
      image: RGB.
      size: (width, height) of the box that the image shall fill, its aspect ratio kept:
        cat2000's images of 1920 x 1080 become exactly 320 x 180 or 640 x 360.

    Returns:
      float32 [H, W, 3] in [-1, 1].
    """
    scale = min(size[0] / image.width, size[1] / image.height)
    fitting = [max(1, round(scale * side)) for side in image.size]
    pixels = image.resize(fitting, Image.Resampling.BILINEAR)
    return np.asarray(pixels, np.float32) / 127.5 - 1.0


def read(example: Example) -> tuple[Image.Image, np.ndarray]:
    """An image, and where people looked: RGB, and bool [height, width].

    Raises:
      ValueError: a file cannot be read, or they have different sizes.
    """
    locations = _locations(example.fixations)
    image = read_image(example.stimulus, locations.shape[::-1])
    return image, _map(example.fixations, locations, image.size)


def read_fixation_map(path, size: tuple[int, int]) -> np.ndarray:
    """Reads where people looked.

    Args:
      path: a .mat file with the variable `fixLocs`.
      size: (width, height) of the image that they looked at.

    Returns:
      bool [height, width].

    Raises:
      ValueError: the file cannot be read, has no `fixLocs`, or one of another size.
    """
    return _map(path, _locations(path), size)


def _map(path, locations, size):
    if locations.shape != size[::-1]:
        raise ValueError(
            f"fixLocs in {path} must have the size of its image, {size[0]} x {size[1]}."
            f" Received: {' x '.join(map(str, locations.shape[::-1]))}"
        )
    return locations > 0


def _locations(path):
    try:
        content = scipy.io.loadmat(path, variable_names=["fixLocs"])
    # What broken files make scipy raise is documented nowhere: IndexError, zlib.error,
    # TypeError, ... and NotImplementedError for the HDF5 files of MATLAB 7.3.
    except Exception as error:
        raise ValueError(
            f"Cannot read the fixations {path}: {error or type(error).__name__} "
            "(MATLAB files up to version 7 are read)"
        ) from error
    if "fixLocs" not in content:
        raise ValueError(f"{path} has no variable fixLocs")
    locations = content["fixLocs"]
    if (
        not isinstance(locations, np.ndarray)
        or locations.dtype.kind not in "buif"
        or locations.ndim != 2
    ):
        raise ValueError(f"fixLocs in {path} must be a matrix of numbers")
    return locations


def _folders(directory):
    return sorted(
        path
        for path in directory.iterdir()
        if path.is_dir()
        and path.name != "Output"
        and not image_files.is_hidden(path.name)
    )
