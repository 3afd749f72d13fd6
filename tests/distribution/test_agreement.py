import dataclasses

import pytest

from sact_tf.distribution import agreement
from sact_tf.distribution.cluster import Cluster

ZERO = Cluster({"worker": ("a:1", "b:1")}, "worker", 0)
ONE = dataclasses.replace(ZERO, index=1)


def test_the_same(tmp_path):
    agreement.publish(str(tmp_path), ZERO, {"task": {"sizes": (1, 2)}})
    agreement.publish(str(tmp_path), ONE, {"task": {"sizes": [1, 2]}})
    agreement.check(str(tmp_path), ZERO)
    agreement.check(str(tmp_path), ONE)


def test_other_settings(tmp_path):
    agreement.publish(str(tmp_path), ZERO, {"task": {"tau": 0.1, "seed": 0}})
    agreement.publish(str(tmp_path), ONE, {"task": {"tau": 0.2}})
    with pytest.raises(
        ValueError,
        match=r"worker 1 and worker 0 were started differently: settings.task.seed is "
        r"null here and 0 there \(and 1 more\)",
    ):
        agreement.check(str(tmp_path), ONE)
    # Started again, alike.
    agreement.publish(str(tmp_path), ONE, {"task": {"tau": 0.1, "seed": 0}})
    agreement.check(str(tmp_path), ZERO)


def test_another_cluster(tmp_path):
    other = Cluster({"worker": ("a:1", "b:2")}, "worker", 1)
    agreement.publish(str(tmp_path), ZERO, {})
    agreement.publish(str(tmp_path), other, {})
    with pytest.raises(ValueError, match=r"cluster.worker is \[.*b:1.*\] here"):
        agreement.check(str(tmp_path), ZERO)


def test_another_folder(tmp_path):
    agreement.publish(str(tmp_path), ZERO, {})
    with pytest.raises(ValueError, match="worker 1 has written nothing to"):
        agreement.check(str(tmp_path), ZERO)
