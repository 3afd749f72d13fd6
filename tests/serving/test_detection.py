import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sact_tf.data import preprocessing
from sact_tf.serving import detection, export
from tests.detection import tiny
from tests.models.test_resnet import spread_halting
from tests.serving import pictures, stock

SIDES = (64, 96)
LABELS = ["background", "ant", "bee", "cat"]
IMAGES = [
    pictures.image(*size, seed)
    for seed, size in enumerate([(70, 100), (64, 64), (333, 90)])
]
FILES = [pictures.png(image) for image in IMAGES]


def network(adaptivity="sact"):
    tf_keras.utils.set_random_seed(1)
    detector = tiny.decided(tiny.detector(adaptivity))
    spread_halting(detector.extractor)
    return detector


@pytest.fixture(scope="module")
def detector():
    return network()


def servable_of(detector, **options):
    sides = {"shorter_side": SIDES[0], "longer_side": SIDES[1]}
    return detection.Detector(detector, len(LABELS), **{**sides, **options})


@pytest.fixture(scope="module")
def servable(detector):
    return servable_of(detector, labels=LABELS)


@pytest.fixture(scope="module")
def exported(servable, tmp_path_factory):
    return export.write(servable, tmp_path_factory.mktemp("served"), "tiny")


@pytest.mark.parametrize("bias", [0.0, [2.0, -1.0, 0.5]])
def test_the_answer_is_the_detectors(detector, servable, bias):
    answer = servable.explain(tf.constant(FILES), tf.constant(bias))
    biases = np.broadcast_to(np.float32(bias), [3])
    for index, image in enumerate(IMAGES):
        one = {key: value[index].numpy() for key, value in answer.items()}
        seen = preprocessing.detection(image, *SIDES)
        found = detector.detect(seen[tf.newaxis], halting_bias=biases[index])
        count = int(found["count"][0])
        assert one["num_detections"] == count > 0
        original = np.tile(image.shape[:2], 2)
        boxes = found["boxes"][0] / np.tile(seen.shape[:2], 2)
        # Of two proposals that are nearly the same, rounding decides which one stays.
        np.testing.assert_allclose(one["normalized_boxes"], boxes, atol=5e-4)
        np.testing.assert_allclose(one["boxes"], boxes * original, atol=0.05)
        np.testing.assert_allclose(one["scores"], found["scores"][0], atol=1e-5)
        classes = found["classes"][0].numpy()
        np.testing.assert_array_equal(one["classes"][:count], classes[:count])
        names = [LABELS[number].encode() for number in classes[:count]]
        np.testing.assert_array_equal(one["names"][:count], names)
        # What it cost, and where; beyond the image's own map there is nothing.
        record = found["record"]
        assert one["flops"] == record["flops"][0]
        assert one["head_flops"] == record["head"]["flops"][0] > 0
        assert one["head_ponder_cost"] == pytest.approx(
            float(record["head"]["ponder_cost"][0]), rel=1e-5
        )
        height, width = one["map_size"]
        assert (height, width) == seen.shape[:2]
        for key, expected in [
            ("ponder_cost", record["ponder_cost"]),
            ("ponder_cost_map", record["ponder_cost_map"][..., 0]),
            *(
                (f"{block['name']}_ponder_cost_map", block["ponder_cost"])
                for block in record["blocks"]
            ),
        ]:
            expected = expected[0].numpy()
            inside = tuple(slice(side) for side in expected.shape)
            np.testing.assert_allclose(one[key][inside], expected, rtol=1e-5)
            assert one[key].sum() == pytest.approx(expected.sum(), rel=1e-4)
        for level, block in zip((4, 8, 16), record["blocks"], strict=True):
            sides = [-(-height // level), -(-width // level)]
            assert block["ponder_cost"].shape[1:] == sides
    if np.ndim(bias):
        assert len({*answer["ponder_cost"].numpy()}) == 3


def same_answers(one, other):
    assert set(one) == set(other)
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key], key)


