import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sact_tf.data import augmentation
from tests.data import pictures


def seeds(count):
    return [tf.constant([7, number]) for number in range(count)]


def covered(begin, size, box, shape):
    """Share of a box that a crop shows."""
    low = np.maximum(begin[:2], box[:2] * shape[:2])
    high = np.minimum(np.add(begin, size)[:2], box[2:] * shape[:2])
    area = np.prod((box[2:] - box[:2]) * shape[:2])
    return np.prod(np.maximum(high - low, 0)) / area


def test_crops_show_a_tenth_of_the_object():
    shape = np.array([200, 300, 3])
    box = np.array([0.7, 0.05, 0.9, 0.2], np.float32)
    with_box, without = [], []
    for seed in seeds(100):
        begin, size = augmentation.sample_crop(shape, box[np.newaxis], seed)
        with_box.append(covered(begin.numpy(), size.numpy(), box, shape))
        ratio = size[1] / size[0]
        assert 0.7 < ratio < 1.4, "aspect ratio"
        assert 0.045 < size[0] * size[1] / 60000 <= 1, "area"
        begin, size = augmentation.sample_crop(shape, tf.zeros([0, 4]), seed)
        without.append(covered(begin.numpy(), size.numpy(), box, shape))
    # Crops are whole pixels: the share may be short of a tenth by a pixel's edge.
    assert min(with_box) > 0.08
    assert min(without) == 0.0


def test_boxes_outside_or_without_area_do_no_harm():
    boxes = tf.constant([[-0.2, 0.1, 0.5, 1.3], [0.4, 0.4, 0.4, 0.9]])
    for seed in seeds(20):
        begin, size = augmentation.sample_crop([50, 50, 3], boxes, seed)
        assert np.all(begin >= 0) and np.all((begin + size)[:2] <= 50)
    begin, size = augmentation.sample_crop([50, 50, 3], boxes[1:], seed)
    assert np.all(size[:2] > 0)


@pytest.mark.parametrize("encode", [tf.io.encode_jpeg, tf.io.encode_png])
def test_imagenet_is_a_function_of_the_seed(encode):
    pixels = np.random.default_rng(0).integers(0, 256, [70, 50, 3], np.uint8)
    encoded = encode(pixels)
    results = [
        augmentation.imagenet(encoded, tf.zeros([0, 4]), 32, seed) for seed in seeds(12)
    ]
    for seed, result in zip(seeds(2), results, strict=False):
        again = augmentation.imagenet(encoded, tf.zeros([0, 4]), 32, seed)
        np.testing.assert_array_equal(result, again)
    stacked = np.stack(results)
    assert stacked.shape == (12, 32, 32, 3) and stacked.dtype == np.float32
    assert stacked.min() >= -1 and stacked.max() <= 1
    assert len(np.unique(stacked.mean(axis=(1, 2, 3)))) == 12


def test_imagenet_shows_what_is_in_the_box():
    # Left half dark, right half bright; the object is at the far left.
    pixels = np.zeros([100, 200, 3], np.uint8)
    pixels[:, 100:] = 255
    box = tf.constant([[0.0, 0.0, 1.0, 0.25]])
    for seed in seeds(20):
        image = augmentation.imagenet(tf.io.encode_png(pixels), box, 16, seed)
        # At least a quarter of the crop is object when a tenth of it is shown and the
        # crop is no wider than 133 of its height: dark columns must be there.
        assert np.ptp(image) > 0.5 or np.mean(image) < 0


def test_cifar_moves_by_at_most_two_pixels_and_mirrors():
    pixels = np.random.default_rng(0).integers(1, 256, [32, 32, 3], np.uint8)
    padded = np.pad(pixels.astype(np.float32), [(2, 2), (2, 2), (0, 0)])
    wanted = {}
    for top in range(5):
        for left in range(5):
            crop = padded[top : top + 32, left : left + 32]
            for mirrored in (False, True):
                wanted[top, left, mirrored] = tf.image.per_image_standardization(
                    crop[:, ::-1] if mirrored else crop
                )
    seen = set()
    for seed in seeds(80):
        image = augmentation.cifar(pixels, seed)
        matches = [
            key for key, want in wanted.items() if np.allclose(image, want, atol=1e-5)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(5))
    assert {mirrored for _, _, mirrored in seen} == {False, True}


def test_rotated_images_are_augmented_upright():
    smooth = np.asarray(Image.fromarray(pictures.noise(3, 4)).resize((64, 48)))
    box = tf.constant([[0.6, 0.1, 0.9, 0.3]])
    for seed in seeds(3):
        upright, *rotated = (
            augmentation.imagenet(
                pictures.rotated(smooth, orientation, "JPEG", quality=95),
                *(box, 32, seed),
            )
            for orientation in (1, 3, 6, 8)
        )
        for image in rotated:
            assert np.abs(image - upright).mean() < 0.1
