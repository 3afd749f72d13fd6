"""Experiments that several processes run together, as TF_CONFIG says.

The Garden's trainer is made for synchronous replicas. Under parameter servers it sends
a whole loop of steps to one worker and waits for it, so that one worker works at a
time, and every worker reads all the data; and when a synchronous run is taken up, only
its first worker restores the checkpoint. What is here changes these three things and
nothing else.
"""

import os
import shutil

import tensorflow as tf
import tf_keras
from absl import logging
from official.common import distribute_utils
from official.core import base_trainer, train_lib, train_utils
from official.core import config_definitions as cfg
from official.vision.utils import summary_manager
from tensorflow.python.distribute.distribute_utils import cache_variable_reads

from sact_tf import errors
from sact_tf.checkpoints import patterns
from sact_tf.distribution import agreement, sharding, strategies
from sact_tf.distribution.cluster import Cluster
from sact_tf.model_garden import labels, numerics, runs

#: How often an evaluator looks whether the training has ended, in seconds.
_EVALUATOR_LOOKS_EVERY = 10


class RestartError(RuntimeError):
    """Another process of the run has ended: start this one again, too.

    It goes on from the last checkpoint.
    """


def run(cluster: Cluster, params: cfg.ExperimentConfig, mode: str, folder: str) -> None:
    """Takes part in a run as the process that TF_CONFIG names.

    A chief or worker returns when the training is over, an evaluator when it has
    evaluated the last checkpoint. Parameter servers and asynchronous workers serve
    until they are killed.

    Args:
      cluster: see `sact_tf.distribution.cluster.from_environment`; goes together with
        the strategy of `params` (see `sact_tf.distribution.strategies.check`).
      params: of the experiment.
      mode: as the Garden's; an evaluator always evaluates.
      folder: of the run (`--model_dir`), on a file system that all processes share.

    Raises:
      RestartError: another process has ended, or cannot be reached any more.
      ValueError: the mode, the ports or the other processes do not go together with
        what this one was told.
    """
    patterns.refuse(folder, "A run")
    name = params.runtime.distribution_strategy
    asynchronous = name == strategies.ASYNCHRONOUS
    if asynchronous and "train" not in mode:
        raise ValueError(
            f"--mode={mode} needs no parameter servers: give it to a single process, "
            "without TF_CONFIG"
        )
    if cluster.role == "evaluator":
        _evaluate(cluster, params, folder)
        return
    cluster.check_port()
    settings = {**params.as_dict(), "mode": mode, "tensorflow": tf.__version__}
    agreement.publish(folder, cluster, settings)
    if asynchronous and cluster.role in ("ps", "worker"):
        strategies.serve(cluster)
        return
    logging.info("%s waits for %s.", cluster.name, ", ".join(cluster.members))
    try:
        if asynchronous:
            strategy = strategies.asynchronous(cluster)
        else:
            strategy = strategies.synchronous(cluster)
    except _LOST as error:
        raise RestartError(
            f"Not all processes of TF_CONFIG can be reached ({_reason(error)}). Start "
            "those that are missing, and this one again"
        ) from error
    agreement.check(folder, cluster)
    if cluster.leads and "train" in mode:
        train_utils.serialize_config(params, folder)
        labels.keep(params.task, folder)
    if asynchronous:
        mode = "train"  # Evaluation is the evaluator's.
    try:
        with numerics.explained():
            _Runner.of(cluster, strategy, params, mode, folder).run()
    except _LOST as error:
        ended = (
            "A parameter server has ended, and its part of the parameters with it"
            if asynchronous
            else "Another worker has ended"
        )
        latest = tf.train.latest_checkpoint(folder)
        raise RestartError(
            f"{ended} ({_reason(error)}). The run can go on from "
            f"{latest or 'its beginning'}: start it again with the same command"
        ) from error


#: What TensorFlow raises when another process is gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


def _reason(error):
    return errors.cause(error)[:200]


def _evaluate(cluster, params, folder):
    """Evaluates every checkpoint that it sees, until that of the last step."""
    params = params.replace(trainer={"continuous_eval_timeout": _EVALUATOR_LOOKS_EVERY})
    strategy = distribute_utils.get_distribution_strategy(
        "one_device", num_gpus=min(params.runtime.num_gpus, 1)
    )
    _Runner.of(cluster, strategy, params, "continuous_eval", folder).run()


