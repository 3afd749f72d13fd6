"""Photographs from files: which files they are, what they are called, what they show.

A file means the same wherever it is read: what `decoding` makes of it. Formats that
TensorFlow does not know are brought into one that it does.
"""

import glob
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image

from sact_tf import errors
from sact_tf.data import decoding

SUFFIXES = (".jpg", ".jpeg", ".png")

_MAC = "__MACOSX"  # What packing on a Mac adds to an archive.
_NATIVE = (decoding.JPEG, decoding.PNG, b"GIF8", b"RIFF")
_ORIENTATION = ExifTags.Base.Orientation
_START = 34  # Bytes that tell.
_CONVERTED = ("BMP", "DIB", "TIFF", "JPEG2000", "PPM", "AVIF", "WEBP")

#: Formats that are read.
KNOWN = "JPEG, PNG, GIF, WebP, BMP, TIFF, JPEG 2000, PPM and AVIF"

#: Bytes of an output's name: file systems take 255, and endings are added.
_MAX_NAME = 160
_DIGEST = 8


class UnreadableError(ValueError):
    """A file cannot be read.

    Attributes:
      reason: why.
    """

    def __init__(self, path: str | os.PathLike, reason: str):
        """Creates it for a file."""
        super().__init__(f"{path} is no readable image. ({reason})")
        self.reason = reason


class UnknownFormatError(ValueError):
    """A file is in none of the formats that are read."""


def find(paths: Iterable[str | os.PathLike]) -> list[pathlib.Path]:
    """Image files from files, folders and glob patterns, each once, in a fixed order.

    Folders are searched with all folders below them for .jpg, .jpeg and .png, but for
    what is hidden (see `is_hidden`); a file that is named itself is taken whatever its
    name.

    Raises:
      FileNotFoundError: a path does not exist, or has no images; the message says
        which.
    """
    return list(find_named(paths))


def find_named(paths: Iterable[str | os.PathLike]) -> dict[pathlib.Path, str]:
    """As `find`; with every file its name: its path below the folder that was given.

    Of a pattern, the folder is what comes before its first part with a wildcard; a file
    that is given itself has no other name than its own.
    """
    found, there = {}, set()
    for given in map(str, paths):
        literal = os.path.exists(given)
        matches = [given] if literal else _matches(given)
        if not matches:
            raise FileNotFoundError(f"There is no file, folder or match of {given}.")
        root = pathlib.Path(given) if literal else _root(given)
        files = []
        for path in map(pathlib.Path, matches):
            files += below(path) if path.is_dir() else [path]
        if not files:
            raise FileNotFoundError(
                f"{given} has no images: no file ends in {', '.join(SUFFIXES)}."
            )
        for path in files:
            same = os.path.abspath(path)
            if same not in there:
                there.add(same)
                inside = root.is_dir() and path.is_relative_to(root)
                name = path.relative_to(root).as_posix() if inside else path.name
                found[path] = name
    return found


def below(folder: pathlib.Path) -> list[pathlib.Path]:
    """Image files in a folder and the folders below it, sorted; see `find`."""
    files, seen = [], set()
    # Unlike pathlib's, this walk follows links to folders.
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [n for n in folders if not is_hidden(n)]
        if real in seen:
            continue
        seen.add(real)
        files += [
            pathlib.Path(place) / name
            for name in names
            if name.lower().endswith(SUFFIXES) and not is_hidden(name)
        ]
    return sorted(path for path in files if path.is_file())


def is_hidden(name: str | os.PathLike) -> bool:
    """Whether some part of a path is hidden: begins with a dot, or is __MACOSX."""
    parts = pathlib.PurePath(name).parts
    return any(part.startswith(".") or part == _MAC for part in parts)


def output_names(
    names: Mapping[pathlib.Path, str], taken: Sequence[str] = ()
) -> dict[pathlib.Path, str]:
    """Names for what is written about images, without ending, by file.

    That is the image's own name with "_" for "/", shortened if it is too long. Where
    that leaves two with one name, or one that is taken, a digest of their paths tells
    them apart; so the name of an image depends on nothing but the images.

    Args:
      names: as `find_named` gives them.
      taken: names that something else has.
    """
    plain = {path: _flat(name) for path, name in names.items()}
    count: dict[str, int] = {}
    for name in (*taken, *plain.values()):
        # Some file systems know no upper case.
        count[name.casefold()] = count.get(name.casefold(), 0) + 1
    return {
        path: name
        if count[name.casefold()] == 1 and len(os.fsencode(name)) <= _MAX_NAME
        else short_name(name, f"{names[path]}\n{os.path.abspath(path)}")
        for path, name in plain.items()
    }


def short_name(name: str, identity: str | None = None) -> str:
    """A name that every file system takes, cut if need be, with a digest at its end.

    Args:
      name: of whatever length.
      identity: what the digest is of; the name by default, which then stays as it is
        unless it is too long.
    """
    encoded = os.fsencode(name)
    if identity is None and len(encoded) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(os.fsencode(identity or name)).hexdigest()[:_DIGEST]
    cut = encoded[: _MAX_NAME - _DIGEST - 1].decode("utf-8", "ignore")
    return f"{cut}-{digest}"


