"""Digit scenes: real handwritten digits on real photographs, without a download.

The digits (1,797 of 8x8) and the two photographs ship with scikit-learn. A scene is a
canvas cut from a photograph, cluttered with fragments of other digits, on which whole
digits stand: one for classification, one to four for detection. Everything else is
drawn anew for every scene (which digit, where, how large, in what colour), and is a
function of the seed, the split and the number of the scene alone: scene 17 is always
the same, in whatever order, batch size or process it is drawn.

Training scenes show digits 0 to 1,399, validation scenes 1,400 to 1,796, so no digit of
one occurs in the other. The photographs are the same in both.
"""

import functools

import numpy as np
import tensorflow as tf

NUM_CLASSES = 10
SIZE = 128
#: Where the digits of each split are, in scikit-learn's order.
SPLITS = {"train": (0, 1400), "validation": (1400, 1797)}
#: Side of a digit in pixels: of the one digit of a classification scene, and of the
#: several of a detection scene.
DIGIT_SIZES = (28, 56)
DETECTION_DIGIT_SIZES = (20, 56)
NUM_FRAGMENTS = 6
MAX_DIGITS = 4

_SIDE = 8  # of a digit as scikit-learn has it
_INK = 0.5  # opacity from which a pixel counts as part of a digit
_STRENGTH = 1.5  # strokes are full ink where the glyph is two thirds of it
_PLACES = 12  # tries to place a digit clear of the others


def scenes(
    indices: tf.Tensor,
    split: str = "train",
    *,
    seed: int = 0,
    max_digits: int = 1,
    size: int = SIZE,
) -> dict[str, tf.Tensor]:
    """Draws scenes by their numbers. A function of its arguments; TensorFlow ops only.

    Args:
      indices: int64 [B], the numbers of the scenes, zero or more.
      split: "train" or "validation".
      seed: another seed gives other scenes.
      max_digits: digits of a scene: one, or one to this many (at most four).
      size: S, side of the canvas in pixels.

    Returns:
      A dict of tensors, D = max_digits:
        image: float32 [B, S, S, 3] in [-1, 1].
        label: int32 [B], class of the first digit.
        boxes: float32 [B, D, 4], [ymin, xmin, ymax, xmax] in pixels, tight around the
          ink; rows of digits that are not there are zero.
        classes: int32 [B, D], 0 to 9; -1 where there is no digit.
        digit_mask: bool [B, S, S], the pixels of digits (fragments are background).

    Raises:
      ValueError: an unknown split, or a number of digits or a size out of range.
    """
    if split not in SPLITS:
        raise ValueError(
            f"split must be one of {', '.join(SPLITS)}. Received: split={split!r}"
        )
    if not 1 <= max_digits <= MAX_DIGITS:
        raise ValueError(
            f"max_digits must be 1 to {MAX_DIGITS}. Received: max_digits={max_digits}"
        )
    if not 64 <= size <= 400:
        raise ValueError(f"size must be 64 to 400 pixels. Received: size={size}")
    salt = list(SPLITS).index(split)
    draw = functools.partial(
        _scene, split=split, seed=(seed, salt), max_digits=max_digits, size=size
    )
    return tf.map_fn(
        draw,
        tf.cast(indices, tf.int64),
        fn_output_signature={
            "image": tf.TensorSpec([size, size, 3], tf.float32),
            "label": tf.TensorSpec([], tf.int32),
            "boxes": tf.TensorSpec([max_digits, 4], tf.float32),
            "classes": tf.TensorSpec([max_digits], tf.int32),
            "digit_mask": tf.TensorSpec([size, size], tf.bool),
        },
    )


