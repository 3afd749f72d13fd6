"""Detection data in COCO's form: a JSON file of annotations and a folder of images."""

import os
import pathlib
import posixpath
from collections.abc import Iterable, Mapping
from concurrent import futures
from dataclasses import dataclass

import numpy as np

from sact_tf import errors
from sact_tf.data import coco_json, image_files

#: COCO's category ids: TFDS numbers its labels 0 to 79, in this order.
CATEGORY_IDS = tuple(
    number
    for number in range(1, 91)
    if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
)


@dataclass(frozen=True)
class Annotations:
    """A COCO annotation file that has been checked against its folder of images.

    Attributes:
      file: path of the JSON file.
      image_folder: path of the images.
      images: dicts with id, file_name, height and width.
      boxes: by image id, dicts with bbox ([x, y, width, height] in pixels, within the
        image), category_id, area and iscrowd.
      categories: names by id.
      num_dropped: how many boxes were left out, having no area within their image.
    """

    file: pathlib.Path
    image_folder: pathlib.Path
    images: list[dict]
    boxes: dict[int, list[dict]]
    categories: dict[int, str]
    num_dropped: int

    @property
    def num_classes(self) -> int:
        """What a network needs: ids are classes, and 0 is the background."""
        return max(self.categories) + 1

    def path(self, image: dict) -> pathlib.Path:
        """Where the file of an image is."""
        return self.image_folder / image["file_name"]


def load(
    annotation_file: str | os.PathLike, image_folder: str | os.PathLike
) -> Annotations:
    """Reads an annotation file, and checks all but the contents of the images.

    Boxes are clipped to their images, and dropped if nothing is left.

    Args:
      annotation_file: COCO JSON with images, annotations and categories.
      image_folder: has the files that the JSON names.

    Raises:
      FileNotFoundError: there is no such file or folder, or images are missing; the
        message says how many and names some.
      ValueError: the file is no COCO JSON, or contradicts itself; the message says
        where.
    """
    file, folder = pathlib.Path(annotation_file), pathlib.Path(image_folder)
    if not file.is_file():
        raise FileNotFoundError(f"There is no annotation file {file}")
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder of images {folder}")
    content = coco_json.read(file)
    categories = coco_json.category_names(content)
    images, annotations = content["images"], content["annotations"]
    if not images or not categories:
        raise ValueError(f"{file} has no images or no categories")
    by_id = {image["id"]: image for image in images}
    _refuse(
        [a for a in annotations if a["category_id"] not in categories],
        f"{file}: {{count}} annotations are of a category that is not in the list, for "
        "instance category_id {0[category_id]} in image {0[image_id]}",
    )
    _refuse(
        [a for a in annotations if a["image_id"] not in by_id],
        f"{file}: {{count}} annotations are of an image that is not in the list, for "
        "instance image_id {0[image_id]}",
    )
    there = set(os.listdir(folder))
    for image in images:
        slashes = image["file_name"].replace("\\", "/")
        if image["file_name"] not in there and os.path.isfile(folder / slashes):
            image["file_name"] = slashes  # Written on Windows.
    missing = [
        image["file_name"]
        for image in images
        if image["file_name"] not in there
        # Unlike pathlib, this answers to names that no file can have.
        and not os.path.isfile(folder / image["file_name"])
    ]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(images)} images of {file} are not in {folder}: "
            f"{_some(missing)}"
        )
    boxes, dropped = {image["id"]: [] for image in images}, 0
    for annotation in annotations:
        clipped = _clipped(annotation, by_id[annotation.pop("image_id")], boxes)
        dropped += not clipped
    return Annotations(file, folder, images, boxes, categories, dropped)


def class_names(annotation_file: str | os.PathLike, num_classes: int) -> list[str]:
    """Names of a detector's classes: the background's, then those of the categories.

    Ids without a category, of which COCO has ten, are named by their numbers.

    Args:
      annotation_file: COCO JSON with categories.
      num_classes: of the detector, background included.

    Raises:
      ValueError: the file has no such categories, or more than the detector.
    """
    names = coco_json.category_names(coco_json.read(annotation_file, ("categories",)))
    if max(names, default=0) >= num_classes:
        raise ValueError(
            f"{annotation_file} has categories up to {max(names)}, but the detector "
            f"has classes up to {num_classes - 1}"
        )
    numbered = [names.get(number, str(number)) for number in range(1, num_classes)]
    return ["background", *numbered]


