"""Training that survives interruption, and what one wants to see meanwhile."""

import json
import os
import sys
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf import visualization

DatasetOrMaker = tf.data.Dataset | Callable[[int], tf.data.Dataset]


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite, and training was stopped."""


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

    Weights, optimizer, epoch, position in the data and the history so far are kept in
    `directory`. Called again with the same arguments after an interruption, it gives
    the numbers that the uninterrupted run would have given, as far as the data set
    (seeded, the global seed included) and TensorFlow's operations are deterministic;
    called again after the end, it restores the trained weights and returns. (Averages
    in the log of the epoch in which an interrupted run was taken up cover the remaining
    steps of that epoch only.)

    A loss that is not finite stops the run; the last checkpoint from before is kept.

    Args:
      model: a compiled model.
      dataset: batches, at least as many as there are steps in all: either a
        deterministic tf.data.Dataset, whose first batches are skipped when a run is
        taken up, or a function that takes the number of the first step and returns the
        data set from there on (faster, where the data can be addressed).
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
      ValueError: the directory holds the state of another network or optimizer, or a
        number of steps or epochs is not positive.
    """
    for name, value in (("epochs", epochs), ("steps_per_epoch", steps_per_epoch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
    if backup_every is not None and backup_every < 1:
        raise ValueError(f"backup_every must be at least 1. Received: {backup_every}")
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    state = _State(model, os.fspath(directory), steps_per_epoch, backup_every)
    state.restore()
    if state.step < epochs * steps_per_epoch:
        model.fit(
            dataset(state.step) if callable(dataset) else dataset.skip(state.step),
            initial_epoch=state.step // steps_per_epoch,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation_data,
            callbacks=[_Guard(state), *callbacks, _Backup(state)],
            verbose=verbose,
        )
    return state.columns()


class _State:
    """What a run needs to go on, in memory and on disk."""

    def __init__(self, model, directory, steps_per_epoch, backup_every):
        self.model = model
        self.directory = directory
        self.steps_per_epoch = steps_per_epoch
        self.backup_every = backup_every
        self.history = []
        if not model.optimizer:
            raise ValueError("The model must be compiled before it can be trained.")
        if hasattr(model.optimizer, "build"):
            model.optimizer.build(model.trainable_variables)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizer=model.optimizer, step=self._step
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, directory, max_to_keep=2
        )

    @property
    def step(self) -> int:
        return int(self._step.numpy())

    @property
    def latest(self) -> str | None:
        return self._manager.latest_checkpoint

    def advance(self):
        self._step.assign_add(1)

    def restore(self):
        if not self.latest:
            return
        try:
            status = self._checkpoint.restore(self.latest)
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise ValueError(
                f"{self.directory} holds the state of another network or optimizer; "
                "choose another directory, or move that one away. "
                f"({str(error).splitlines()[0]})"
            ) from error
        if os.path.exists(self._history_path):
            with open(self._history_path, encoding="utf-8") as file:
                rows = json.load(file)
            self.history = rows[: self.step // self.steps_per_epoch]

    def save(self):
        """Keeps the state, unless the last update has spoilt the weights."""
        finite = [
            tf.reduce_all(tf.math.is_finite(variable))
            for variable in self.model.trainable_variables
        ]
        if not tf.reduce_all(finite):
            return
        temporary = f"{self._history_path}.new"
        os.makedirs(self.directory, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(self.history, file, indent=1)
        os.replace(temporary, self._history_path)
        self._manager.save(checkpoint_number=self.step)

    def columns(self) -> dict[str, list[float]]:
        names = self.history[0] if self.history else ()
        return {name: [row.get(name) for row in self.history] for name in names}

    @property
    def _history_path(self):
        return os.path.join(self.directory, "history.json")


class _Guard(tf_keras.callbacks.Callback):
    """Comes before all other callbacks: counts steps, and stops on a bad loss."""

    def __init__(self, state):
        super().__init__()
        self._state = state

    def on_train_begin(self, logs=None):
        # How tf_keras' own BackupAndRestore tells fit to begin within an epoch.
        self.model._training_state = _InitialCounters(self._state)

    def on_train_end(self, logs=None):
        self.model._training_state = None

    def on_train_batch_end(self, batch, logs=None):
        self._state.advance()
        loss = (logs or {}).get("loss", 0.0)
        if np.isfinite(loss):
            return
        step = self._state.step
        kept = self._state.latest
        raise NonFiniteLossError(
            f"The loss became {loss} at step {step} (epoch "
            f"{(step - 1) // self._state.steps_per_epoch + 1}), and training was "
            "stopped. "
            + (f"The last good checkpoint is {kept}. " if kept else "")
            + "Check the images for NaN, lower the learning rate, or clip the gradients"
            " (global_clipnorm of the optimizer)."
        )


class _InitialCounters:
    """Answers fit's question for the epoch and step to begin with."""

    def __init__(self, state):
        self._counters = divmod(state.step, state.steps_per_epoch)

    def maybe_load_initial_counters_from_ckpt(self, *args, **kwargs):
        return self._counters


class _Backup(tf_keras.callbacks.Callback):
    """Comes after all other callbacks: keeps the state."""

    def __init__(self, state):
        super().__init__()
        self._state = state

    def on_train_batch_end(self, batch, logs=None):
        every, step = self._state.backup_every, self._state.step
        # The end of an epoch is kept with its logs, in on_epoch_end.
        if every and step % every == 0 and step % self._state.steps_per_epoch:
            self._state.save()

    def on_epoch_end(self, epoch, logs=None):
        row = {name: float(value) for name, value in (logs or {}).items()}
        self._state.history.append(row)
        self._state.save()


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
