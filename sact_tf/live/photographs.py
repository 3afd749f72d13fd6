"""Photographs that a page has sent, and those that it offers."""

import collections
import hashlib
import io
import threading
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sact_tf.data import decoding, image_files

#: Bytes of a file that is taken.
MAX_BYTES = 64 * 2**20
#: Pixels of an image, height times width.
MAX_PIXELS = 25_000_000
#: Bytes of all photographs that are kept; those that were used least go first.
_KEPT = 512 * 2**20
#: Pixels of the longer side, as shown.
_SHOWN = 1280


@dataclass(frozen=True)
class Photograph:
    """An image, in all forms that somebody wants.

    Attributes:
      key: tells it from others.
      name: of its file.
      pixels: uint8 [H, W, 3], upright.
      encoded: a JPEG or PNG of it, for networks.
      shown: a JPEG or PNG that browsers show upright.
      mime_type: of `shown`.
    """

    key: str
    name: str
    pixels: np.ndarray
    encoded: bytes
    shown: bytes
    mime_type: str

    @property
    def num_bytes(self) -> int:
        """What it takes to keep it."""
        return self.pixels.nbytes + len(self.encoded) + len(self.shown)


def read(encoded: bytes, name: str) -> Photograph:
    """Reads an image that somebody has sent.

    Args:
      encoded: the file, in any format that `image_files.contents` takes.
      name: of the file, for messages.

    Raises:
      ValueError: it is no image, is damaged, or has too many pixels.
    """
    _refuse_huge(encoded, name)
    native = image_files.native(encoded, name)
    pixels = image_files.decoded(native, name)
    if not native.startswith((decoding.JPEG, decoding.PNG)):
        native = _written(Image.fromarray(pixels), "PNG")
    key = hashlib.sha256(encoded).hexdigest()[:32]
    return Photograph(key, name, pixels, native, *reduced(pixels))


def reduced(pixels: np.ndarray, longer_side: int = _SHOWN) -> tuple[bytes, str]:
    """A file for browsers, and its MIME type.

    Args:
      pixels: uint8 [H, W, 3].
      longer_side: pixels at most.
    """
    image = Image.fromarray(pixels)
    image.thumbnail((longer_side, longer_side))
    # Small ones exactly: of a few pixels each one is seen.
    kind = "PNG" if max(image.size) <= 256 else "JPEG"
    return _written(image, kind), f"image/{kind.lower()}"


def _refuse_huge(encoded, name):
    """By what the file's head says, before it is decoded."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            width, height = image.size
    except Exception:  # Whoever decodes it says better what is wrong.
        return
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{name} has {width} x {height} pixels; {MAX_PIXELS} in all are taken"
        )


def _written(image, kind):
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


class Store:
    """The last photographs, by key; for many threads."""

    def __init__(self, max_bytes: int = _KEPT):
        """Makes an empty one that keeps so many bytes."""
        self._max_bytes = max_bytes
        self._kept: collections.OrderedDict[str, Photograph] = collections.OrderedDict()
        self._lock = threading.Lock()

    def add(self, photograph: Photograph) -> None:
        """Keeps a photograph, and lets others go if there is no room."""
        with self._lock:
            self._kept[photograph.key] = photograph
            self._kept.move_to_end(photograph.key)
            while len(self._kept) > 1 and self._size() > self._max_bytes:
                self._kept.popitem(last=False)

    def __getitem__(self, key: str) -> Photograph:
        """A photograph.

        Raises:
          KeyError: there is none, or no longer.
        """
        with self._lock:
            self._kept.move_to_end(key)
            return self._kept[key]

    def _size(self):
        return sum(photograph.num_bytes for photograph in self._kept.values())


def own_examples() -> dict[str, bytes]:
    """Images that need no download, PNG or JPEG files by name: scenes and photographs.

    None at all without scikit-learn, which has their digits and photographs.
    """
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        return {}
    from sact_tf.data import digit_scenes

    scenes = digit_scenes.scenes(np.arange(3), "validation", size=192)["image"]
    pixels = np.uint8(np.round((np.asarray(scenes) + 1) * 127.5))
    found = {
        f"digit scene {number}": _written(Image.fromarray(scene), "PNG")
        for number, scene in enumerate(pixels, 1)
    }
    for name, photograph in zip(
        ("temple", "flower"), load_sample_images().images, strict=True
    ):
        found[name] = _written(Image.fromarray(photograph), "JPEG")
    return found
