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
    uniform = _Uniform(indices, seed * len(SPLITS) + list(SPLITS).index(split))
    digits, labels = _digits()

    # Objects are the digits, then the fragments; they stand clear of each other.
    objects = max_digits + NUM_FRAGMENTS
    number = tf.range(objects)
    count = uniform.integers([1], 1, max_digits + 1)
    wanted = (number < count) | (number >= max_digits)
    which = uniform.integers([objects], *SPLITS[split])
    sizes = DIGIT_SIZES if max_digits == 1 else DETECTION_DIGIT_SIZES
    sides = uniform.floats([objects], *sizes)
    corners, placed = _places(uniform, sides, wanted, size)

    glyphs = tf.gather(digits, which)
    fragments = glyphs[:, max_digits:] * _fragment_masks(uniform)
    glyphs = tf.concat([glyphs[:, :max_digits], fragments], axis=1)
    glyphs *= tf.cast(placed, tf.float32)[..., tf.newaxis, tf.newaxis]
    opacity = _draw(glyphs, corners, sides, size)
    image = _background(uniform, size)
    image = _paint(image, opacity, _colours(uniform, image, opacity))

    ink = opacity[:, :max_digits] >= _INK
    classes = tf.where(placed, tf.gather(labels, which), -1)[:, :max_digits]
    return {
        "image": image / 127.5 - 1.0,
        "label": classes[:, 0],
        "boxes": _tight_boxes(ink),
        "classes": classes,
        "digit_mask": tf.reduce_any(ink, axis=1),
    }


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
    shard: tuple[int, int | tf.Tensor] = (1, 0),
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
      shard: (n, i) for the i-th of n workers that share the data: every n-th batch.

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
    if shard[0] > 1:  # Before they are drawn, which takes time.
        batches = batches.shard(*shard)
    batches = batches.map(draw, num_parallel_calls=tf.data.AUTOTUNE)
    if supervised:
        batches = batches.map(lambda scene: (scene["image"], scene["label"]))
    return batches.prefetch(2)


class _Uniform:
    """Random numbers for every scene of a batch, handed out one after the other.

    Those of a scene depend on its number and on the salt alone.
    """

    _SUPPLY = 512  # numbers a scene may use; more than the largest takes

    def __init__(self, indices, salt):
        indices = tf.cast(indices, tf.int64)
        self._numbers = tf.map_fn(
            lambda index: tf.random.stateless_uniform(
                [self._SUPPLY], tf.stack([tf.constant(salt, tf.int64), index])
            ),
            indices,
            fn_output_signature=tf.TensorSpec([self._SUPPLY], tf.float32),
        )
        self._used = 0

    def floats(self, shape, low, high):
        """[B, *shape], from low to high."""
        start, self._used = self._used, self._used + int(np.prod(shape))
        numbers = self._numbers[:, start : self._used]
        return tf.reshape(numbers, [-1, *shape]) * (high - low) + low

    def integers(self, shape, low, high):
        """[B, *shape], from low to high - 1."""
        numbers = tf.cast(tf.floor(self.floats(shape, 0.0, high - low)), tf.int32)
        return tf.minimum(numbers + low, high - 1)


def _places(uniform, sides, wanted, size):
    """Top left corners [B, N, 2] that keep objects clear of each other.

    Those that find no place in a number of tries, or are not wanted, are not placed.
    """
    count = int(sides.shape[1])
    tries = uniform.floats([count, _PLACES, 2], 0.0, 1.0)
    tries *= size - sides[..., tf.newaxis, tf.newaxis]
    corners, placed = [tries[:, 0, 0]], [wanted[:, 0]]
    for mine in range(1, count):
        others = tf.stack(corners, axis=1)[:, :, tf.newaxis]  # [B, others, 1, 2]
        reach = sides[:, :mine, tf.newaxis, tf.newaxis]
        low = tries[:, tf.newaxis, mine]  # [B, 1, places, 2]
        high = low + sides[:, mine, tf.newaxis, tf.newaxis, tf.newaxis]
        clear = tf.reduce_any((low >= others + reach) | (high <= others), axis=-1)
        clear |= ~tf.stack(placed, axis=1)[..., tf.newaxis]
        clear = tf.reduce_all(clear, axis=1)  # [B, places]
        first = tf.argmax(tf.cast(clear, tf.int32), axis=1)
        corners.append(tf.gather(tries[:, mine], first, batch_dims=1))
        placed.append(tf.reduce_any(clear, axis=1) & wanted[:, mine])
    return tf.stack(corners, axis=1), tf.stack(placed, axis=1)


