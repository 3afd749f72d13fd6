"""Which folder of images is which class: said by the user, or by all folders there."""

import pathlib
from collections.abc import Sequence

from sact_tf.data import image_files


def labels(
    folder: pathlib.Path, files: Sequence[pathlib.Path], classes: Sequence[str] | None
) -> tuple[list[int], list[str] | None]:
    """The labels of image files, and the names of the classes.

    Args:
      folder: where the files are.
      files: below it.
      classes: names of the classes in their order; by default all folders are classes,
        those without images too, in alphabetical order.

    Returns:
      Labels, and names; if the images are in no folders, -1 for each, and None.

    Raises:
      ValueError: it cannot be told which folder is which class; the message lists the
        folders.
    """
    found = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and not image_files.is_hidden(path.name)
    )
    first = [path.relative_to(folder).parts for path in files]
    loose = [parts[0] for parts in first if len(parts) == 1]
    if loose and (classes or len(loose) < len(files)):
        raise ValueError(
            f"{folder} has images of its own, such as {loose[0]}, beside the folders "
            f"{listed(found)}. If these are classes, move the images into them; if "
            "not, give one folder with images only"
        )
    if loose:
        return [-1] * len(files), None
    names = list(classes or found)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"The class {repeated[0]!r} is named twice")
    unknown = [name for name in found if name not in names]
    if unknown:
        raise ValueError(
            f"{folder} has the folders {listed(found)}; no class is called "
            f"{listed(unknown)}. Received: {listed(names)}"
        )
    number = {name: index for index, name in enumerate(names)}
    return [number[parts[0]] for parts in first], names


def listed(names: Sequence[str]) -> str:
    """Names for a message: the first ones, if they are many."""
    shown = [*names[:10], *(["..."] if len(names) > 11 else names[10:])]
    return ", ".join(shown) or "none"
