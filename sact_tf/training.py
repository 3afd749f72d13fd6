"""Training that survives interruption, and what one wants to see meanwhile."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf import visualization
from sact_tf.callback_memory import csv_loggers_append
from sact_tf.training_state import NonFiniteLossError, State

DatasetOrMaker = tf.data.Dataset | Callable[[int], tf.data.Dataset]


def fit(
    model: tf_keras.Model,
    dataset: DatasetOrMaker,
    *,
    epochs: int,
    steps_per_epoch: int,
    directory: str | os.PathLike,
    backup_every: int | None = None,
    validation_data: tf.data.Dataset | None = None,
    callbacks: Sequence[tf_keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> dict[str, list[float]]:
    """`model.fit` that can be interrupted at any time and called again to go on.

    Weights, optimizer, epoch, position in the data, what callbacks remember and the
    history so far are kept in `directory`. Called again with the same arguments after
    an interruption, it gives the numbers that the uninterrupted run would have given,
    as far as the data set (seeded, the global seed included) and TensorFlow's
    operations are deterministic; called again after the end, it restores the trained
    weights, as Keras and the callbacks have finished them, and returns. More epochs go
    on from the weights before that.

    Callbacks remember what is in their attributes: the best value so far, counters,
    lists, arrays, variables (see `sact_tf.snapshots`); Keras' own and those of users.
    What they keep elsewhere (variables outside of them, open files) is theirs to keep;
    CSVLoggers go on with their files. A run that a callback has ended
    (`model.stop_training`, as EarlyStopping sets it) has ended, however many epochs
    there might be, for as long as such a callback is given. `model.stop_training` set
    from elsewhere, by a button, is an interruption.

    Hyperparameters that change while training, such as the learning rate, go on as
    they were. (Metrics that users write themselves and that are no Mean or Sum cover,
    in the epoch in which a run was taken up, its remaining steps only.)

    A loss that is not finite stops the run, and the network goes back to the last
    checkpoint from before.

    Under a MultiWorkerMirroredStrategy every worker calls it with the same arguments
    and the same directory, on a file system that all share; the first worker writes.

    Args:
      model: a compiled model.
      dataset: batches, at least as many as there are steps in all, or exactly as many
        as in an epoch: either a deterministic tf.data.Dataset, whose first batches are
        skipped when a run is taken up, or a function that takes the number of the first
        step and returns the data set from there on (faster, where the data can be
        addressed).
      epochs: epochs in all.
      steps_per_epoch: batches in an epoch.
      directory: where to keep the state; made if it is not there.
      backup_every: keep the state after so many steps, too, not only after epochs.
      validation_data: as for model.fit.
      callbacks: as for model.fit.
      verbose: as for model.fit; "auto" is a progress bar on a terminal and a line per
        epoch elsewhere.

    Returns:
      The history: for every logged name a list of its values, one for each epoch.

    Raises:
      NonFiniteLossError: the loss became NaN or infinite.
      ValueError: the directory holds the state of a run with another network,
        optimizer or number of steps; the data set ends too early; a number of steps or
        epochs is not positive; there is a BackupAndRestore among the callbacks.
    """
    for name, value in (
        ("epochs", epochs),
        ("steps_per_epoch", steps_per_epoch),
        ("backup_every", 1 if backup_every is None else backup_every),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
    for callback in callbacks:
        if isinstance(callback, tf_keras.callbacks.BackupAndRestore):
            raise ValueError(
                "sact_tf.training.fit keeps and restores the state itself, and cannot "
                "with a BackupAndRestore beside it. Leave that callback out"
            )
    strategy = model.distribute_strategy
    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        raise ValueError(
            "sact_tf.training.fit looks at every step, which a ParameterServerStrategy "
            "does not allow. Use model.fit with tf_keras.callbacks.BackupAndRestore "
            "(see docs/distributed.md)"
        )
    if not model.optimizer:
        raise ValueError("The model must be compiled before it can be trained.")
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    callbacks = list(callbacks)
    with strategy.scope():
        state = State(
            model, os.fspath(directory), steps_per_epoch, backup_every, callbacks
        )
    with contextlib.closing(state):
        state.restore()
        wanted = epochs * steps_per_epoch
        over = state.over(wanted, callbacks)
        if over and state.restore_finished():
            _say_who_ended_it(state, wanted, verbose)
            return state.columns()
        _run(state, dataset, epochs, over, callbacks, validation_data, verbose)
        if state.over(wanted, callbacks):
            state.finish()
        elif not model.stop_training:
            raise ValueError(
                f"The data set ended at step {state.step}; {epochs} epochs of "
                f"{steps_per_epoch} steps need {wanted}. Repeat it, or give fewer steps"
            )
        return state.columns()


def _run(state, dataset, epochs, over, callbacks, validation_data, verbose):
    """`model.fit` from where a run is; if that is over, what follows the last epoch."""
    if callable(dataset):
        remaining = dataset(state.step)
    else:
        if dataset.cardinality() == state.steps_per_epoch:
            dataset = dataset.repeat()  # One epoch's data, as model.fit takes it.
        remaining = dataset.skip(state.step)
    begin = (epochs, 0) if over else divmod(state.step, state.steps_per_epoch)
    watched = []
    for callback in callbacks:
        watched += [callback, _Watch(state, type(callback).__qualname__)]
    # How tf_keras' own BackupAndRestore tells fit to begin within an epoch.
    state.model._training_state = _InitialCounters(begin)
    try:
        with csv_loggers_append(callbacks, begin[0]):
            state.model.fit(
                remaining,
                epochs=epochs,
                steps_per_epoch=state.steps_per_epoch,
                validation_data=validation_data,
                callbacks=[_Guard(state), *watched, _Backup(state)],
                verbose=verbose,
            )
    except NonFiniteLossError:
        state.restore()
        raise
    finally:
        state.model._training_state = None


def _say_who_ended_it(state, wanted, verbose):
    if verbose and state.step < wanted:
        name = state.memory.notes["ended_by"]
        print(
            f"{state.directory}: {name} has ended this run after step {state.step}. "
            "It goes on when it is called without that callback."
        )


class _InitialCounters:
    """Answers fit's question for the epoch and step to begin with."""

    def __init__(self, counters):
        self._counters = counters

    def maybe_load_initial_counters_from_ckpt(self, *args, **kwargs):
        return self._counters