class AsyncTrainer(base_trainer.Trainer):
    """Trains under parameter servers with all workers at work, each on its own data.

    An update is one batch of one worker, and steps, schedules and intervals count the
    updates of all workers. Beside the task's logs there are for every loop the updates
    of each worker (`updates_worker0` and so on) and the mean `staleness`: how many
    updates of others came between a worker's reading of the parameters and its own
    update.
    """

    def __init__(self, config, task, model, optimizer, num_workers):
        """See the Garden's trainer."""
        self._num_workers = num_workers
        self._updates = tf.Variable(tf.zeros([num_workers], tf.int64))
        self._staleness = tf_keras.metrics.Mean("staleness")
        super().__init__(config, task, model, optimizer, train=True, evaluate=False)

    def distribute_dataset(self, dataset_or_fn, *args, **kwargs):
        """A data set on each worker, with that worker's part of the data."""
        strategy = self.strategy
        make = sharding.for_workers(
            self._num_workers,
            lambda context: dataset_or_fn(*args, input_context=context, **kwargs),
        )

        @tf.function
        def on_worker():
            return strategy.distribute_datasets_from_function(make)

        return self.coordinator_for_async().create_per_worker_dataset(on_worker)

    def create_train_loop_fn(self):
        """Schedules steps one by one, so that idle workers find one."""
        step = tf.function(self.train_step)

        def loop(iterator, num_steps):
            for _ in range(int(num_steps)):
                self.coordinator_for_async().schedule(step, args=(iterator,))

        return loop

    def train_step(self, iterator):
        """An update by one worker."""
        before = tf.identity(self.optimizer.iterations)
        # Or the L2 penalty pulls all parameters once more. TensorFlow does not export
        # this scope, and has no other way to ask for it. (A moving average of the
        # weights, if the optimizer keeps one, is one update late by it.)
        with cache_variable_reads():
            super().train_step(iterator)
        # The optimizer counts after it has updated.
        between = self.optimizer.iterations - before - 1
        self._staleness.update_state(between)
        worker = tf.distribute.coordinator.experimental_get_current_worker_index()
        self._updates.assign_add(tf.one_hot(worker, self._num_workers, dtype=tf.int64))

    def train_loop_end(self):
        """Waits for the workers; what they did is in the logs."""
        logs = super().train_loop_end()
        logs["staleness"] = self._staleness.result()
        self._staleness.reset_states()
        for worker, updates in enumerate(self._updates.numpy()):
            logs[f"updates_worker{worker}"] = updates
        self._updates.assign(tf.zeros_like(self._updates))
        return logs


class _Runner(train_lib.OrbitExperimentRunner):
    """The Garden's runner, for one process of several."""

    def __init__(self, cluster, **options):
        self._cluster = cluster
        self._aside = None
        super().__init__(**options)

    @classmethod
    def of(cls, cluster, strategy, params, mode, folder):
        """A runner; only one process that trains writes summaries."""
        task = runs.make_task(params, folder, strategy)
        writes = cluster.leads or cluster.role == "evaluator"
        pictures = writes and summary_manager.maybe_build_eval_summary_manager(
            params, folder
        )
        return cls(
            cluster,
            distribution_strategy=strategy,
            task=task,
            mode=mode,
            params=params,
            model_dir=folder,
            save_summary=writes,
            eval_summary_manager=pictures or None,
            # Written at once: a process may be gone the next moment.
            enable_async_checkpointing=False,
        )

    def _build_trainer(self, task, train, evaluate):
        if not isinstance(self.strategy, tf.distribute.ParameterServerStrategy):
            return super()._build_trainer(task, train, evaluate)
        with self.strategy.scope():
            model = task.build_model()
            optimizer = train_utils.create_optimizer(task, self.params)
            return AsyncTrainer(
                self.params, task, model, optimizer, self._cluster.count("worker")
            )

    def _maybe_build_checkpoint_manager(self):
        manager = super()._maybe_build_checkpoint_manager()
        if self.strategy.extended.should_checkpoint:
            return manager
        # All workers take part in saving, since it averages variables over them. What
        # this one saves goes to a folder of its own, which begins as the leader's.
        self._aside = manager.directory
        _copy_latest_checkpoint(self.model_dir, self._aside)
        return tf.train.CheckpointManager(
            self.trainer.checkpoint,
            directory=self._aside,
            max_to_keep=1,
            step_counter=self.trainer.global_step,
            checkpoint_interval=self.params.trainer.checkpoint_interval,
            init_fn=self.trainer.initialize,
        )

    def run(self):
        try:
            return super().run()
        finally:
            if self._aside:
                shutil.rmtree(self._aside, ignore_errors=True)


def _copy_latest_checkpoint(source, target):
    """Copies the last checkpoint of a folder, if there is one."""
    latest = tf.train.latest_checkpoint(source)
    if latest is None:
        return
    for path in tf.io.gfile.glob(f"{latest}.*"):
        tf.io.gfile.copy(path, os.path.join(target, os.path.basename(path)))
    tf.compat.v1.train.update_checkpoint_state(
        target, os.path.join(target, os.path.basename(latest))
    )
