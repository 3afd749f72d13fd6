import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from sact_tf.data import decoding
from tests.data import pictures

PICTURE = pictures.noise(20, 30)


@tf.function(
    input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int32)],
    autograph=False,
)
def decode(encoded, size):
    return decoding.decode(encoded, size)


def decoded(encoded, size=(-1, -1)):
    return decode(encoded, size).numpy()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_all_orientations(kind, endian):
    options = {"lossless": True} if kind == "WEBP" else {}
    for picture in (PICTURE, pictures.noise(16, 16)):
        for orientation in pictures.ORIENTATIONS:
            encoded = pictures.rotated(
                picture, orientation, kind, endian=endian, **options
            )
            np.testing.assert_array_equal(decoded(encoded), picture)


def test_all_orientations_of_jpeg(tmp_path):
    smooth = np.asarray(Image.fromarray(pictures.noise(3, 4)).resize((64, 48)))
    for orientation in pictures.ORIENTATIONS:
        encoded = pictures.rotated(smooth, orientation, "JPEG", quality=95)
        (tmp_path / "a.jpg").write_bytes(encoded)
        pillows = ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))
        ours = decoded(encoded).astype(int)
        assert np.abs(ours - np.asarray(pillows)).max() < 8
        assert np.abs(ours - smooth).max() < 40 and ours.shape == smooth.shape


def with_exif(tiff, before=b""):
    """A JPEG whose first segments are these."""
    plain = pictures.encode(PICTURE, "JPEG")
    payload = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    return plain[:2] + before + segment + plain[2:]


def tiff(kind, value, tag=0x112, order="<", count=1):
    head = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHI", tag, kind, 1) + value.ljust(4, b"\0")
    return head + struct.pack(f"{order}IH", 8, count) + entry + bytes(4)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (with_exif(tiff(3, b"\6\0")), 6),
        (with_exif(tiff(4, b"\0\0\0\6", order=">")), 6),
        (with_exif(tiff(1, b"\6")), 6),
        # After other segments, and after bytes that fill up.
        (with_exif(tiff(3, b"\3\0"), b"\xff\xe2\0\6Exif"), 3),
        (with_exif(tiff(3, b"\3\0"), b"\xff\xff"), 3),
        # What is no orientation is none.
        (with_exif(tiff(3, b"\0\0")), 1),
        (with_exif(tiff(3, b"\x09\0")), 1),
        (with_exif(tiff(3, b"\6\0", tag=0x113)), 1),
        (with_exif(b""), 1),
        (with_exif(b"II*\0\xff\xff\xff\xff"), 1),
        (with_exif(tiff(3, b"\6\0", count=60000)), 6),
        (with_exif(tiff(3, b"\6\0"))[:30], 1),
        (b"\xff\xd8\xff\xe1\0\0Exif\0\0", 1),
        (decoding.PNG + b"\xff\xff\xff\xffeXI" + b"eXIf", 1),
        (b"RIFF\0\0\0\0WEBP????\xff\xff\xff\xffEXIF", 1),
        (b"Exif\0\0", 1),
        (b"", 1),
    ],
)
def test_odd_exif(encoded, expected):
    assert int(decoding.orientation(encoded)) == expected


def test_exif_behind_the_pixels_of_a_png():
    encoded = pictures.encode(PICTURE)
    content = tiff(3, b"\3\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    late = encoded[:-12] + chunk + encoded[-12:]
    np.testing.assert_array_equal(decoded(late), PICTURE[::-1, ::-1])


def test_the_size_in_annotations_decides():
    encoded = pictures.rotated(PICTURE, 6)
    np.testing.assert_array_equal(decoded(encoded, (20, 30)), PICTURE)
    np.testing.assert_array_equal(
        decoded(encoded, (30, 20)), pictures.stored(PICTURE, 6)
    )
    # Sizes that fit neither way, or both ways, change nothing.
    np.testing.assert_array_equal(decoded(encoded, (7, 7)), PICTURE)
    np.testing.assert_array_equal(
        decoded(pictures.rotated(PICTURE, 3), (20, 30)), PICTURE
    )
    square = pictures.noise(16, 16)
    np.testing.assert_array_equal(
        decoded(pictures.rotated(square, 6), (16, 16)), square
    )


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_palettes_of_bmp_are_refused(mode):
    encoded = pictures.encode(Image.fromarray(PICTURE).convert(mode), "BMP")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Of BMP files only"):
        decoded(encoded)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_bmp_of_true_colour(mode):
    encoded = pictures.encode(Image.fromarray(PICTURE).convert(mode), "BMP")
    np.testing.assert_array_equal(decoded(encoded), PICTURE)
