import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import Extent
from sact_tf.layers.crop_and_resize import crop_and_resize

STRIDE = 16


def sample(image, y, x):
    """Bilinear interpolation of [h, w, C] between cells, nothing beyond."""
    height, width, _ = image.shape
    y0, x0 = int(np.floor(y)), int(np.floor(x))
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
    bottom = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + bottom * (y - y0)


def by_loop(image, box, crop_size, pool_size, map_size):
    ymin, xmin, ymax, xmax = box / STRIDE - 0.5
    rows = np.linspace(*np.clip([ymin, ymax], 0, map_size[0] - 1), crop_size)
    columns = np.linspace(*np.clip([xmin, xmax], 0, map_size[1] - 1), crop_size)
    crop = np.array([[sample(image, y, x) for x in columns] for y in rows])
    window = crop_size // pool_size
    crop = crop.reshape(pool_size, window, pool_size, window, -1)
    return crop.max(axis=(1, 3))


BOXES = np.float32(
    [
        [[0, 0, 112, 144], [20, 30, 50, 90], [8, 8, 8.5, 8.5]],
        [[-40, -10, 60, 500], [64, 64, 80, 80], [0, 0, 0, 0]],
    ]
)


@pytest.mark.parametrize("crops_at_once", [1, 4, 6, 100])
def test_equals_a_loop_over_boxes(crops_at_once):
    features = np.random.default_rng(0).normal(size=[2, 7, 9, 3]).astype(np.float32)
    sizes = np.int32([[7, 9], [5, 6]])
    crops = crop_and_resize(
        features,
        tf.constant(BOXES),
        stride=STRIDE,
        crop_size=8,
        pool_size=4,
        crops_at_once=crops_at_once,
        extent=Extent(sizes),
    )
    assert crops.shape == [2, 3, 4, 4, 3]
    for b in range(2):
        for n in range(3):
            expected = by_loop(features[b], BOXES[b, n], 8, 4, sizes[b])
            np.testing.assert_allclose(crops[b, n], expected, atol=1e-5)


def test_rounding_leaves_nothing_out_at_the_edges():
    """Regions that end where the image does have no lines of zeros there."""
    rng = np.random.default_rng(0)
    for height, width in ((4, 5), (38, 53), (64, 7)):
        start = rng.uniform(-20, 15 * min(height, width), size=[1, 500, 2])
        end = np.broadcast_to([16.0 * height, 16.0 * width], start.shape)
        boxes = np.concatenate([start, end], axis=2).astype(np.float32)
        crops = crop_and_resize(
            tf.ones([1, height, width, 1]),
            tf.constant(boxes),
            stride=STRIDE,
            crop_size=14,
            pool_size=14,
        )
        np.testing.assert_allclose(crops, np.ones_like(crops), atol=1e-6)


def test_padding_of_the_map_does_not_matter():
    features = np.random.default_rng(0).normal(size=[1, 5, 6, 2]).astype(np.float32)
    boxes = tf.constant(BOXES[:1])
    alone = crop_and_resize(features, boxes, stride=STRIDE)
    padded = np.pad(features, [[0, 0], [0, 3], [0, 4], [0, 0]], constant_values=99.0)
    crops = crop_and_resize(
        padded, boxes, stride=STRIDE, extent=Extent(np.int32([[5, 6]]))
    )
    np.testing.assert_allclose(crops, alone, atol=1e-5)


def test_gradients_do_not_depend_on_chunks():
    features = tf.random.stateless_normal([2, 7, 9, 3], [1, 2])
    gradients = []
    for crops_at_once in (2, 100):
        with tf.GradientTape() as tape:
            tape.watch(features)
            crops = crop_and_resize(
                features, tf.constant(BOXES), stride=16, crops_at_once=crops_at_once
            )
            total = tf.reduce_sum(tf.square(crops))
        gradients.append(tape.gradient(total, features))
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-5)
    assert np.abs(gradients[0]).max() > 0


