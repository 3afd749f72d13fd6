"""One picture as files of many kinds."""

import io

import numpy as np
from PIL import Image

ORIENTATIONS = range(1, 9)


def noise(height, width, seed=0):
    """A picture of which no two sides are alike: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, [height, width, 3], np.uint8)


def stored(upright, orientation):
    """What a camera stores that was held so: what is turned back to upright."""
    pixels = upright
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels)


def encode(pixels, kind="PNG", orientation=None, endian="<", **options):
    """A file of pixels, or of a PIL image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if orientation is not None:
        exif = Image.Exif()
        exif.endian = endian
        exif[0x10F] = "A maker"
        exif[0x112] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated(upright, orientation, kind="PNG", **options):
    """A file that shows a picture if its EXIF is heeded."""
    return encode(stored(upright, orientation), kind, orientation, **options)
