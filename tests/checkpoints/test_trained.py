"""A network that knows photographs: SACT trained on CIFAR-10 (docs/results.md)."""

import pathlib

import numpy as np
import pytest

import sact_tf
from sact_tf.checkpoints import authors
from sact_tf.data import sources
from sact_tf.evaluation import report
from tests.data.test_sources import TFDS, needs_cifar

FOLDER = pathlib.Path(__file__).parents[3] / "shared/trained/cifar10_sact_0.01"
PREFIX = FOLDER / "model.ckpt"
NUM_IMAGES = 200
#: Of these images. (Of all 10,000: docs/results.md.)
EXPECTED = {
    "hits": 177,
    "flops": 84389430.4,
    "flops_std": 4604480.4,
    "units": (2.594263, 2.490605, 2.494609),
}

pytestmark = [
    pytest.mark.skipif(
        not FOLDER.is_dir(),
        reason="the trained network (../shared/trained/cifar10_sact_0.01) is not here",
    ),
    needs_cifar,
]


@pytest.fixture(scope="module")
def batches():
    source = sources.open_source("cifar10", TFDS, num_images=NUM_IMAGES)
    return list(source.batches("cifar", 32, 50, num_classes=10))


def row(execution, batches):
    structure = authors.structure(PREFIX)
    assert structure["adaptivity"] == "sact" and structure["units"] == (5, 5, 5)
    model = sact_tf.ResNet(**structure, tau=0.01, execution=execution)
    sact_tf.load_authors_checkpoint(model, PREFIX)
    return report.evaluate(model, batches)


def test_dense_and_sparse_give_what_was_measured(batches):
    for execution in ("dense", "positions"):
        found = row(execution, batches)
        assert found.num_images == NUM_IMAGES
        # An image on the verge of two classes may fall to either side.
        assert abs(found.accuracy * NUM_IMAGES - EXPECTED["hits"]) <= 1
        # A position on the verge of halting is one in 200 x 1,344.
        np.testing.assert_allclose(found.flops, EXPECTED["flops"], rtol=1e-4)
        np.testing.assert_allclose(found.flops_std, EXPECTED["flops_std"], rtol=1e-3)
        np.testing.assert_allclose(found.units, EXPECTED["units"], rtol=1e-3)