def dataset(
    split: str = "train",
    batch_size: int = 64,
    *,
    num_scenes: int | None = None,
    start: int = 0,
    seed: int = 0,
    max_digits: int = 1,
    size: int = SIZE,
    supervised: bool = True,
) -> tf.data.Dataset:
    """Scenes in batches, in the order of their numbers.

    Every scene is different, so there is nothing to shuffle, and no two epochs of an
    endless data set are alike. To go on where a run stopped, give as `start` the number
    of scenes that it has seen.

    Args:
      split: "train" or "validation".
      batch_size: scenes in a batch.
      num_scenes: how many scenes; endless by default.
      start: number of the first scene.
      seed: see `scenes`.
      max_digits: see `scenes`.
      size: see `scenes`.
      supervised: whether the elements are pairs (image, label), as model.fit takes
        them, and not the dicts that `scenes` gives.

    Returns:
      A tf.data.Dataset; the last batch of a limited one may be smaller.
    """
    draw = functools.partial(
        scenes, split=split, seed=seed, max_digits=max_digits, size=size
    )
    draw(tf.range(0, dtype=tf.int64))  # Complains about wrong arguments now, not later.
    stop = np.iinfo(np.int64).max if num_scenes is None else start + num_scenes
    batches = tf.data.Dataset.range(start, stop).batch(
        batch_size, drop_remainder=num_scenes is None
    )
    batches = batches.map(draw, num_parallel_calls=tf.data.AUTOTUNE)
    if supervised:
        batches = batches.map(lambda scene: (scene["image"], scene["label"]))
    return batches.prefetch(2)


def _scene(index, *, split, seed, max_digits, size):
    digits, labels = _digits()
    first, last = SPLITS[split]
    uniform = _Uniform(index, seed)

    # Objects are digits first, then fragments; fragments are painted first.
    count = uniform.integers(1, 1, max_digits + 1)[0]
    which = uniform.integers(max_digits + NUM_FRAGMENTS, first, last)
    sizes = DIGIT_SIZES if max_digits == 1 else DETECTION_DIGIT_SIZES
    sides = uniform.floats(max_digits + NUM_FRAGMENTS, *sizes)
    wanted = tf.range(max_digits + NUM_FRAGMENTS) < count
    wanted |= tf.range(max_digits + NUM_FRAGMENTS) >= max_digits
    corners, placed = _places(uniform, sides, wanted, size)

    glyphs = tf.gather(digits, which)
    fragments = glyphs[max_digits:] * _fragment_masks(uniform)
    opacity = _draw(
        tf.concat([glyphs[:max_digits], fragments], axis=0), corners, sides, size
    )
    opacity *= tf.cast(placed, tf.float32)[:, tf.newaxis, tf.newaxis]
    image = _background(uniform, size)
    image = _paint(image, opacity, _colours(uniform, image, opacity))

    ink = opacity[:max_digits] >= _INK
    classes = tf.where(placed, tf.gather(labels, which), -1)[:max_digits]
    return {
        "image": image / 127.5 - 1.0,
        "label": classes[0],
        "boxes": _tight_boxes(ink),
        "classes": classes,
        "digit_mask": tf.reduce_any(ink, axis=0),
    }


class _Uniform:
    """Random numbers that depend on the scene and on the order of the calls alone."""

    def __init__(self, index, seed):
        base = tf.constant([seed[0], seed[1]], tf.int64)
        self._seed = tf.stack([base[0] * 2 + base[1], index])
        self._calls = 0

    def floats(self, shape, low, high):
        self._calls += 1
        seed = tf.random.experimental.stateless_fold_in(self._seed, self._calls)
        shape = [shape] if isinstance(shape, int) else shape
        return tf.random.stateless_uniform(shape, seed, low, high)

    def integers(self, shape, low, high):
        """From low to high - 1."""
        numbers = tf.cast(
            tf.floor(self.floats(shape, 0.0, 1.0) * (high - low)), "int32"
        )
        return tf.minimum(numbers + low, high - 1)


def _places(uniform, sides, wanted, size):
    """Top left corners that keep objects clear of each other.

    Those that find no place in a number of tries, or are not wanted, are not placed.
    """
    count = int(sides.shape[0])
    tries = uniform.floats((count, _PLACES, 2), 0.0, 1.0)
    tries *= size - sides[:, tf.newaxis, tf.newaxis]
    corners, placed = [tries[0, 0]], [tf.constant(True)]
    for mine in range(1, count):
        others = tf.stack(corners)[:, tf.newaxis]  # [others, 1, 2]
        reach = tf.stack(sides[:mine])[:, tf.newaxis, tf.newaxis]
        apart = (tries[mine] >= others + reach) | (tries[mine] + sides[mine] <= others)
        clear = tf.reduce_any(apart, axis=-1) | ~tf.stack(placed)[:, tf.newaxis]
        clear = tf.reduce_all(clear, axis=0)
        corners.append(tries[mine, tf.argmax(tf.cast(clear, tf.int32))])
        placed.append(tf.reduce_any(clear) & wanted[mine])
    return tf.stack(corners), tf.stack(placed)


