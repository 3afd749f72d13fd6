"""Masks from outside: what changed, and how blocks of them are pooled."""

import numpy as np
import pytest
import tensorflow as tf

from sact_tf import masks


def picture(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("f")


def test_what_changed():
    before = picture(20, 30, 3)
    after = before.copy()
    after[4, 5, 2] += 0.2
    after[10, 11] += 0.09
    after[19, 29, 0] = np.nan
    expected = np.zeros([20, 30], bool)
    expected[4, 5] = expected[19, 29] = True
    np.testing.assert_array_equal(masks.changed(before, after), expected)
    lower = masks.changed(before, tf.constant(after), threshold=0.05).numpy()
    assert lower[10, 11] and lower.sum() == 3
    wide = masks.changed(before, after, dilation=2).numpy()
    assert wide[2:7, 3:8].all() and wide[17:, 27:].all() and wide.sum() == 25 + 9
    batch = masks.changed(before[None], after[None], dilation=2)
    np.testing.assert_array_equal(batch[0], wide)


def test_bytes_are_compared_as_if_scaled():
    before = np.full([2, 2, 3], 250, np.uint8)
    after = before.copy()
    after[0, 0, 1] = 237  # 13 / 127.5 > 0.1
    after[1, 1, 1] = 238
    expected = [[True, False], [False, False]]
    assert masks.changed(before, after).numpy().tolist() == expected
    assert masks.changed(after, before).numpy().tolist() == expected


@pytest.mark.parametrize(
    "previous, current, options, message",
    [
        (picture(4, 4, 3), picture(4, 5, 3), {}, r"float32 \(4, 4, 3\) and float32"),
        (picture(4, 4, 3), np.zeros([4, 4, 3], np.uint8), {}, "one type"),
        (picture(4, 4), picture(4, 4), {}, "images of one shape"),
        (*[np.zeros([4, 4, 3], int)] * 2, {}, "int64"),
        (*[picture(4, 4, 3)] * 2, {"threshold": -1}, "threshold must be zero or"),
        (*[picture(4, 4, 3)] * 2, {"dilation": 0.5}, "dilation must be an integer"),
    ],
)
def test_pictures_that_cannot_be_compared(previous, current, options, message):
    with pytest.raises(ValueError, match=message):
        masks.changed(previous, current, **options)


def by_loops(mask, size, stride, offset, kind, threshold):
    """SBNet's reduce_mask by definition: strictly more than the threshold."""
    images, height, width = mask.shape
    found = np.zeros([images, -(-height // stride), -(-width // stride)], bool)
    for image, i, j in np.ndindex(*found.shape):
        top, left = i * stride + offset, j * stride + offset
        block = mask[
            image, max(top, 0) : top + size, max(left, 0) : left + size
        ].astype(float)
        value = block.sum() / size**2 if kind == "average" else block.max(initial=0)
        found[image, i, j] = value > threshold
    return found


@pytest.mark.parametrize("kind, threshold", [("max", 0.0), ("average", 0.25)])
@pytest.mark.parametrize(
    "size, stride, offset", [(4, 4, 0), (3, 1, -1), (9, 7, -1), (2, 5, 0), (5, 3, -4)]
)
def test_blocks_by_definition(size, stride, offset, kind, threshold):
    share = 0.25 if kind == "average" else 1 / size**2
    mask = np.random.default_rng(0).uniform(size=[2, 23, 30]) < share
    expected = by_loops(mask, size, stride, offset, kind, threshold)
    arguments = (size, stride, offset, kind, threshold)
    np.testing.assert_array_equal(masks.pooled(mask, *arguments), expected)
    unknown = tf.function(
        lambda mask: masks.pooled(mask, *arguments),
        input_signature=[tf.TensorSpec([None, None, None], tf.bool)],
    )
    np.testing.assert_array_equal(unknown(mask), expected)
    assert 0 < expected.mean() < 1


def test_sbnets_example():
    """5x5 ones, a 3x3 kernel of ones, blocks of 3, and two pixels in the mask."""
    mask = np.zeros([1, 5, 5], bool)
    mask[0, 1, 2] = mask[0, 2, 0] = True
    active = masks.pooled(mask, 3, 1, -1)
    sums = tf.nn.conv2d(tf.ones([1, 5, 5, 1]), tf.ones([3, 3, 1, 1]), 1, "SAME")
    expected = [
        [0, 6, 6, 6, 0],
        [6, 9, 9, 9, 0],
        [6, 9, 9, 9, 0],
        [6, 9, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    actual = np.where(active[0], sums[0, ..., 0], 0)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("side, count", [(56, 64), (28, 16), (14, 4), (7, 1)])
def test_sbnets_numbers_of_blocks(side, count):
    """Blocks of 9 with a 3x3 convolution inside."""
    everything = np.ones([1, side, side], bool)
    assert np.sum(masks.pooled(everything, 9, 7, -1)) == count
    one = np.zeros([1, side, side], bool)
    one[0, 3, 3] = True  # In one block only; a pixel that blocks share is in more.
    assert np.sum(masks.pooled(one, 9, 7, -1)) == 1
    one[0, 3, 3], one[0, side - 1, 6] = False, True
    assert np.sum(masks.pooled(one, 9, 7, -1)) == min(2, count)


def test_averages_that_are_the_threshold_are_not_active():
    for size, count in ((10, 29), (3, 1), (7, 14), (16, 77)):
        mask = np.zeros([1, size * size], bool)
        mask[0, :count] = True
        mask = mask.reshape(1, size, size)
        share = count / size**2
        assert not masks.pooled(mask, size, kind="average", threshold=share)
        below = share - 0.5 / size**2
        assert masks.pooled(mask, size, kind="average", threshold=below)


def test_tiles():
    mask = np.zeros([1, 7, 10], bool)
    mask[0, 2, 3] = mask[0, 6, 9] = True
    expected = np.zeros([1, 7, 10], bool)
    expected[0, :4, :4] = expected[0, 4:, 8:] = True
    np.testing.assert_array_equal(masks.in_tiles(mask, 4), expected)
    assert not masks.in_tiles(mask, 4, "average", 0.1).numpy().any()


@pytest.mark.parametrize(
    "mask, arguments, message",
    [
        (np.ones([4, 4], bool), (2,), r"bool \[B, H, W\]. Received: bool \(4, 4\)"),
        (np.ones([1, 4, 4]), (2,), "Received: float64"),
        (np.ones([1, 4, 4], bool), (0,), "size must be an integer of at least 1"),
        (np.ones([1, 4, 4], bool), (2, 0.5), "stride must be an integer"),
        (np.ones([1, 4, 4], bool), (2, 2, 1), r"offset must be an integer in \(-2"),
        (np.ones([1, 4, 4], bool), (2, 2, 0, "mean"), "one of 'max', 'average'"),
        (np.ones([1, 4, 4], bool), (2, 2, 0, "max", 1.0), r"threshold must be in"),
    ],
)
def test_bad_arguments_of_blocks(mask, arguments, message):
    with pytest.raises(ValueError, match=message):
        masks.pooled(mask, *arguments)
