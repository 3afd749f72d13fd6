import math

import numpy as np
import pytest

from sact_tf.evaluation import claims
from sact_tf.evaluation.claims import Difference


def test_paired_is_the_protocols_formula():
    ours = np.array([1, 1, 1, 0, 0, 1, 1, 1], bool)
    theirs = np.array([1, 0, 0, 1, 0, 1, 1, 0], bool)
    n, only_ours, only_theirs = 8, 3, 1
    shares = (only_ours - only_theirs) / n, (only_ours + only_theirs) / n
    error = math.sqrt(shares[1] - shares[0] ** 2) / math.sqrt(n)
    difference = claims.paired(ours, theirs)
    assert difference == pytest.approx((shares[0], error))
    assert claims.paired(theirs, ours).mean == -difference.mean
    assert str(difference) == "+25.00 ± 23.39"


@pytest.mark.parametrize(
    ("mean", "error", "verdict"),
    [
        (0.021, 0.01, claims.HELD),
        (0.02, 0.01, claims.NOT_DECIDABLE),
        (-0.02, 0.01, claims.NOT_DECIDABLE),
        (-0.021, 0.01, claims.NOT_HELD),
        (0.0, 0.0, claims.NOT_DECIDABLE),
    ],
)
def test_verdicts(mean, error, verdict):
    assert Difference(mean, error).verdict == verdict


def test_over_seeds_takes_the_larger_error():
    alike = [Difference(0.010, 0.005), Difference(0.011, 0.004)]
    assert claims.over_seeds(alike) == pytest.approx((0.0105, 0.005))
    apart = [Difference(0.00, 0.005), Difference(0.04, 0.005)]
    assert claims.over_seeds(apart) == pytest.approx((0.02, 0.02))
    assert claims.over_seeds(alike[:1]) == alike[0]


def test_at_flops_is_linear_in_the_logarithm():
    worse, better = np.array([0, 0, 1, 1]), np.array([1, 0, 1, 1])
    curve = [(4e8, better), (1e8, worse)]
    np.testing.assert_allclose(claims.at_flops(2e8, curve), [0.5, 0, 1, 1])
    np.testing.assert_allclose(claims.at_flops(4e8, curve), better)
    same = [(1e8, worse), (1e8, worse)]
    np.testing.assert_allclose(claims.at_flops(1e8, same), worse)


def test_messages():
    with pytest.raises(ValueError, match=r"the same images.*\[2\] and \[3\]"):
        claims.paired(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="at least one difference"):
        claims.over_seeds([])
    with pytest.raises(ValueError, match=r"are around 5e\+08 FLOPs.*1e\+08"):
        claims.at_flops(5e8, [(1e8, np.ones(2)), (2e8, np.ones(2))])
