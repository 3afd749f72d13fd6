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
#: Of all 10,000 test images (docs/results.md).
WHOLE = {
    "accuracy": 0.8783,
    "flops": 8.41937e7,
    "flops_std": 4.50704e6,
    "units": (2.5952, 2.4818, 2.4833),
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


def test_dense_and_sparse_are_as_on_the_whole_test_set(batches):
    dense, sparse = (row(execution, batches) for execution in ("dense", "positions"))
    for found in (dense, sparse):
        assert found.num_images == NUM_IMAGES
        # Three standard errors of a mean over so many images.
        root = NUM_IMAGES**0.5
        share = WHOLE["accuracy"]
        error = 3 * (share * (1 - share)) ** 0.5 / root
        assert abs(found.accuracy - share) < error
        assert abs(found.flops - WHOLE["flops"]) < 3 * WHOLE["flops_std"] / root
        np.testing.assert_allclose(found.flops_std, WHOLE["flops_std"], rtol=0.2)
        np.testing.assert_allclose(found.units, WHOLE["units"], rtol=0.03)
    # The same numbers, but for a position on the verge of halting.
    assert abs(sparse.accuracy - dense.accuracy) * NUM_IMAGES <= 1
    np.testing.assert_allclose(sparse.flops, dense.flops, rtol=1e-5)
    np.testing.assert_allclose(sparse.units, dense.units, rtol=1e-4)
