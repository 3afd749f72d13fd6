import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.detection import costs
from sact_tf.detection.faster_rcnn import FasterRCNN
from sact_tf.models.backbone import Backbone
from sact_tf.models.config import BackboneConfig
from tests.detection import tiny


def images(*size, batch=1):
    return tf.random.stateless_uniform([batch, *size, 3], [1, 2], -1.0, 1.0)


OBJECTS = {
    "boxes": tf.constant([[[8.0, 8, 40, 40], [30, 50, 60, 90], [-1, -1, -1, -1]]]),
    "classes": tf.constant([[1, 3, -1]]),
}


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_detections(adaptivity):
    detector = tiny.detector(adaptivity)
    found = detector.detect(images(70, 100))
    count = int(found["count"][0])
    assert found["boxes"].shape == [1, 10, 4] and 0 < count <= 10
    boxes, scores = found["boxes"][0, :count].numpy(), found["scores"][0].numpy()
    assert (boxes >= 0).all() and (boxes <= [70, 100, 70, 100]).all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    assert (np.diff(scores) <= 0).all() and (scores <= 1).all()
    assert set(found["classes"][0, :count].numpy()) <= {1, 2, 3}
    record = found["record"]
    assert [block["name"] for block in record["blocks"]] == [
        "block1",
        "block2",
        "block3",
    ]
    assert record["ponder_cost_map"].shape == [1, 70, 100, 1]


def test_objects_themselves_are_among_the_proposals():
    outputs = tiny.detector("none")(images(64, 96), training=True, **OBJECTS)
    assert outputs["class_targets"].shape == [1, 16]
    assert {1, 3} <= set(outputs["class_targets"].numpy()[0]) <= {0, 1, 3}


def test_only_the_feature_extractor_is_penalised():
    detector = tiny.detector(tau=0.5)
    outputs = detector(images(64, 96), training=True, **OBJECTS)
    (loss,) = detector.losses
    np.testing.assert_allclose(
        loss, 0.5 * outputs["record"]["ponder_cost"][0], rtol=1e-5
    )
    assert len(outputs["record"]["blocks"]) == 3


def test_more_samples_than_there_are_proposals_and_boxes():
    detector = tiny.detector(settings={"num_sampled": 24})
    with pytest.raises(ValueError, match=r"num_sampled cannot be more.*24 of 23"):
        detector(images(64, 96), training=True, **OBJECTS)


def test_images_without_objects():
    detector = tiny.detector()
    nothing = {"boxes": tf.fill([1, 2, 4], -1.0), "classes": tf.fill([1, 2], -1)}
    outputs = detector(images(64, 96), training=True, **nothing)
    assert not outputs["class_targets"].numpy().any()
    assert all(np.isfinite(outputs[key]).all() for key in ("box_targets", "anchors"))


def test_padding_gives_no_anchors_and_no_proposals():
    detector = tiny.detector("none")
    shapes = tf.constant([[64.0, 70.0], [40.0, 96.0]])
    found = detector.detect(images(64, 96, batch=2), shapes)
    for boxes, (height, width) in zip(found["boxes"], shapes, strict=True):
        assert (boxes.numpy() <= [height, width, height, width]).all()
    outputs = detector(images(64, 96, batch=2), image_shapes=shapes, training=False)
    eligible = outputs["eligible"].numpy().reshape(2, 4, 6, -1)
    assert eligible.sum(axis=(1, 2, 3)).tolist() == [4 * 5 * 6, 3 * 6 * 6]