def _fragment_masks(uniform):
    """Rectangles of three or four of a digit's eight rows and columns."""
    starts = uniform.integers([NUM_FRAGMENTS, 2, 1], 0, 5)
    lengths = uniform.integers([NUM_FRAGMENTS, 2, 1], 3, 5)
    line = tf.range(_SIDE)
    inside = tf.cast((line >= starts) & (line < starts + lengths), tf.float32)
    return inside[:, :, 0, :, tf.newaxis] * inside[:, :, 1, tf.newaxis, :]


def _draw(glyphs, corners, sides, size):
    """Enlarges glyphs bilinearly onto the canvas: [B, N, 8, 8] -> [B, N, S, S].

    Bilinear interpolation is a product with a matrix on either side: row p of the
    matrix holds the weights of the eight samples at pixel p.
    """
    pixels = tf.range(size, dtype=tf.float32) + 0.5
    offsets = pixels - corners[..., tf.newaxis]  # [B, N, 2, S]
    sides = sides[..., tf.newaxis, tf.newaxis]
    samples = offsets / sides * _SIDE - 0.5
    distance = samples[..., tf.newaxis] - tf.range(_SIDE, dtype=tf.float32)
    weights = tf.maximum(1.0 - tf.abs(distance), 0.0)  # [B, N, 2, S, 8]
    # Interpolation fades out beyond the glyph's sides; objects keep within them.
    inside = (offsets >= 0) & (offsets <= sides)
    weights *= tf.cast(inside, tf.float32)[..., tf.newaxis]
    rows, columns = weights[:, :, 0], weights[:, :, 1]
    drawn = tf.matmul(tf.matmul(rows, glyphs), columns, transpose_b=True)
    return tf.minimum(_STRENGTH * drawn, 1.0)


def _background(uniform, size):
    """Random squares of the photographs, up to 1.6 times as large, some mirrored."""
    photographs = _photographs()
    count, height, width, _ = photographs.shape
    side = uniform.floats([1], size, min(1.6 * size, height))
    corner = uniform.floats([2], 0.0, 1.0) * ((height, width) - side)
    pixels = (tf.range(size, dtype=tf.float32) + 0.5) / size
    mirrored = uniform.floats([1], 0.0, 1.0) < 0.5
    rows = tf.cast(corner[:, :1] + side * pixels, tf.int32)
    columns = corner[:, 1:] + side * tf.where(mirrored, 1.0 - pixels, pixels)
    columns = tf.cast(columns, tf.int32)
    # Nearest neighbour: which photograph, which row, which column, as one number.
    first = uniform.integers([1], 0, count) * (height * width)
    index = (first + rows * width)[:, :, tf.newaxis] + columns[:, tf.newaxis, :]
    return tf.cast(tf.gather(photographs.reshape(-1, 3), index), tf.float32)


def _colours(uniform, image, opacity):
    """Random colours [B, N, 3] that stand out: light on dark, or dark on light."""
    weight = opacity + 1e-3
    behind = tf.einsum("bnyx,byx->bn", weight, tf.reduce_mean(image, axis=-1))
    behind /= tf.reduce_sum(weight, axis=[2, 3])
    tint = uniform.floats([opacity.shape[1], 3], 0.0, 110.0)
    return tf.where(behind[..., tf.newaxis] > 127.5, tint, 255.0 - tint)


def _paint(image, opacity, colours):
    """Lays objects, which do not overlap, over the image."""
    covered = tf.reduce_sum(opacity, axis=1)[..., tf.newaxis]
    return image * (1.0 - covered) + tf.einsum("bnyx,bnc->byxc", opacity, colours)


def _tight_boxes(ink):
    """Boxes around the true pixels of masks: bool [B, D, S, S] -> float32 [B, D, 4]."""

    def extent(line):
        size = line.shape[-1]
        pixels = tf.range(size)
        low = tf.reduce_min(tf.where(line, pixels, size), axis=-1)
        high = tf.reduce_max(tf.where(line, pixels + 1, 0), axis=-1)
        return low, high

    ymin, ymax = extent(tf.reduce_any(ink, axis=3))
    xmin, xmax = extent(tf.reduce_any(ink, axis=2))
    boxes = tf.cast(tf.stack([ymin, xmin, ymax, xmax], axis=-1), tf.float32)
    return boxes * tf.cast(ymax > 0, tf.float32)[..., tf.newaxis]


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
