"""What is done to an image before it reaches a network, in training.

Every function is stateless: the same seed gives the same image.
"""

from collections.abc import Callable

import tensorflow as tf

from sact_tf.data import decoding

#: Side of CIFAR's images.
CIFAR_SIZE = 32
#: Of the side of a small image: how far it is shifted at most (2 of 32 pixels).
_MARGIN = 1 / 16
_CIFAR_MARGIN = round(CIFAR_SIZE * _MARGIN)

#: Of the Inception preprocessing: how the crop and the colours are drawn.
MIN_OBJECT_COVERED = 0.1
ASPECT_RATIOS = (0.75, 1.33)
AREAS = (0.05, 1.0)
_MAX_CROPS = 100
_BRIGHTNESS = 32 / 255
_SATURATION = (0.5, 1.5)
_HUE = 0.2
_CONTRAST = (0.5, 1.5)
_RESIZE_METHODS = ("bilinear", "nearest", "bicubic", "area")


def imagenet(
    encoded: tf.Tensor,
    boxes: tf.Tensor,
    size: int,
    seed: tf.Tensor,
    *,
    areas: tuple[float, float] = AREAS,
) -> tf.Tensor:
    """Inception v3's augmentation (supplement A.1).

    A random crop (see `sample_crop`), brought to the wanted size by one of four ways of
    interpolation, mirrored half of the time; then brightness, contrast, saturation and
    hue are changed, in one of two orders.

    Args:
      encoded: string scalar, a file that `decoding.decode` takes.
      boxes: float32 [N, 4] of objects, as [ymin, xmin, ymax, xmax] in shares of the
        upright image's sides; N may be zero.
      size: S, side of the result.
      seed: int32 [2].
      areas: least and largest area of the crop, as shares of the image's.

    Returns:
      float32 [S, S, 3] in [-1, 1].
    """
    crop_seed, method_seed, flip_seed, colour_seed = _split(seed, 4)
    as_it_is = tf.io.is_jpeg(encoded) & (decoding.orientation(encoded) == 1)
    # Only the crop of a JPEG is decoded: most of the time of this function otherwise.
    image = tf.cond(
        as_it_is,
        lambda: _decode_crop(encoded, boxes, crop_seed, areas),
        lambda: _crop(decoding.decode(encoded), boxes, crop_seed, areas),
    )
    image = tf.image.convert_image_dtype(image, tf.float32)
    method = tf.random.stateless_uniform(
        [], method_seed, maxval=len(_RESIZE_METHODS), dtype=tf.int32
    )
    image = tf.switch_case(
        method,
        [
            lambda method=method: tf.image.resize(image, [size, size], method)
            for method in _RESIZE_METHODS
        ],
    )
    image = tf.ensure_shape(image, [size, size, 3])
    image = tf.image.stateless_random_flip_left_right(image, flip_seed)
    image = _distort_colours(image, colour_seed)
    # Bicubic interpolation and the changes of colour leave the range.
    return 2.0 * tf.clip_by_value(image, 0.0, 1.0) - 1.0


def cifar(image: tf.Tensor, seed: tf.Tensor, size: int = CIFAR_SIZE) -> tf.Tensor:
    """The image shifted by up to a 16th of its side, mirrored half of the time.

    Of 32x32 pixels that is a random crop of the image padded to 36x36.

    Args:
      image: uint8 or float32 [S, S, 3] of 0 to 255.
      seed: int32 [2].
      size: S.

    Returns:
      float32 [S, S, 3], standardised.
    """
    crop_seed, flip_seed = _split(seed, 2)
    side = [round(size * _MARGIN)] * 2
    image = tf.pad(tf.cast(image, tf.float32), [side, side, [0, 0]])
    image = tf.image.stateless_random_crop(image, [size, size, 3], crop_seed)
    image = tf.image.stateless_random_flip_left_right(image, flip_seed)
    return tf.image.per_image_standardization(image)