def read(
    path: str | os.PathLike,
    longer_side: int | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Reads an image: the right way up, opaque, in colour.

    Args:
      path: of a JPEG or PNG file, or of another one that `contents` takes.
      longer_side: if given, the image is shrunk or enlarged until its longer side has
        so many pixels; the aspect ratio stays.
      size: height and width that annotations of the image say; see `decoding.upright`.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ValueError: the file is no image, is damaged, or is absurdly large.
      OSError: the file cannot be opened.
    """
    pixels = decoded(contents(path), path, size)
    if longer_side:
        scale = longer_side / max(pixels.shape[:2])
        sides = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
        image = Image.fromarray(pixels).resize(sides, Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels


def decoded(
    encoded: bytes, name: str | os.PathLike, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Pixels of what `contents` or `native` gave: uint8 [H, W, 3], upright.

    Args:
      encoded: the file.
      name: what to call it in messages.
      size: as for `read`.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        return _decode(encoded, (-1, -1) if size is None else size).numpy()
    except (tf.errors.OpError, MemoryError) as error:
        raise _unreadable(name, error) from error


def read_raw(path: str | os.PathLike) -> tuple[np.ndarray, bytes]:
    """What `decoding.upright` takes: pixels as they are in the file, and the file.

    For functions that a graph calls; as they hold a thread of TensorFlow's, they must
    not run a graph themselves.

    Raises:
      ValueError, OSError: as `read`.
    """
    encoded = contents(path)
    try:
        with tf.device("cpu:0"):
            return decoding.pixels(tf.constant(encoded)).numpy(), encoded
    except (tf.errors.OpError, MemoryError) as error:
        raise _unreadable(path, error) from error


def contents(path: str | os.PathLike) -> bytes:
    """A file as `decoding` takes it: as it is, or brought into PNG.

    JPEG, PNG, GIF and plain WebP are left alone. BMP, TIFF, JPEG 2000, PPM, AVIF, and
    WebP that is transparent or animated, become PNG of 8 bits; without transparency, as
    everywhere, and rotated as they were, but for TIFF, which is upright then.

    Raises:
      ValueError: the file is no image, is damaged, or is absurdly large; it is not
        looked for whether a file that is left alone can be decoded.
      OSError: the file cannot be opened.
    """
    return native(pathlib.Path(path).read_bytes(), path)


def native(encoded: bytes, name: str | os.PathLike) -> bytes:
    """The bytes of a file as `decoding` takes them; see `contents`.

    Args:
      encoded: the file.
      name: what to call it in messages.

    Raises:
      ValueError: as `contents`.
    """
    if not encoded:
        raise _unreadable(name, ValueError("the file is empty"))
    is_native = _is_native(encoded)
    Image.init()
    formats = None
    if not is_native:
        formats = [kind for kind in _CONVERTED if kind in Image.OPEN]
    try:
        with Image.open(io.BytesIO(encoded), formats=formats) as image:
            return encoded if is_native else _as_png(image)
    except Image.UnidentifiedImageError as error:
        if is_native:  # Pillow only looks at its size here; it need not know it.
            return encoded
        raise UnknownFormatError(
            f"{name} is no readable image: it is none of {KNOWN}. Convert it to PNG "
            "or JPEG"
        ) from error
    except Image.DecompressionBombError as error:
        raise _unreadable(name, error) from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        if is_native:
            return encoded
        raise _unreadable(name, error) from error


def is_native(path: str | os.PathLike) -> bool:
    """Whether `contents` leaves the file alone, so that graphs can read it."""
    with open(path, "rb") as file:
        return _is_native(file.read(_START))


def _is_native(encoded):
    start = encoded[:_START]
    return start.startswith(_NATIVE) and not decoding.is_rich_webp(start)


def as_png_or_jpeg(path: str | os.PathLike) -> bytes:
    """A file as servers and other readers take it: as it is, or as a PNG of its pixels.

    Raises:
      ValueError, OSError: as `read`.
    """
    encoded = contents(path)
    if encoded.startswith((decoding.JPEG, decoding.PNG)):
        return encoded
    return tf.io.encode_png(read(path)).numpy()


def plain(path: str | os.PathLike, size: tuple[int, int] | None = None) -> bytes:
    """A file as readers take it who know nothing of EXIF: JPEG or PNG, upright.

    The file as it is where that is so already; otherwise a PNG of the same pixels.

    Args:
      path: of the file.
      size: as for `read`.

    Raises:
      ValueError, OSError: as `read`.
    """
    encoded = as_png_or_jpeg(path)
    if decoding.orientation(encoded) == 1:
        return encoded
    return tf.io.encode_png(read(path, size=size)).numpy()


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int64)],
    autograph=False,
)
def _decode(encoded, size):
    return decoding.decode(encoded, size)


def _as_png(image):
    # TIFF turns itself when it is decoded, and is then no longer rotated.
    image.load()
    rotation = Image.Exif()
    rotation[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
    if image.mode == "F":
        raise ValueError(
            "its pixels are floating point numbers: which of them is white?"
        )
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels have more than 16 bits")
        image = Image.fromarray(np.uint8(values >> 8))  # As TensorFlow does with PNG.
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG", compress_level=1, exif=rotation)
    return file.getvalue()


def _unreadable(path, error):
    return UnreadableError(path, errors.cause(error))


def _matches(pattern):
    """Matches without hidden ones that the pattern does not name."""
    named = set(pathlib.PurePath(pattern).parts)
    return [
        match
        for match in sorted(glob.glob(pattern, recursive=True))
        if not any(
            is_hidden(part) and part not in named
            for part in pathlib.PurePath(match).parts
        )
    ]


def _root(pattern):
    parts = []
    for part in pathlib.PurePath(pattern).parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return pathlib.Path(*parts)


def _flat(name):
    return os.path.splitext(name)[0].replace("/", "_")
