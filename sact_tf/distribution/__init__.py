"""Several processes train one network: who they are, and what each of them reads."""

from sact_tf.distribution import agreement, cluster, sharding, strategies

__all__ = ["agreement", "cluster", "sharding", "strategies"]