class _Guard(tf_keras.callbacks.Callback):
    """Comes before all other callbacks: counts steps, and stops on a bad loss."""

    def __init__(self, state):
        super().__init__()
        self._state = state
        self._epoch = 0
        self._within = bool(state.step % state.steps_per_epoch)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        self._see_interruption()

    def on_train_batch_end(self, batch, logs=None):
        self._see_interruption()
        # Not one more each time: an execution may be of several steps.
        self._state.step = self._epoch * self._state.steps_per_epoch + batch + 1
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self._state.refuse(loss)
        if self._within:
            self._state.add_to_metrics()
            self._within = False

    def _see_interruption(self):
        # No callback has done it: somebody did, with a button.
        if self.model.stop_training and not self._state.ended_by:
            self._state.interrupted = True


class _Watch(tf_keras.callbacks.Callback):
    """Comes after a callback of the user's: sees whether that one ends the run."""

    def __init__(self, state, name):
        super().__init__()
        self._state, self._name = state, name

    def _see(self, *_, **__):
        state = self._state
        if self.model.stop_training and not (state.ended_by or state.interrupted):
            state.ended_by = self._name

    on_train_begin = on_epoch_begin = on_epoch_end = _see
    on_train_batch_begin = on_train_batch_end = _see
    on_test_begin = on_test_batch_begin = on_test_batch_end = on_test_end = _see


class _Backup(tf_keras.callbacks.Callback):
    """Comes after all other callbacks: takes up their memory, and keeps the state."""

    def __init__(self, state):
        super().__init__()
        self._state = state
        self._kept = state.step
        self._resumed = state.latest is not None
        self._within = bool(state.step % state.steps_per_epoch)

    def on_train_begin(self, logs=None):
        self._state.memory.begin()
        if self._resumed:
            # Whatever callbacks have set for a run that begins.
            self._take_up()
            self.model._train_counter.assign(self._state.step)

    def on_epoch_begin(self, epoch, logs=None):
        if self._within:
            # The epoch had begun already; callbacks have been told so once more.
            self._take_up()
            # Those of the network's metrics are in the checkpoint, too, and would be
            # counted twice: see State.add_to_metrics.
            self.model.reset_metrics()
            self._within = False

    def on_train_batch_end(self, batch, logs=None):
        every, step = self._state.backup_every, self._state.step
        # The end of an epoch is kept with its logs, in on_epoch_end.
        if not step % self._state.steps_per_epoch:
            return
        due = every and step // every > self._kept // every
        if due or self.model.stop_training:
            self._keep()

    def on_epoch_end(self, epoch, logs=None):
        if self._state.step < (epoch + 1) * self._state.steps_per_epoch:
            return  # Stopped within it, or the data ended early, and fit says so.
        row = {name: float(value) for name, value in (logs or {}).items()}
        self._state.history.append(row)
        self._keep()

    def _take_up(self):
        self._state.restore()
        self._state.memory.restore()

    def _keep(self):
        self._state.save()
        self._kept = self._state.step


class PonderCostMaps(tf_keras.callbacks.Callback):
    """Writes ponder cost maps of some images to TensorBoard after every epoch."""

    def __init__(self, images, log_dir: str | os.PathLike, every: int = 1):
        """Creates the callback.

        Args:
          images: float32 [B, H, W, 3], as the network takes them; a few.
          log_dir: where TensorBoard looks.
          every: epochs from one picture to the next.
        """
        super().__init__()
        self._images = tf.convert_to_tensor(images)
        self._log_dir = os.fspath(log_dir)
        self._every = every
        self._writer = None

    def on_epoch_end(self, epoch, logs=None):
        """Writes the pictures."""
        if (epoch + 1) % self._every:
            return
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._log_dir)
        record = self.model.introspect(self._images)
        figure = visualization.ponder_cost_maps(self._images.numpy(), record)
        picture = visualization.to_array(figure)
        with self._writer.as_default():
            tf.summary.image("ponder_cost_maps", picture[np.newaxis], step=epoch)
        self._writer.flush()