@pytest.mark.parametrize("side", [8, 1])
def test_nothing_is_lost_from_gradients(side):
    """That of TensorFlow's own for the image is wrong in one call of three here."""
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(0, 120, size=[40, 2, 2]), axis=1).reshape([-1, 4])
    boxes = tf.constant(corners, tf.float32)
    images = tf.constant(np.arange(40) % 2, tf.int32)
    features = tf.constant(rng.normal(size=[2, 8, 6, 64]), tf.float32)
    weights = rng.normal(size=[40, side, side, 64]).astype(np.float32)

    @tf.function
    def gradients(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch([features, boxes])
            crops = crop_and_resize(
                features,
                boxes,
                stride=STRIDE,
                crop_size=side,
                pool_size=side,
                images=images,
            )
            total = tf.reduce_sum(weights * crops)
        return tape.gradient(total, [features, boxes])

    # What each cell gives to each sample: the crops of maps with a one in one cell.
    ones = np.eye(48, dtype=np.float32).reshape([1, 8, 6, 48])
    sizes = {"stride": STRIDE, "crop_size": side, "pool_size": side}
    shares = crop_and_resize(
        tf.constant(ones), boxes, images=tf.zeros_like(images), **sizes
    )
    of_image = np.eye(2)[images]
    expected = np.einsum("rijk,rijc,rb->bkc", np.float64(shares), weights, of_image)
    first = gradients(features, boxes)
    np.testing.assert_allclose(first[0], expected.reshape([2, 8, 6, 64]), atol=1e-4)
    for _ in range(20):
        np.testing.assert_array_equal(gradients(features, boxes)[0], first[0])
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        cells = tf.clip_by_value(boxes / STRIDE - 0.5, 0.0, [7.0, 5.0] * 2)
        crops = tf.image.crop_and_resize(
            features, cells / [7.0, 5.0, 7.0, 5.0], images, [side] * 2
        )
        total = tf.reduce_sum(weights * crops)
    of_boxes = tape.gradient(total, boxes)
    np.testing.assert_allclose(first[1], of_boxes, rtol=1e-3, atol=1e-3)


def test_one_trace_for_any_number_of_boxes_and_any_map():
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 3]),
            tf.TensorSpec([None, None, 4]),
        ]
    )
    def call(features, boxes):
        traces.append(1)
        return crop_and_resize(features, boxes, stride=16, crops_at_once=4)

    for count in (0, 1, 5):
        crops = call(tf.ones([1, count + 1, 3, 3]), tf.ones([1, count, 4]))
        assert crops.shape == [1, count, 7, 7, 3]
        np.testing.assert_allclose(crops, np.ones(crops.shape))
    assert len(traces) == 1


def test_messages():
    features, boxes = tf.ones([1, 2, 2, 1]), tf.ones([1, 1, 4])
    with pytest.raises(ValueError, match=r"multiple of pool_size.*crop_size=28, .*=8"):
        crop_and_resize(features, boxes, stride=16, pool_size=8)
    with pytest.raises(ValueError, match="crops_at_once must be at least 1"):
        crop_and_resize(features, boxes, stride=16, crops_at_once=0)


def test_what_could_be_computed_before_regions_are_cropped():
    """And what could not: see docs/development/detection.md."""
    rng = np.random.default_rng(0)
    maps = rng.normal(size=[1, 7, 9, 3]).astype(np.float32)
    boxes = tf.constant(BOXES[:1])
    kernel = rng.normal(size=[3, 2]).astype(np.float32)
    layers = {
        "normalise": lambda x: x * [0.5, 2.0, 1.0] + [1.0, -1.0, 0.5],
        "normalise, turned": lambda x: x * [0.5, -2.0, 1.0],
        "rectify": tf.nn.relu,
        "convolve": lambda x: tf.tensordot(x, kernel, 1),
    }
    commute = {}
    for name, layer in layers.items():
        for pool_size in (8, 4):
            sizes = {"stride": STRIDE, "crop_size": 8, "pool_size": pool_size}
            before = crop_and_resize(tf.constant(layer(maps)), boxes, **sizes)
            behind = layer(crop_and_resize(maps, boxes, **sizes))
            same = np.allclose(before, behind, atol=1e-5)
            commute[name, "pooled" if pool_size == 4 else "sampled"] = same
    assert [key for key, same in commute.items() if same] == [
        ("normalise", "sampled"),
        ("normalise", "pooled"),
        ("normalise, turned", "sampled"),
        ("convolve", "sampled"),
    ]
