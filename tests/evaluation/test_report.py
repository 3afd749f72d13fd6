import numpy as np
import pytest
import tensorflow as tf

import sact_tf
from sact_tf.evaluation import report
from tests.models.test_resnet import spread_halting

IMAGES = np.random.default_rng(0).normal(size=(10, 16, 16, 3)).astype("f")
LABELS = np.arange(10) % 7


@pytest.fixture(scope="module", params=["none", "act", "sact"])
def model(request):
    network = sact_tf.ResNet("cifar", (3, 2, 2), request.param, 7, base_channels=4)
    return spread_halting(network)


def batches(size):
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(size)


@pytest.mark.parametrize("size", [10, 4])
def test_row_is_what_the_records_say(model, size):
    row = report.evaluate(model, batches(size), "net")
    record = model.introspect(IMAGES)
    logits = record["logits"].numpy()
    assert row.accuracy == np.mean(logits.argmax(-1) == LABELS)
    five = np.argsort(-logits, -1)[:, :5]
    assert row.recall_at_5 == np.mean(
        [y in g for y, g in zip(LABELS, five, strict=True)]
    )
    assert row.flops == pytest.approx(np.mean(record["flops"]))
    assert row.flops_std == pytest.approx(np.std(record["flops"]))
    for mean, std, block in zip(
        row.units, row.units_std, record["blocks"], strict=True
    ):
        assert mean == pytest.approx(np.mean(block["num_units"]))
        assert std == pytest.approx(np.std(block["num_units"]), abs=1e-12)
    assert row.ponder_cost == pytest.approx(np.mean(record["ponder_cost"]), rel=1e-6)
    assert row.num_images == 10 and row.name == "net"


def test_nothing_to_evaluate(model):
    with pytest.raises(ValueError, match="no images"):
        report.evaluate(model, [])


def test_images_without_an_answer_are_no_hits(model):
    images = np.full_like(IMAGES, np.nan)
    row = report.evaluate(model, [(images, np.zeros(10, int))])
    assert row.accuracy == row.recall_at_5 == 0.0


@pytest.mark.parametrize("labels", [LABELS[:, None], LABELS.astype("f"), LABELS[:3]])
def test_wrong_labels(model, labels):
    with pytest.raises(ValueError, match="Labels must be integers, one for each"):
        report.evaluate(model, [(IMAGES, labels)])


def test_table(model):
    row = report.evaluate(model, batches(10))
    lines = report.markdown_table([row, row]).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert "images/s" not in lines[0]
    timed = report.Row(**{**row.as_dict(), "images_per_second": 12.3})
    assert "| 12 " in report.markdown_table([row, timed]).splitlines()[3]


def test_speed_is_measured(model):
    speeds = report.images_per_second([model, model], tf.constant(IMAGES), rounds=2)
    assert len(speeds) == 2 and all(speed > 0 for speed in speeds)
