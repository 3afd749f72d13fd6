"""Checks, inside the served graph, of what a client sent.

Whatever a client sends is refused before it costs much, with a sentence that says
which image of the request it is: TensorFlow Serving answers INVALID_ARGUMENT.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from sact_tf.data import decoding

_PNG_SIZE = 16  # Bytes before width and height, two big-endian integers of 32 bits.
_PNG_HEADER = 33
#: Images that are decoded at the same time: each may have the largest number of pixels.
_PARALLEL = 4


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
      max_batch_size: images in a request; with batching on the server, in a batch.
      max_pixels: of one image, height times width. What a decoder may need is bounded
        by this and not by the number of bytes: a PNG of a few kB can have gigapixels.
      min_side: pixels of the shorter side.
    """

    max_batch_size: int = 64
    max_pixels: int = 25_000_000
    min_side: int = 1

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}")


def map_encoded(
    function: Callable, encoded: tf.Tensor, limits: Limits, output_signature
):
    """Decodes images of any sizes, upright, and applies a function to each.

    Args:
      encoded: strings [B], each a whole JPEG or PNG file.
      function: maps an image, uint8 [H, W, 3], to tensors of one shape for all images.
      limits: what is refused.
      output_signature: tf.TensorSpec (or a structure) of what the function gives.

    Returns:
      What the function gave, stacked along a new first axis.
    """
    with tf.control_dependencies([_check_batch(encoded, limits)]):
        numbers = tf.range(tf.size(encoded))

    def decoded(arguments):
        number, content = arguments
        with tf.control_dependencies([_check_header(number, content, limits)]):
            content = tf.identity(content)
        return function(decoding.decode(content))

    return tf.map_fn(
        decoded,
        (numbers, encoded),
        parallel_iterations=_PARALLEL,
        fn_output_signature=output_signature,
    )


def map_decoded(
    function: Callable, images: tf.Tensor, limits: Limits, output_signature
):
    """Applies a function to each image of a batch; as `map_encoded`.

    Args:
      images: uint8 [B, H, W, 3].
      function: as for `map_encoded`.
      limits: what is refused.
      output_signature: as for `map_encoded`.
    """
    with tf.control_dependencies([_check_batch(images, limits)]):
        shape = tf.shape(images)
    with tf.control_dependencies([_check_size("All images", shape[1:3], limits)]):
        images = tf.identity(images)
    return tf.map_fn(
        function,
        images,
        parallel_iterations=_PARALLEL,
        fn_output_signature=output_signature,
    )


def halting_bias_per_image(
    halting_bias: tf.Tensor, batch_size: tf.Tensor, halts: bool = True
) -> tf.Tensor:
    """The halting bias of each image: float32 [B].

    Args:
      halting_bias: float32, one number (of whatever rank), or [B].
      batch_size: int32, B.
      halts: whether the network has halting scores. Without, only zero is taken, which
        says nothing.
    """
    biases = number_per_image(
        "halting_bias", halting_bias, batch_size, tf.math.is_finite, "finite"
    )
    if halts:
        return biases
    refused = _require(
        tf.reduce_all(tf.equal(biases, 0.0)),
        "This network has no halting scores: halting_bias must be zero, or left out. "
        "Received: {}",
        biases,
    )
    with tf.control_dependencies([refused]):
        return tf.identity(biases)


def number_per_image(
    name: str,
    values: tf.Tensor,
    batch_size: tf.Tensor,
    allowed: Callable[[tf.Tensor], tf.Tensor],
    must: str,
) -> tf.Tensor:
    """A setting of each image: [B].

    Args:
      name: of the input.
      values: one number (of whatever rank), or [B].
      batch_size: int32, B.
      allowed: which of some values are: bool of their shape.
      must: what they must be, for messages.
    """
    flat = tf.reshape(values, [-1])
    count = tf.size(flat)
    checks = [
        _require(
            (count == 1) | (count == batch_size),
            f"{name} must be one number, or one for each image. Received: {{}} "
            "numbers for {} images",
            count,
            batch_size,
        ),
        _require(
            tf.reduce_all(allowed(flat)), f"{name} must be {must}. Received: {{}}", flat
        ),
    ]
    with tf.control_dependencies(checks):
        # Which of the two it is, is known only when the request is there.
        return flat + tf.zeros([batch_size], flat.dtype)


def _check_batch(images, limits):
    count = tf.shape(images)[0]
    return _require(
        (count >= 1) & (count <= limits.max_batch_size),
        f"A request must have 1 to {limits.max_batch_size} images. Received: {{}}",
        count,
    )


def _check_header(number, content, limits):
    """Refuses what is no JPEG or PNG, or has the wrong size, before it is decoded."""
    is_jpeg = tf.strings.substr(content, 0, len(decoding.JPEG)) == decoding.JPEG
    is_png = tf.strings.substr(content, 0, len(decoding.PNG)) == decoding.PNG
    is_png &= tf.strings.length(content) >= _PNG_HEADER
    check = _require(
        is_jpeg | is_png,
        "Image {} of the request, counted from zero, is no JPEG or PNG file ({} bytes)",
        number,
        tf.strings.length(content),
    )
    with tf.control_dependencies([check]):
        size = tf.cond(is_png, lambda: _png_size(content), lambda: _jpeg_size(content))
    name = tf.strings.format("Image {} of the request, counted from zero,", number)
    return _check_size(name, size, limits)


def _png_size(content):
    size = tf.strings.substr(content, _PNG_SIZE, 8)
    return tf.reverse(tf.io.decode_raw(size, tf.int32, little_endian=False), [0])


def _jpeg_size(content):
    return tf.io.extract_jpeg_shape(content)[:2]


def _check_size(name, size, limits):
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    fits = (tf.reduce_min(size) >= limits.min_side) & (pixels <= limits.max_pixels)
    sentence = tf.strings.format(
        f"{{}} x {{}} pixels (height x width); an image must have at least "
        f"{limits.min_side} in both directions and at most {limits.max_pixels} in all",
        [size[0], size[1]],
    )
    sentence = tf.strings.join([name, sentence], " has ")
    return tf.debugging.Assert(fits, [sentence])


def _require(condition, sentence, *values):
    return tf.debugging.Assert(condition, [tf.strings.format(sentence, list(values))])
