"""From the bytes of an image file to pixels, in a graph: what a file means here.

Training, evaluation and exported graphs decode with this; `image_files` reads with it.
An image is what TensorFlow's decoder makes of its file - transparency is ignored, of an
animation the first frame counts - turned upright as its EXIF says, which that decoder
does not do.
"""

import re

import tensorflow as tf

#: Of JPEG and PNG files, of no others.
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
#: Header of a BMP file of 24 or 32 bits a pixel, uncompressed.
_TRUE_COLOUR = r"BM\C{12}[\x28-\x7f]\C{13}[\x18\x20]\x00{5}"
#: Flags in the header of a WebP file: transparent (0x10), or an animation (0x02). With
#: three channels TensorFlow decodes neither.
_FLAGS = "".join(f"\\x{flags:02x}" for flags in range(0x40) if flags & 0x12)
_RICH_WEBP = rf"RIFF\C{{4}}WEBPVP8(X\C{{4}}[{_FLAGS}]|L\C{{8}}[\x10-\x1f])\C*"

_ORIENTATION = 0x112  # The tag, and the types that its value may have.
_SHORT, _LONG = 3, 4
_MAX_ENTRIES = 1024
#: Parts of a file that are looked at. A real one has its EXIF among the first few, a
#: PNG that has it in the end a few thousand before it.
_MAX_PARTS = 10_000
_HEADER = 16  # Bytes of a part that are looked at.
_ZEROS = b"\0" * _HEADER


def decode(encoded: tf.Tensor, size: tf.Tensor | None = None) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF, WebP or true-colour BMP file.

    Args:
      encoded: string scalar, the whole file.
      size: see `upright`.

    Returns:
      uint8 [H, W, 3], upright.
    """
    return upright(pixels(encoded), encoded, size)


def is_rich_webp(start: bytes) -> bool:
    """Whether a file, of which the first 34 bytes are enough, is such a WebP file."""
    pattern = _RICH_WEBP.replace(r"\C", ".").encode()
    return re.fullmatch(pattern, start, re.DOTALL) is not None


def pixels(encoded: tf.Tensor) -> tf.Tensor:
    """What TensorFlow's decoder makes of a file, as the camera held it.

    Palettes of BMP files, which that decoder takes for shades of grey, are refused, as
    are transparent or animated WebP files.

    Args:
      encoded: string scalar, the whole file.

    Returns:
      uint8 [H, W, 3].
    """
    header = tf.strings.substr(encoded, 0, 34)
    other = tf.strings.substr(encoded, 0, 2) != b"BM"
    check = tf.debugging.Assert(
        other | tf.strings.regex_full_match(header, _TRUE_COLOUR),
        ["Of BMP files only those of 24 or 32 bits a pixel, uncompressed, are decoded"],
    )
    plain = tf.debugging.Assert(
        ~tf.strings.regex_full_match(header, _RICH_WEBP),
        ["WebP files that are transparent or animated are not decoded"],
    )
    with tf.control_dependencies([check, plain]):
        encoded = tf.identity(encoded)
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def upright(
    image: tf.Tensor, encoded: tf.Tensor, size: tf.Tensor | None = None
) -> tf.Tensor:
    """Turns and mirrors an image as the EXIF of its file says.

    Args:
      image: [H, W, C], what `pixels` gave.
      encoded: string scalar, the whole file.
      size: height and width, int [2], that annotations of the image say. If the image
        has them as it is, and would not have them upright, it stays as it is.

    Returns:
      [H, W, C] or [W, H, C].
    """
    result = tf.cond(
        _may_have_exif(encoded),
        lambda: _turned(image, _orientation(encoded), size),
        lambda: image,
    )
    return tf.ensure_shape(result, [None, None, image.shape[-1]])


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The orientation in the EXIF of a JPEG, PNG or WebP file; 1, upright, if none.

    Args:
      encoded: string scalar, the whole file.

    Returns:
      int64 scalar, 1 to 8.
    """
    return tf.cond(
        _may_have_exif(encoded),
        lambda: _orientation(encoded),
        lambda: tf.constant(1, tf.int64),
    )


def _turned(image, number, size):
    if size is not None:
        there = tf.cast(tf.shape(image)[:2], tf.int64)
        size = tf.cast(size, tf.int64)
        turned = tf.reduce_any(there[::-1] != size)
        kept = tf.reduce_all(there == size) & (number >= 5) & turned
        number = tf.where(kept, tf.constant(1, tf.int64), number)

    def when(numbers, change, image):
        chosen = tf.reduce_any(number == numbers)
        return tf.cond(chosen, lambda: change(image), lambda: image)

    image = when([5, 6, 7, 8], lambda x: tf.transpose(x, [1, 0, 2]), image)
    image = when([2, 3, 6, 7], lambda x: x[:, ::-1], image)
    return when([3, 4, 7, 8], lambda x: x[::-1], image)


def _may_have_exif(encoded):
    """A quick look: most files have none, and need no loop over their parts."""
    first = tf.strings.substr(encoded, 0, 1)
    name = tf.where(
        first == b"R", b"EXIF", tf.where(first == JPEG[:1], b"Exif", b"eXIf")
    )
    # Ten times faster than a regular expression.
    parts = tf.raw_ops.StringSplitV2(input=[encoded], sep=name, maxsplit=1)
    return tf.size(parts.values) > 1


