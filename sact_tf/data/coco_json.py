"""COCO's JSON files, entry by entry: what is wrong is answered with where it is.

What is harmless is taken: a byte order mark, whole numbers written as 7.0 or "7", no
area, no iscrowd.
"""

import math
import os
from dataclasses import dataclass

from sact_tf import text_files

_LISTS = ("images", "annotations", "categories")
_MAX_ID = 2**63 - 1
_MAX_CATEGORY = 2**31 - 2  # Classes are int32.
_MAX_SIDE = 2**31 - 1


@dataclass(frozen=True)
class _Entry:
    """One entry of one list of a file, for messages.

    Attributes:
      place: the file and the entry.
      fields: what the entry says.
    """

    place: str
    fields: dict

    def wrong(self, field: str, reason: str) -> ValueError:
        """An error that says where."""
        identity = self.fields.get("id")
        known = "" if identity is None or field == "id" else f" (id {identity!r:.40})"
        if field not in self.fields:
            return ValueError(f"{self.place}{known}: there is no {field!r}")
        return ValueError(
            f"{self.place}{known}: {field} {reason}. "
            f"Received: {self.fields[field]!r:.80}"
        )

    def integer(self, field: str, low: int, high: int, must: str) -> int:
        """A whole number from low to high."""
        value = self.fields.get(field)
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if isinstance(value, float) and value.is_integer():
            value, whole = int(value), True
        if not whole or not low <= value <= high:
            raise self.wrong(field, f"must be {must}")
        return value

    def id(self, field: str) -> int:
        """A number that tells images apart."""
        return self.integer(field, -_MAX_ID, _MAX_ID, "a whole number below 2**63")

    def text(self, field: str) -> str:
        """A text that is not empty; numbers are taken for text."""
        value = self.fields.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(field, "must be a text")
        return value


def read(file: str | os.PathLike, lists: tuple[str, ...] = _LISTS) -> dict[str, list]:
    """Reads a file and checks every entry of some of its lists.

    Returns:
      By name of the list: "images", dicts with id, file_name, height and width;
      "annotations", dicts with image_id, category_id, bbox, area and iscrowd;
      "categories", dicts with id and name.

    Raises:
      ValueError: the file is no such JSON; the message says which entry and which
        field.
      OSError: the file cannot be opened.
    """
    *others, last = lists
    named = f"{', '.join(others)} and {last}" if others else last
    what = f"COCO JSON with {named}"
    content = text_files.json(file, what)
    for name in lists:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise ValueError(f"{file} is no {what}: there is no list {name!r}")
    checks = {"images": _image, "annotations": _annotation, "categories": _category}
    found = {
        name: [
            checks[name](_entry(f"{file} is no {what}: {name}[{index}]", fields))
            for index, fields in enumerate(content[name])
        ]
        for name in lists
    }
    if "categories" in found:
        found["categories"] = _once(file, found["categories"])
    if "images" in found:
        _refuse_repeated(file, found["images"], "id")
        _refuse_repeated(file, found["images"], "file_name")
    return found


def category_names(content: dict[str, list]) -> dict[int, str]:
    """Names of the categories by id, from what `read` gave."""
    return {category["id"]: category["name"] for category in content["categories"]}


def _entry(place, fields):
    if not isinstance(fields, dict):
        raise ValueError(
            f"{place} must have fields with names. Received: {fields!r:.80}"
        )
    return _Entry(place, fields)


def _category(entry):
    must = "1 or more, since 0 is the background, whole and below 2**31"
    number = entry.integer("id", 1, _MAX_CATEGORY, must)
    return {"id": number, "name": entry.text("name").strip()}


def _image(entry):
    sides = {
        side: entry.integer(side, 1, _MAX_SIDE, "a whole number of pixels")
        for side in ("height", "width")
    }
    return {"id": entry.id("id"), "file_name": entry.text("file_name"), **sides}


def _annotation(entry):
    box = entry.fields.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise entry.wrong("bbox", "must be four numbers: x, y, width, height")
    if not all(map(math.isfinite, box)):
        raise entry.wrong("bbox", "is not finite")
    box = [float(side) for side in box]
    area = entry.fields.get("area")
    if area is None:
        area = box[2] * box[3]
    elif not _is_number(area) or not math.isfinite(area):
        raise entry.wrong("area", "must be a finite number, or null")
    crowd = entry.fields.get("iscrowd")
    if crowd is None:
        crowd = 0
    elif crowd not in (0, 1):
        raise entry.wrong("iscrowd", "must be 0 or 1, or null")
    return {
        "image_id": entry.id("image_id"),
        "category_id": entry.id("category_id"),
        "bbox": box,
        "area": float(area),
        "iscrowd": int(crowd),
    }


def _is_number(value):
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return isinstance(value, float) or abs(value) <= _MAX_ID


def _once(file, categories):
    """Categories without repetitions; two names for one id are an error."""
    names = {}
    for index, category in enumerate(categories):
        name = names.setdefault(category["id"], category["name"])
        if name != category["name"]:
            raise ValueError(
                f"{file}: categories[{index}] has the id {category['id']}, as another "
                f"one has: {name!r} and {category['name']!r}. Give each an id of its "
                "own (were files merged?)"
            )
    return [{"id": number, "name": name} for number, name in names.items()]


def _refuse_repeated(file, images, field):
    seen = {}
    for index, image in enumerate(images):
        first = seen.setdefault(image[field], index)
        if first != index:
            raise ValueError(
                f"{file}: images[{first}] and images[{index}] have the same {field}, "
                f"{image[field]!r}. Image ids and file names must be unique (were "
                "files merged?)"
            )
