import numpy as np
import pytest
import tensorflow as tf

from sact_tf.data import digit_scenes


def draw(indices, **options):
    scenes = digit_scenes.scenes(tf.constant(indices, tf.int64), **options)
    return {key: value.numpy() for key, value in scenes.items()}


def test_shapes_and_ranges():
    scenes = draw(range(40))
    assert scenes["image"].shape == (40, 128, 128, 3)
    assert scenes["image"].dtype == np.float32
    assert -1 <= scenes["image"].min() < -0.8 and 0.8 < scenes["image"].max() <= 1
    assert set(scenes["label"]) <= set(range(10)) and len(set(scenes["label"])) > 5
    np.testing.assert_array_equal(scenes["classes"][:, 0], scenes["label"])
    assert scenes["digit_mask"].any(axis=(1, 2)).all()


def test_a_scene_depends_on_its_number_seed_and_split_alone():
    once, again = draw([5, 6, 7]), draw([7, 5])
    for key in once:
        np.testing.assert_array_equal(once[key][2], again[key][0])
        np.testing.assert_array_equal(once[key][0], again[key][1])
    for other in ({"seed": 1}, {"split": "validation"}):
        assert np.abs(draw([5], **other)["image"] - once["image"][:1]).max() > 0.1
    tf.random.set_seed(99)
    np.testing.assert_array_equal(draw([5])["image"][0], once["image"][0])


def test_neighbouring_seeds_and_splits_share_no_scenes():
    images = [
        draw([3], seed=seed, split=split)["image"]
        for seed in (0, 1, 2)
        for split in digit_scenes.SPLITS
    ]
    for i, one in enumerate(images):
        for other in images[:i]:
            assert np.abs(one - other).max() > 0.1


def test_no_digit_of_one_split_occurs_in_the_other(monkeypatch):
    digits, labels = digit_scenes._digits()
    # Blank the training digits: validation scenes must not change, training ones must.
    before = {
        split: draw(range(8), split=split)["image"] for split in ("train", "validation")
    }
    blank = digits.copy()
    blank[: digit_scenes.SPLITS["train"][1]] = 0.0
    monkeypatch.setattr(digit_scenes, "_digits", lambda: (blank, labels))
    after = {split: draw(range(8), split=split)["image"] for split in before}
    np.testing.assert_array_equal(before["validation"], after["validation"])
    changed = np.abs(before["train"] - after["train"]).max(axis=(1, 2, 3))
    assert (changed > 0.1).all()
    (_, end), (start, stop) = digit_scenes.SPLITS.values()
    assert end <= start and stop == len(digits)


def test_boxes_are_tight_around_the_digits():
    scenes = draw(range(30))
    for box, mask in zip(scenes["boxes"][:, 0], scenes["digit_mask"], strict=True):
        rows, columns = np.where(mask)
        expected = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        np.testing.assert_array_equal(box, expected)
    heights = scenes["boxes"][:, 0, 2] - scenes["boxes"][:, 0, 0]
    assert heights.min() >= 18 and heights.max() <= 56


def test_detection_scenes_have_one_to_four_digits_apart():
    scenes = draw(range(60), max_digits=4)
    present = scenes["classes"] >= 0
    assert set(present.sum(axis=1)) == {1, 2, 3, 4}
    assert not scenes["boxes"][~present].any()
    assert (scenes["boxes"][present][:, 2:] > scenes["boxes"][present][:, :2]).all()
    for boxes, here in zip(scenes["boxes"], present, strict=True):
        boxes = boxes[here]
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
                assert (high <= low).any()
    union = np.zeros_like(scenes["digit_mask"])
    for image, (boxes, here) in enumerate(zip(scenes["boxes"], present, strict=True)):
        for ymin, xmin, ymax, xmax in boxes[here].astype(int):
            union[image, ymin:ymax, xmin:xmax] = True
    assert not (scenes["digit_mask"] & ~union).any()


@pytest.mark.parametrize("size", [64, 96, 200])
def test_other_sizes(size):
    scenes = draw([0, 1], size=size)
    assert scenes["image"].shape == (2, size, size, 3)
    assert scenes["digit_mask"].any()


def test_dataset_goes_on_where_it_is_told_to():
    whole = digit_scenes.dataset(batch_size=3, num_scenes=9)
    rest = digit_scenes.dataset(batch_size=3, start=3)
    expected = list(whole.as_numpy_iterator())
    for (images, labels), (others, theirs) in zip(
        expected[1:], rest.take(2).as_numpy_iterator(), strict=True
    ):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, theirs)


def test_limited_dataset_has_all_its_scenes_and_static_shapes():
    limited = digit_scenes.dataset("validation", 4, num_scenes=6, supervised=False)
    sizes = [len(scene["label"]) for scene in limited]
    assert sizes == [4, 2]
    endless = digit_scenes.dataset(batch_size=4)
    assert endless.element_spec[0].shape == (4, 128, 128, 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"split": "test"}, "split must be one of train, validation"),
        ({"max_digits": 5}, "max_digits must be 1 to 4"),
        ({"size": 32}, "size must be 64 to 400"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        digit_scenes.dataset(**options)