def check_images(
    annotations: Annotations, progress=lambda images: images
) -> list[dict]:
    """Reads every image as it will be used, to find what is broken before that.

    Images are upright, unless only what is stored has the size that the JSON says (see
    `decoding.upright`).

    Args:
      annotations: what `load` gave.
      progress: wraps the images as they are checked, for a progress bar.

    Returns:
      The images, all of them good.

    Raises:
      ValueError: images are corrupt, or of another size than the JSON says; the message
        says how many and names some.
    """
    with futures.ThreadPoolExecutor() as pool:
        results = pool.map(lambda i: _problem(annotations, i), annotations.images)
        problems = [problem for problem in progress(results) if problem]
    if problems:
        raise ValueError(
            f"{len(problems)} of {len(annotations.images)} images of "
            f"{annotations.file} cannot be used: {_some(problems)}"
        )
    return annotations.images


def matched(
    annotation_file: str | os.PathLike,
    images: Iterable[dict],
    files: Mapping[pathlib.Path, str],
) -> dict[pathlib.Path, dict]:
    """Which file is which image of an annotation file.

    A file's name below its folder must be the file_name, or the end of it: folders
    above the one that was given count, too, a file_name without folders does not stand
    for files in any.

    Args:
      annotation_file: for messages.
      images: of the annotation file.
      files: names by path, as `image_files.find_named` gives them.

    Returns:
      Images by path; without files that the annotation file does not have.

    Raises:
      ValueError: there are two ways to read it.
    """
    by_name = {
        posixpath.normpath(image["file_name"].replace("\\", "/")): image
        for image in images
    }
    found, taken = {}, {}
    for path, name in files.items():
        parts = pathlib.Path(os.path.abspath(path)).parts
        shortest = len(pathlib.PurePosixPath(name).parts)
        ends = ("/".join(parts[-count:]) for count in range(shortest, len(parts)))
        names = [end for end in ends if end in by_name]
        if len(names) > 1:
            raise ValueError(
                f"{path} may be {' or '.join(names)} of {annotation_file}. Give the "
                "folder below which the images are called so"
            )
        for end in names:
            other = taken.setdefault(end, path)
            if other != path:
                raise ValueError(
                    f"{other} and {path} may both be {end} of {annotation_file}. Give "
                    "the folder below which the images are called so, and no other"
                )
            found[path] = by_name[end]
    return found


def as_json(
    images: Iterable[dict],
    detections: Iterable[dict],
    categories: dict[int, str] | None = None,
) -> list[dict]:
    """Detections as COCO's results format has them.

    Args:
      images: dicts with id.
      detections: one for each image: boxes [n, 4] as [ymin, xmin, ymax, xmax] in pixels
        of the original image, scores [n] and classes [n].
      categories: the classes that there are; detections of others are left out. All
        are kept by default.

    Returns:
      Dicts with image_id, category_id, bbox ([x, y, width, height]) and score.
    """
    entries = []
    for image, found in zip(images, detections, strict=True):
        boxes = np.asarray(found["boxes"], np.float64)
        for box, score, category in zip(
            boxes, found["scores"], found["classes"], strict=True
        ):
            if categories is not None and int(category) not in categories:
                continue
            ymin, xmin, ymax, xmax = (round(float(side), 3) for side in box)
            entries.append(
                {
                    "image_id": image["id"],
                    "category_id": int(category),
                    "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                    "score": float(score),
                }
            )
    return entries


def with_name(entry: dict, names: Mapping[int, str]) -> dict:
    """A detection of `as_json` with category_name: its number, where there is none."""
    number = entry["category_id"]
    ids = {"image_id": entry["image_id"], "category_id": number}
    return {**ids, "category_name": names.get(number, str(number)), **entry}


def _clipped(annotation, image, boxes):
    """Adds the annotation to the boxes of its image, if there is anything of it."""
    x, y, width, height = annotation["bbox"]
    left, top = max(x, 0.0), max(y, 0.0)
    right = min(x + width, float(image["width"]))
    bottom = min(y + height, float(image["height"]))
    if right <= left or bottom <= top:
        return False
    annotation["bbox"] = [left, top, right - left, bottom - top]
    boxes[image["id"]].append(annotation)
    return True


def _problem(annotations, image):
    height, width = size = image["height"], image["width"]
    try:
        pixels = image_files.read(annotations.path(image), size=size)
    except image_files.UnknownFormatError:
        return f"{image['file_name']} (none of {image_files.KNOWN})"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or errors.cause(error)
        return f"{image['file_name']} (cannot be read: {reason})"
    there = pixels.shape[:2]
    if there == size:
        return None
    turned = ", upright as the file's EXIF says" if there[::-1] == size else ""
    return (
        f"{image['file_name']} ({there[1]} x {there[0]} pixels{turned}, but the JSON "
        f"says {width} x {height})"
    )


def _refuse(entries, message):
    if entries:
        raise ValueError(message.format(entries[0], count=len(entries)))


def _some(names):
    shown = [f"{name:.300}" for name in names[:3]]
    return f"{', '.join(shown)}{', ...' if names[3:] else ''}"