def cifar_batch(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """What `cifar` does, for a batch at once: a few operations, which XLA compiles.

    Each image has a crop, and is mirrored or not, by itself. The numbers drawn are the
    same on every device; they are not those of `cifar`.

    Args:
      images: uint8 [B, 32, 32, 3].
      seed: int32 [2], not negative: XLA draws other numbers from negative ones.

    Returns:
      float32 [B, 32, 32, 3], standardised.
    """
    # One draw for each image: which of the crops, and whether it is mirrored.
    crops = 2 * _CIFAR_MARGIN + 1
    drawn = tf.random.stateless_uniform(
        [tf.shape(images)[0], 1],
        seed,
        maxval=2 * crops**2,
        dtype=tf.int32,
        alg="philox",
    )
    flipped, drawn = drawn % 2, drawn // 2
    top, left = drawn // crops, drawn % crops
    places = tf.range(CIFAR_SIZE)
    rows = top + places
    # A mirrored image is one whose columns are taken from the other end.
    columns = left + tf.where(flipped > 0, CIFAR_SIZE - 1 - places, places)
    side = [_CIFAR_MARGIN] * 2
    images = tf.pad(images, [[0, 0], side, side, [0, 0]])
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    images = tf.gather(images, columns, axis=2, batch_dims=1)
    images = tf.ensure_shape(images, [None, CIFAR_SIZE, CIFAR_SIZE, 3])
    return tf.image.per_image_standardization(images)


def sample_crop(
    shape: tf.Tensor,
    boxes: tf.Tensor,
    seed: tf.Tensor,
    areas: tuple[float, float] = AREAS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws a crop that shows at least a tenth of some object.

    Its aspect ratio is between 0.75 and 1.33, its area by default 5 to 100 % of the
    image's. Without boxes the whole image is the object.

    Args:
      shape: int32 [3], of the image.
      boxes: see `imagenet`; what lies outside of the image is cut off, and boxes
        without any area do not count.
      seed: int32 [2].
      areas: see `imagenet`.

    Returns:
      Begin and size, each int32 [3], as tf.slice takes them.
    """
    boxes = tf.clip_by_value(boxes, 0.0, 1.0)
    boxes = tf.boolean_mask(boxes, tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1))
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        boxes[tf.newaxis],
        seed,
        min_object_covered=MIN_OBJECT_COVERED,
        aspect_ratio_range=ASPECT_RATIOS,
        area_range=areas,
        max_attempts=_MAX_CROPS,
        use_image_if_no_bounding_boxes=True,
    )
    channels = shape[2:]
    return begin, tf.concat([size[:2], channels], axis=0)


def _decode_crop(encoded, boxes, seed, areas):
    shape = tf.concat([tf.image.extract_jpeg_shape(encoded)[:2], [3]], axis=0)
    begin, size = sample_crop(shape, boxes, seed, areas)
    window = tf.concat([begin[:2], size[:2]], axis=0)
    return tf.image.decode_and_crop_jpeg(encoded, window, channels=3)


def _crop(image, boxes, seed, areas):
    begin, size = sample_crop(tf.shape(image), boxes, seed, areas)
    return tf.ensure_shape(tf.slice(image, begin, size), [None, None, 3])


def _distort_colours(image, seed):
    order, brightness, saturation, hue, contrast = _split(seed, 5)
    steps: dict[str, Callable] = {
        "brightness": lambda x: tf.image.stateless_random_brightness(
            x, _BRIGHTNESS, brightness
        ),
        "saturation": lambda x: tf.image.stateless_random_saturation(
            x, *_SATURATION, saturation
        ),
        "hue": lambda x: tf.image.stateless_random_hue(x, _HUE, hue),
        "contrast": lambda x: tf.image.stateless_random_contrast(
            x, *_CONTRAST, contrast
        ),
    }

    def apply(*names):
        result = image
        for name in names:
            result = steps[name](result)
        return result

    return tf.cond(
        tf.random.stateless_uniform([], order) < 0.5,
        lambda: apply("brightness", "saturation", "hue", "contrast"),
        lambda: apply("brightness", "contrast", "saturation", "hue"),
    )


def _split(seed, count):
    return tf.unstack(tf.random.experimental.stateless_split(seed, count))