def _orientation(encoded):
    head = tf.strings.join([tf.strings.substr(encoded, 0, _HEADER), _ZEROS])

    def begins(text, start=0):
        return tf.strings.substr(head, start, len(text)) == text

    start = tf.case(
        [
            (begins(JPEG), lambda: _search(encoded, 2, _jpeg_segment)),
            (begins(PNG), lambda: _search(encoded, len(PNG), _png_chunk)),
            (
                begins(b"RIFF") & begins(b"WEBP", 8),
                lambda: _search(encoded, 12, _webp_chunk),
            ),
        ],
        lambda: tf.constant(0),
    )
    return tf.cond(
        start > 0, lambda: _tagged(encoded, start), lambda: tf.constant(1, tf.int64)
    )


def _search(encoded, start, part):
    """Where the EXIF begins; 0 if there is none.

    Args:
      encoded: the file.
      start: of its first part.
      part: function of a part's first bytes, a string; gives how long it is (0: none
        follows), whether it is the EXIF, and how many bytes stand before that.
    """
    length = tf.strings.length(encoded)
    padded = tf.strings.join([encoded, _ZEROS])

    def step(position, found):
        size, is_exif, before = part(tf.strings.substr(padded, position, _HEADER))
        found = tf.where(is_exif, position + before, found)
        return tf.where(is_exif | (size <= 0), length, position + size), found

    # A size that is no size may lead anywhere.
    _, found = tf.while_loop(
        lambda position, found: (position > 0) & (position < length),
        step,
        (tf.constant(start), tf.constant(0)),
        maximum_iterations=_MAX_PARTS,
        parallel_iterations=1,
    )
    return found


def _jpeg_segment(header):
    marker = tf.strings.substr(header, 0, 2)
    is_exif = marker == b"\xff\xe1"
    is_exif &= tf.strings.substr(header, 4, 6) == b"Exif\0\0"
    last = tf.strings.substr(header, 0, 1) != b"\xff"
    last |= (marker == b"\xff\xd9") | (marker == b"\xff\xda")
    size = 2 + tf.cast(_integer(header, 2, tf.uint16, False), tf.int32)
    # Any number of 0xFF may stand before a marker.
    size = tf.where(marker == b"\xff\xff", 1, size)
    return tf.where(last, 0, size), is_exif, 10


def _png_chunk(header):
    is_exif = tf.strings.substr(header, 4, 4) == b"eXIf"
    return 12 + _integer(header, 0, tf.int32, False), is_exif, 8


def _webp_chunk(header):
    is_exif = tf.strings.substr(header, 0, 4) == b"EXIF"
    # Some writers begin as in a JPEG.
    as_jpeg = tf.strings.substr(header, 8, 6) == b"Exif\0\0"
    size = _integer(header, 4, tf.int32, True)
    return 8 + size + size % 2, is_exif, tf.where(as_jpeg, 14, 8)


def _integer(text, start, dtype, little_endian):
    part = tf.strings.substr(text, start, dtype.size)
    return tf.io.decode_raw(part, dtype, little_endian=little_endian)[0]


def _tagged(encoded, start):
    """The orientation from an EXIF that begins there: a TIFF header, and a list."""
    header = _bytes(encoded, start, 8)
    big = tf.reduce_all(header[:2] == list(b"MM"))

    def number(values):
        return tf.where(big, _number(values, "big"), _number(values))

    entries = tf.cast(start, tf.int64) + number(header[4:8])
    count = tf.minimum(number(_bytes(encoded, entries, 2)), _MAX_ENTRIES)
    fields = tf.reshape(_bytes(encoded, entries + 2, 12 * count), [-1, 12])
    kinds = number(fields[:, 2:4])
    values = tf.where(
        kinds == _LONG,
        number(fields[:, 8:12]),
        tf.where(kinds == _SHORT, number(fields[:, 8:10]), fields[:, 8]),
    )
    is_it = (number(fields[:, :2]) == _ORIENTATION) & (values >= 1) & (values <= 8)
    found = tf.boolean_mask(values, is_it)
    return tf.concat([found, [1]], axis=0)[0]


def _bytes(encoded, start, count):
    """Bytes of a string as int64 [count]; zeros beyond its end."""
    length = tf.cast(tf.strings.length(encoded), tf.int64)
    start = tf.cast(tf.clip_by_value(tf.cast(start, tf.int64), 0, length), tf.int32)
    count = tf.cast(count, tf.int32)
    there = tf.strings.substr(encoded, start, count)
    values = tf.cast(tf.io.decode_raw(there, tf.uint8), tf.int64)
    values = tf.pad(values, [[0, count - tf.size(values)]])
    return tf.ensure_shape(values, [tf.get_static_value(count)])


def _number(values, order="little"):
    """Bytes along the last axis as one number."""
    if order == "big":
        values = values[..., ::-1]
    weights = [256**power for power in range(values.shape[-1])]
    return tf.reduce_sum(values * tf.constant(weights, tf.int64), axis=-1)