@pytest.mark.parametrize("adaptivity", ["none", "sact"])
def test_padded_images_give_what_single_images_give(adaptivity):
    shapes = [(64, 70), (39, 80)]
    detector = tiny.decided(tiny.detector(adaptivity))
    pair = images(64, 80, batch=2)
    biases = [1.0, 4.0] if adaptivity == "sact" else [0.0, 0.0]
    together = detector.detect(pair, tf.constant(shapes), biases)
    for index, (height, width) in enumerate(shapes):
        image = pair[index : index + 1, :height, :width]
        alone = detector.detect(image, halting_bias=biases[index])
        for key in ("flops", "ponder_cost"):
            np.testing.assert_allclose(
                together["record"][key][index], alone["record"][key][0], rtol=1e-5
            )
        np.testing.assert_allclose(
            together["boxes"][index], alone["boxes"][0], atol=1e-2
        )
        np.testing.assert_allclose(
            together["scores"][index], alone["scores"][0], atol=1e-4
        )
        assert together["record"]["flops"][index] == alone["record"]["flops"][0]


def test_masks_are_the_extractors():
    detector = tiny.detector("none", execution="positions")
    pair, shapes = images(64, 80, batch=2), [(64, 80), (49, 70)]
    whole = detector.detect(pair, shapes)
    mask = np.ones([2, 64, 80], bool)
    same = detector.detect(pair, shapes, active_mask=mask)
    np.testing.assert_array_equal(same["record"]["flops"], whole["record"]["flops"])
    np.testing.assert_allclose(same["scores"], whole["scores"], atol=1e-5)
    mask[0, 20:] = False
    part = detector.detect(pair, shapes, active_mask=mask)
    first, second = part["record"]["flops"] - whole["record"]["flops"]
    assert first < 0 and second == 0
    assert part["record"]["num_units_map"].shape == [2, 64, 80, 1]
    with pytest.raises(ValueError, match="active_mask must have the shape"):
        detector.detect(pair, active_mask=mask[0])
    with pytest.raises(ValueError, match="halting_bias is added to halting logits"):
        detector.detect(pair, halting_bias=1.0)


def test_one_trace_for_all_sizes():
    detector = tiny.detector()
    traced = []
    call = detector.call
    detector.call = lambda *args, **kwargs: traced.append(1) or call(*args, **kwargs)
    for size in ((64, 64), (64, 96), (97, 65)):
        detector.detect(images(*size))
    for number, threshold in ((1, None), (20, 0.5), (7, 1.0)):
        detector.detect(
            images(64, 64), num_proposals=number, proposal_threshold=threshold
        )
    assert len(traced) == 1