def _fragment_masks(uniform):
    """Rectangles that leave a third to a half of a digit's rows and columns."""
    starts = uniform.integers((NUM_FRAGMENTS, 2), 0, 5)
    lengths = uniform.integers((NUM_FRAGMENTS, 2), 3, 5)
    line = tf.range(_SIDE)
    inside = (line >= starts[..., tf.newaxis]) & (
        line < (starts + lengths)[..., tf.newaxis]
    )
    inside = tf.cast(inside, tf.float32)
    return inside[:, 0, :, tf.newaxis] * inside[:, 1, tf.newaxis, :]


def _draw(glyphs, corners, sides, size):
    """Enlarges glyphs bilinearly onto the canvas: [N, 8, 8] -> [N, S, S].

    Bilinear interpolation is a product with a matrix on either side: row p of the
    matrix holds the weights of the eight samples at pixel p.
    """
    pixels = tf.range(size, dtype=tf.float32) + 0.5
    offsets = pixels - corners[..., tf.newaxis]  # [N, 2, S]
    sides = sides[:, tf.newaxis, tf.newaxis]
    samples = offsets / sides * _SIDE - 0.5
    distance = samples[..., tf.newaxis] - tf.range(_SIDE, dtype=tf.float32)
    weights = tf.maximum(1.0 - tf.abs(distance), 0.0)  # [N, 2, S, 8]
    # Interpolation fades out beyond the glyph's sides; objects keep within them.
    inside = (offsets >= 0) & (offsets <= sides)
    weights *= tf.cast(inside, tf.float32)[..., tf.newaxis]
    drawn = tf.matmul(tf.matmul(weights[:, 0], glyphs), weights[:, 1], transpose_b=True)
    return tf.minimum(_STRENGTH * drawn, 1.0)


def _background(uniform, size):
    """A random square of a photograph, at up to 1.6 times the pixels, resized."""
    photographs = tf.constant(_photographs())
    which = uniform.integers(1, 0, photographs.shape[0])[0]
    height, width = photographs.shape[1:3]
    side = tf.cast(uniform.floats(1, size, min(1.6 * size, height))[0], tf.int32)
    place = uniform.floats(2, 0.0, 1.0)
    top = tf.cast(place[0] * tf.cast(height - side, tf.float32), tf.int32)
    left = tf.cast(place[1] * tf.cast(width - side, tf.float32), tf.int32)
    crop = tf.slice(photographs[which], [top, left, 0], [side, side, 3])
    crop = tf.image.resize(crop, [size, size])
    return tf.image.stateless_random_flip_left_right(
        crop, tf.cast(uniform.floats(2, 0.0, 1e6), tf.int32)
    )


def _colours(uniform, image, opacity):
    """Random colours that stand out: light on dark, or dark on light."""
    weight = opacity + 1e-3
    behind = tf.einsum("nyx,yx->n", weight, tf.reduce_mean(image, axis=-1))
    behind /= tf.reduce_sum(weight, axis=[1, 2])
    tint = uniform.floats((opacity.shape[0], 3), 0.0, 110.0)
    return tf.where(behind[:, tf.newaxis] > 127.5, tint, 255.0 - tint)


def _paint(image, opacity, colours):
    """Lays objects over the image, the first on top."""
    for n in reversed(range(opacity.shape[0])):
        alpha = opacity[n, :, :, tf.newaxis]
        image += alpha * (colours[n] - image)
    return image


def _tight_boxes(ink):
    """Boxes around the true pixels of masks: bool [D, S, S] -> float32 [D, 4]."""

    def extent(line):
        size = line.shape[-1]
        pixels = tf.range(size)
        low = tf.reduce_min(tf.where(line, pixels, size), axis=-1)
        high = tf.reduce_max(tf.where(line, pixels + 1, 0), axis=-1)
        return low, high

    ymin, ymax = extent(tf.reduce_any(ink, axis=2))
    xmin, xmax = extent(tf.reduce_any(ink, axis=1))
    boxes = tf.cast(tf.stack([ymin, xmin, ymax, xmax], axis=-1), tf.float32)
    return boxes * tf.cast(tf.reduce_any(ink, axis=[1, 2]), tf.float32)[:, tf.newaxis]


@functools.cache
def _digits():
    """Digits as float32 [1797, 8, 8] in [0, 1], and their classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target.astype(np.int32)


@functools.cache
def _photographs():
    """The two sample photographs, uint8 [2, 427, 640, 3]."""
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images)
