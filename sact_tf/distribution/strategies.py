"""The tf.distribute strategy that a configuration and TF_CONFIG ask for."""

import os

import tensorflow as tf

from sact_tf.distribution.cluster import Cluster

SYNCHRONOUS = "multi_worker_mirrored"
ASYNCHRONOUS = "parameter_server"
#: Those that need a TF_CONFIG in each of several processes.
OF_SEVERAL = (SYNCHRONOUS, ASYNCHRONOUS)
_LEAST_THREADS = 8


def check(name: str, cluster: Cluster | None) -> None:
    """Makes sure that a strategy and a cluster go together.

    Args:
      name: of the strategy, as in the Garden's `runtime.distribution_strategy`.
      cluster: or None, without TF_CONFIG.

    Raises:
      ValueError: they do not; the message says what to change.
    """
    field = "runtime.distribution_strategy"
    if cluster is None:
        if name in OF_SEVERAL:
            raise ValueError(
                f"{field}={name} needs several processes, each with its TF_CONFIG. "
                "Start them with sact-tf launch-local, or see "
                "docs/distributed.md"
            )
        return
    if name == ASYNCHRONOUS:
        missing = [
            role for role in ("chief", "ps", "worker") if not cluster.count(role)
        ]
        if missing:
            raise ValueError(
                f"{field}={name} needs a chief, and at least one ps and one worker. "
                f"TF_CONFIG has no {' and no '.join(missing)}"
            )
        return
    if cluster.asynchronous:
        raise ValueError(
            f"TF_CONFIG has parameter servers, which {field}={name} does not use. Set "
            f"it to {ASYNCHRONOUS}, or take ps out of TF_CONFIG"
        )
    if name != SYNCHRONOUS and cluster.count("chief") + cluster.count("worker") > 1:
        raise ValueError(
            f"TF_CONFIG has several processes, and with {field}={name} each of them "
            f"would train for itself. Set it to {SYNCHRONOUS}"
        )


def synchronous(cluster: Cluster) -> tf.distribute.MultiWorkerMirroredStrategy:
    """The strategy of every worker of a synchronous training.

    Must be made before any operation runs. Waits until all workers are there.
    """
    return tf.distribute.MultiWorkerMirroredStrategy(cluster.resolver())


def asynchronous(cluster: Cluster) -> tf.distribute.ParameterServerStrategy:
    """The strategy of the chief of an asynchronous training.

    Waits until all parameter servers and workers are there.
    """
    # Calls to a process that is not there yet are tried again, not failed.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    return tf.distribute.ParameterServerStrategy(cluster.resolver())


def serve(cluster: Cluster) -> None:
    """Runs what the chief sends, as a worker or parameter server, until killed."""
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    server = tf.distribute.Server(
        cluster.resolver().cluster_spec(),
        job_name=cluster.role,
        task_index=cluster.index,
        protocol="grpc",
        # A step waits for parameters and for data; on one thread each could wait for
        # the other for ever.
        config=tf.compat.v1.ConfigProto(
            inter_op_parallelism_threads=max(_LEAST_THREADS, os.cpu_count() or 1)
        ),
    )
    server.join()