def test_regions_that_are_not_looked_at():
    """The answer is that of all regions computed, and some masked; the cost is not."""
    detector = tiny.detector("none", settings={"head_adaptivity": "act"})
    detector = tiny.decided(detector)
    pair, shapes = images(64, 80, batch=2), tf.constant([[64.0, 80.0], [39.0, 70.0]])
    kept, rows = [], []
    select, block = detector._filter, detector.box_head.block
    detector._filter = lambda **kw: kept.append(kw) or select(**kw)
    block.call = lambda crops, run=block.call, **kw: (
        rows.append(crops.shape[0]) or run(crops, **kw)
    )
    whole = detector(pair, image_shapes=shapes, training=False)["record"]["head"]
    everything, proposals = kept[0], kept[0]["proposals"]
    assert whole["num_regions"].numpy().tolist() == [20, 20] and rows == [40]
    scores = proposals.scores.numpy()
    rank = np.arange(20)
    for number, threshold, chosen in (
        ([7, 3], None, [rank < 7, rank < 3]),
        (4, None, [rank < 4] * 2),
        (None, scores[0, 11], scores >= scores[0, 11]),
        (5, [scores[0, 2], 0.0], [rank < 3, rank < 5]),
        (None, 1.0, np.zeros([2, 20], bool)),
    ):
        valid = proposals.valid & tf.constant(np.array(chosen))
        masked = {**everything, "proposals": proposals._replace(valid=valid)}
        expected = select(**masked)
        rows.clear()
        outputs = detector(
            pair,
            image_shapes=shapes,
            training=False,
            num_proposals=number,
            proposal_threshold=threshold,
        )
        counts = np.sum(chosen, axis=1)
        assert rows == [max(-(-counts.sum() // 8) * 8, 8)]
        head = outputs["record"]["head"]
        np.testing.assert_array_equal(head["num_regions"], counts)
        np.testing.assert_array_equal(
            head["flops"].numpy() < whole["flops"].numpy(), counts < 20
        )
        found = detector.detect(
            pair, shapes, num_proposals=number, proposal_threshold=threshold
        )
        for one in (found, {k.partition("_")[2]: v for k, v in outputs.items()}):
            np.testing.assert_allclose(
                one["boxes"], expected["detection_boxes"], atol=1e-2
            )
            np.testing.assert_allclose(
                one["scores"], expected["detection_scores"], atol=1e-4
            )
        there = expected["num_detections"].numpy()
        np.testing.assert_array_equal(found["count"], there)
        if threshold == 1.0:
            assert not there.any() and not found["scores"].numpy().any()


def test_the_configs_threshold():
    pair, scores = images(64, 80), []
    detector = tiny.decided(tiny.detector("none"))
    select = detector._filter
    detector._filter = lambda **kw: (
        scores.append(kw["proposals"].scores) or select(**kw)
    )

    def regions(model, **options):
        return model(pair, **options)["record"]["head"]["num_regions"].numpy().tolist()

    assert regions(detector) == [20]
    threshold = float(np.mean(scores[0][0, 8:10]))
    config = dataclasses.replace(detector.config, proposal_threshold=threshold)
    other = FasterRCNN(config)
    other.set_weights(detector.get_weights())
    assert regions(detector, proposal_threshold=threshold) == regions(other) == [9]
    assert regions(other, proposal_threshold=0.0) == [20]
    # Training samples from all proposals.
    assert regions(other, training=True, **OBJECTS) == [16]


def test_flops_of_a_plain_extractor():
    detector = tiny.detector("none")
    for size in ((64, 96), (97, 65), (600, 33)):
        record = detector.detect(images(*size))["record"]
        assert costs.plain_flops(detector.extractor, [size])[0] == record["flops"][0]


def test_flops_of_the_papers_networks():
    # Costs depend on the width only; here are all the networks' blocks but the logits.
    blocks = Backbone(BackboneConfig(units=(1, 1, 1, 1), adaptivity="none"))
    logits = 2 * 2048 * 1001
    for units, flops in (
        ((3, 4, 6, 3), (8178372608, 20189548544)),
        ((3, 4, 23, 3), (15602814976, 38523375616)),
    ):
        sizes = [[224, 224], [352, 352]]
        np.testing.assert_array_equal(
            costs.plain_flops(blocks, sizes, units) + logits, flops
        )


def test_head_stride():
    whole, halved = tiny.detector(head_stride=1), tiny.detector(head_stride=2)
    crops = tf.ones([2, 4, 4, 64])
    shapes = [d.box_head.block(crops)["output"].shape[1:3] for d in (whole, halved)]
    assert shapes == [[4, 4], [2, 2]]


def test_messages():
    detector = tiny.detector()
    with pytest.raises(ValueError, match="boxes and classes"):
        detector(images(64, 64), training=True)
    with pytest.raises(ValueError, match=r"units must be 3 numbers.*\[3, 4, 23, 3\]"):
        costs.plain_flops(detector.extractor, [[64, 64]], [3, 4, 23, 3])
    for options, message in (
        ({"num_proposals": 0}, r"integer from 1 to 20.*num_proposals=0$"),
        ({"num_proposals": [5, 21]}, r"integer from 1 to 20.*num_proposals=21$"),
        ({"num_proposals": 2.0}, r"num_proposals=2\.0$"),
        ({"num_proposals": True}, "num_proposals=True$"),
        ({"num_proposals": [1, 2, 3]}, r"of the shape \(3,\) for 2 images"),
        ({"proposal_threshold": 1.5}, r"number from 0 to 1.*threshold=1\.5$"),
        ({"proposal_threshold": float("nan")}, "proposal_threshold=nan$"),
        ({"proposal_threshold": [[0.5]]}, r"of the shape \(1, 1\) for 2 images"),
    ):
        with pytest.raises(ValueError, match=message):
            detector.detect(images(64, 64, batch=2), **options)
