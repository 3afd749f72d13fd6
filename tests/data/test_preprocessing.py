import numpy as np
import pytest
import tensorflow as tf

from sact_tf.data import preprocessing

IMAGE = np.random.default_rng(0).integers(0, 256, [75, 130, 3], np.uint8)


def as_tensorflow_1(image, size):
    """TF-Slim's Inception preprocessing, with TensorFlow 1's own operations."""
    image = tf.image.convert_image_dtype(image, tf.float32)
    image = tf.image.central_crop(image, 0.875)
    image = tf.compat.v1.image.resize_bilinear(image[None], [size, size])[0]
    return (image - 0.5) * 2.0


@pytest.mark.parametrize("size", [32, 224])
def test_imagenet_as_published(size):
    ours = preprocessing.imagenet(tf.constant(IMAGE), size)
    np.testing.assert_allclose(ours, as_tensorflow_1(IMAGE, size), atol=1e-6)


def test_imagenet_crop_and_grid_by_hand():
    # Rows 75 // 16 = 4 to 70, columns 8 to 121; sample i is at i * in / out.
    crop = IMAGE[4:71, 8:122].astype(np.float64)
    y, x = np.arange(16) * 67 / 16, np.arange(16) * 114 / 16
    low, left = y.astype(int), x.astype(int)
    dy, dx = (y - low)[:, None, None], (x - left)[None, :, None]
    above = crop[low][:, left] * (1 - dx) + crop[low][:, left + 1] * dx
    below = crop[low + 1][:, left] * (1 - dx) + crop[low + 1][:, left + 1] * dx
    expected = (above * (1 - dy) + below * dy) / 127.5 - 1.0
    ours = preprocessing.imagenet(tf.constant(IMAGE), 16)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_smallest_image():
    image = preprocessing.imagenet(tf.constant([[[255, 0, 51]]], tf.uint8), 40)
    np.testing.assert_allclose(image[39, 39], [1.0, -1.0, -0.6], atol=1e-6)


def test_cifar_is_standardised():
    image = IMAGE[:32, :32].astype(np.float64)
    expected = (image - image.mean()) / image.std()
    ours = preprocessing.cifar(tf.constant(IMAGE[:32, :32]), 32)
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    # TF-Slim's floor under the deviation: a flat image has none.
    flat = preprocessing.cifar(tf.fill([32, 32, 3], tf.constant(7, tf.uint8)), 32)
    np.testing.assert_array_equal(flat, np.zeros([32, 32, 3]))


@pytest.mark.parametrize("family", ["imagenet", "cifar"])
def test_normalize_changes_no_size(family):
    images = tf.constant(IMAGE[None])
    ours = preprocessing.normalize(images, family)
    assert ours.shape == images.shape and ours.dtype == tf.float32
    if family == "imagenet":
        np.testing.assert_allclose(ours, IMAGE[None] / 127.5 - 1.0, atol=1e-6)
    else:
        assert abs(float(tf.reduce_mean(ours))) < 1e-5


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (600, 800)),
        ((427, 1000), (437, 1024)),
        ((1200, 600), (1024, 512)),
        ((600, 600), (600, 600)),
    ],
)
def test_the_rule_of_faster_r_cnn(size, expected):
    image = tf.zeros([*size, 3], tf.uint8)
    assert preprocessing.detection(image, 600, 1024).shape == [*expected, 3]