def test_requests_say_how_many_regions_are_looked_at(detector, servable):
    files, usual = tf.constant(FILES[:2]), servable.serving_default
    same_answers(servable.limited(files), usual(files))
    numbers, thresholds = tf.constant([3, -1]), tf.constant([-1.0, 1.0])
    answer = servable.limited(files, tf.constant(0.5), numbers, thresholds)
    for index, setting in enumerate(({"num_proposals": 3}, {"proposal_threshold": 1})):
        seen = preprocessing.detection(IMAGES[index], *SIDES)
        found = detector.detect(seen[tf.newaxis], halting_bias=0.5, **setting)
        head = found["record"]["head"]
        assert answer["head_flops"][index] == head["flops"][0]
        assert answer["num_detections"][index] == found["count"][0]
        assert head["num_regions"][0] == (3, 0)[index]
    for inputs, message in (
        (([0.0], [0], [-1.0]), r"num_proposals must be 1 to 20, or -1 for 20.*\[0\]"),
        (([0.0], [3, 21], [-1.0]), "num_proposals must be 1 to 20"),
        (([0.0], [1, 2, 3], [-1.0]), "num_proposals.*3 numbers for 2 images"),
        (([0.0], [-1], [float("nan")]), "proposal_threshold must be 0.0 to 1.0"),
        (([0.0], [-1], [1.5]), "proposal_threshold must be 0.0 to 1.0, or -1 for 0.0"),
    ):
        bias, number, threshold = inputs
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            servable.limited(
                files, tf.constant(bias), tf.constant(number), tf.constant(threshold)
            )
    fewer = servable_of(detector, num_proposals=4, proposal_threshold=0.25)
    limited = servable.limited(
        files, tf.constant(0.0), tf.constant(4), tf.constant(0.25)
    )
    answer = fewer.serving_default(files)
    del limited["names"], answer["names"]  # There are no labels.
    same_answers(answer, limited)
    text = fewer.documentation["num_proposals"]
    assert "1 to 20; -1 for 4" in text


def test_what_is_not_there_is_zero(servable):
    """Images so narrow that the network sees a single row or column."""
    thin = [pictures.image(32, 3000), pictures.image(3000, 32)]
    answer = servable.explain(tf.constant([pictures.png(image) for image in thin]))
    np.testing.assert_array_equal(answer["map_size"], [[1, 96], [96, 1]])
    for index, count in enumerate(answer["num_detections"].numpy()):
        for key in ("boxes", "normalized_boxes", "classes", "scores"):
            assert not np.any(answer[key][index, count:])
        assert set(answer["names"][index, count:].numpy()) <= {b""}
    assert np.all(np.isfinite(answer["ponder_cost"]))


@pytest.mark.parametrize("adaptivity", ["none", "act"])
def test_other_networks(adaptivity):
    detector = network(adaptivity)
    servable = servable_of(detector)
    answer = servable.explain(tf.constant(FILES[:2]))
    for index, image in enumerate(IMAGES[:2]):
        seen = preprocessing.detection(image, *SIDES)[tf.newaxis]
        record = detector.detect(seen)["record"]
        assert answer["flops"][index] == record["flops"][0]
        for key, block in zip("123", record["blocks"], strict=True):
            map_of_block = answer[f"block{key}_ponder_cost_map"]
            expected = block["ponder_cost"][0]
            np.testing.assert_allclose(map_of_block[index], expected, rtol=1e-5)
    if adaptivity == "none":
        with pytest.raises(tf.errors.InvalidArgumentError, match="no halting scores"):
            servable.explain(tf.constant(FILES[:2]), 1.0)


def test_tensors_and_files_are_answered_alike(servable):
    batch = np.stack([pictures.image(80, 70, seed) for seed in range(2)])
    files = tf.constant([pictures.png(image) for image in batch])
    encoded, decoded = servable.serving_default(files), servable.tensors(batch)
    for key, value in encoded.items():
        np.testing.assert_array_equal(value, decoded[key], key)


def test_bit_equal_in_a_fresh_process(servable, exported, tmp_path):
    stock.check_bits(servable, exported.folder, tmp_path)


def test_loads_through_the_c_api(servable, exported, tmp_path):
    stock.check_c_api(servable, exported.folder, tmp_path)


def test_what_is_written(servable, exported):
    labels = (exported.folder / "assets" / "labels.txt").read_text()
    assert labels.splitlines() == LABELS
    text = (exported.folder / export.DOCUMENTATION).read_text()
    for name in ("serving_default", "tensors", "explain", *servable.documentation):
        assert name in text
    assert {"CropAndResize", "CombinedNonMaxSuppression"} <= set(exported.ops)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shorter_side": 20}, "shorter_side must be at least 32"),
        ({"shorter_side": 100}, r"above longer_side\. Received: 100, 96"),
        ({"labels": LABELS[1:]}, "needs as many labels. Received: 3"),
        ({"num_proposals": 21}, r"an integer from 1 to 20.*num_proposals=21"),
        ({"proposal_threshold": 2}, "a number from 0 to 1.*proposal_threshold=2"),
    ],
)
def test_bad_arguments(detector, options, message):
    with pytest.raises(ValueError, match=message):
        servable_of(detector, **options)
