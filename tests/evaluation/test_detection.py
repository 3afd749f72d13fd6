import json

import numpy as np
import pytest

from sact_tf.evaluation import detection


def found(boxes, scores, classes, flops=50):
    return {
        "boxes": np.float32([boxes]),
        "scores": np.float32([scores]),
        "classes": np.int32([classes]),
        "count": np.int32([len(scores)]),
        "record": {
            "flops": [flops],
            "ponder_cost": [3.0],
            "head": {"flops": [2 * flops], "ponder_cost": [4.0], "num_regions": [9]},
        },
    }


def truth(number, boxes, classes, crowds=None):
    return {
        "source_id": number,
        "height": 100,
        "width": 200,
        "num_detections": len(classes),
        "boxes": np.float32([*boxes, [-1] * 4]),
        "classes": np.int32([*classes, -1]),
        "areas": np.float32([1000.0] * len(classes) + [0]),
        "is_crowds": np.int32([*(crowds or [0] * len(classes)), 0]),
    }


def test_right_and_wrong_boxes():
    evaluation = detection.Evaluation()
    box = [10, 20, 50, 80]
    # Twice the size, as the detector saw it.
    evaluation.add(
        truth(1, [box], [3]),
        found([np.multiply(box, 2)], [0.9], [3]),
        scale=[2.0, 2.0],
        reference_flops=100,
    )
    row = evaluation.row("right")
    assert row.metrics["AP"] == pytest.approx(1.0)
    assert row.metrics["AR100"] == pytest.approx(1.0)
    assert row.metrics["APl"] == -1
    evaluation.add(
        truth(2, [box], [3]),
        found([box], [0.95], [4], flops=70),
        scale=[1.0, 1.0],
        reference_flops=100,
    )
    row = evaluation.row("half")
    assert row.metrics["AR100"] == 0.5
    assert (row.flops, row.flops_std, row.share) == (60.0, 10.0, 0.6)
    assert row.num_images == 2 and row.ponder_cost == 3.0
    assert (row.head_flops, row.head_flops_std) == (120.0, 20.0)
    assert (row.head_ponder_cost, row.num_regions) == (4.0, 9.0)


def test_an_evaluation_of_an_earlier_version_goes_on():
    evaluation = detection.Evaluation()
    options = {"scale": [1.0, 1.0], "reference_flops": 100}
    box = [10, 20, 50, 80]
    evaluation.add(truth(1, [box], [3]), found([box], [0.9], [3]), **options)
    state = evaluation.state()
    for key in ("head_flops", "head_ponder_cost", "num_regions"):
        del state["costs"][0][key]
    again = detection.Evaluation(state)
    again.add(truth(2, [box], [3]), found([box], [0.9], [3], 70), **options)
    row = again.row("old")
    assert row.flops == 60.0 and row.head_flops is None
    assert "| old | 60 ± 10 | 60.0 ± 10.0 |  | 100.00 |" in (
        detection.markdown_table([row])
    )


def test_crowds_forgive_and_images_without_anything_count():
    evaluation = detection.Evaluation()
    options = {"scale": [1.0, 1.0], "reference_flops": 100}
    evaluation.add(
        truth(1, [[0, 0, 40, 40], [50, 50, 100, 150]], [1, 1], [0, 1]),
        found([[0, 0, 40, 40], [60, 60, 80, 80]], [0.5, 0.9], [1, 1]),
        **options,
    )
    assert evaluation.row("crowd").metrics["AP"] == pytest.approx(1.0)
    evaluation.add(truth(2, [], []), found(np.zeros([0, 4]), [], []), **options)
    assert evaluation.row("empty").metrics["AP"] == pytest.approx(1.0)
    evaluation.add(truth(3, [], []), found([[0, 0, 9, 9]], [0.99], [1]), **options)
    assert evaluation.row("false alarm").metrics["AP"] == pytest.approx(0.5)


def test_no_detections_at_all():
    evaluation = detection.Evaluation()
    evaluation.add(
        truth(1, [[0, 0, 40, 40]], [1]),
        found(np.zeros([0, 4]), [], []),
        scale=[1.0, 1.0],
        reference_flops=100,
    )
    assert evaluation.row("none").metrics["AP"] == 0.0
    with pytest.raises(ValueError, match="no images to evaluate"):
        detection.Evaluation().row("nothing")


def test_no_objects_at_all():
    evaluation = detection.Evaluation()
    evaluation.add(
        truth(1, [], []),
        found([[0, 0, 9, 9]], [0.9], [1]),
        scale=[1.0, 1.0],
        reference_flops=100,
    )
    assert set(evaluation.row("none").metrics.values()) == {-1.0}


def test_put_aside_and_taken_up():
    whole, parts = detection.Evaluation(), detection.Evaluation()
    for number in range(4):
        box = [10, 20, 50 + 9 * number, 80]
        arguments = (
            truth(number, [[10, 20, 50, 80]], [1]),
            found([box], [0.5 + number / 10], [1], 10 * number),
        )
        options = {"scale": [1.0, 1.0], "reference_flops": 100}
        whole.add(*arguments, **options)
        parts = detection.Evaluation(json.loads(json.dumps(parts.state())))
        parts.add(*arguments, **options)
    assert whole.row("a") == parts.row("a")


def test_table():
    evaluation = detection.Evaluation()
    evaluation.add(
        truth(1, [[10, 20, 50, 80]], [1]),
        found([[10, 20, 50, 80]], [0.9], [1]),
        scale=[1.0, 1.0],
        reference_flops=100,
    )
    rows = [evaluation.row("a", {"dense": 1.5, "sparse": 1.0}), evaluation.row("b")]
    header, _, first, second = detection.markdown_table(rows).splitlines()
    assert header.endswith("| s per image, dense | s per image, sparse |")
    assert "50.0 ± 0.0 | 100 ± 0 | 100.00 | 100.00 | 1.500 | 1.000 |" in first
    assert second.endswith("|  |  |")
