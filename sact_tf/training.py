"""Training that survives interruption, and what one wants to see meanwhile."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf import visualization
from sact_tf.models.resnet import ResNet

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
        epochs is not positive.
    """
    for name, value in (
        ("epochs", epochs),
        ("steps_per_epoch", steps_per_epoch),
        ("backup_every", 1 if backup_every is None else backup_every),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
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
    with strategy.scope():
        state = _State(model, os.fspath(directory), steps_per_epoch, backup_every)
    state.restore()
    wanted = epochs * steps_per_epoch
    if state.step >= wanted:
        return state.columns()
    if callable(dataset):
        remaining = dataset(state.step)
    else:
        if dataset.cardinality() == steps_per_epoch:
            dataset = dataset.repeat()  # One epoch's data, as model.fit takes it.
        remaining = dataset.skip(state.step)
    # How tf_keras' own BackupAndRestore tells fit to begin within an epoch.
    model._training_state = _InitialCounters(state)
    try:
        model.fit(
            remaining,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation_data,
            callbacks=[_Guard(state), *callbacks, _Backup(state)],
            verbose=verbose,
        )
    except NonFiniteLossError:
        state.restore()
        raise
    finally:
        model._training_state = None
    if state.step < wanted and not model.stop_training:
        raise ValueError(
            f"The data set ended at step {state.step}; {epochs} epochs of "
            f"{steps_per_epoch} steps need {wanted}. Repeat it, or give fewer steps"
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
        if hasattr(model.optimizer, "build"):
            model.optimizer.build(model.trainable_variables)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            model=model, optimizer=model.optimizer, step=self._step
        )
        # All workers take part in saving, since it averages variables over them; what
        # those save that do not lead is for nobody.
        self._leads = model.distribute_strategy.extended.should_checkpoint
        self._aside = None if self._leads else tempfile.TemporaryDirectory()
        self._manager = tf.train.CheckpointManager(
            self._checkpoint,
            directory if self._leads else self._aside.name,
            max_to_keep=2,
        )
        self._settings = {
            "steps_per_epoch": steps_per_epoch,
            "optimizer": model.optimizer.get_config(),
        }
        if isinstance(model, ResNet):
            self._settings["model"] = {**model.get_config(), "name": None}
        self._settings = json.loads(json.dumps(self._settings, default=str))

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return int(self._step.numpy())

    @step.setter
    def step(self, step: int):
        self._step.assign(step)

    @property
    def latest(self) -> str | None:
        """The last checkpoint, or None."""
        return tf.train.latest_checkpoint(self.directory)

    def restore(self):
        """Goes back to the last checkpoint, if there is one."""
        if not self.latest:
            return
        kept = self._read("settings.json", self._settings)
        others = _differences(kept, self._settings)
        if others:
            raise ValueError(
                f"{self.directory} holds a run with other settings ("
                f"{', '.join(others[:3])}); choose another directory, or move that one "
                "away"
            )
        try:
            status = self._checkpoint.restore(self.latest)
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:
            raise ValueError(
                f"{self.directory} holds the state of another network or optimizer; "
                "choose another directory, or move that one away. "
                f"({str(error).splitlines()[0]})"
            ) from error
        except (tf.errors.OpError, IndexError) as error:
            raise ValueError(
                f"{self.latest} cannot be read; is it whole? "
                f"({str(error).splitlines()[0]})"
            ) from error
        rows = self._read("history.json", [])
        self.history = rows[: self.step // self.steps_per_epoch]

    def save(self):
        """Keeps the state.

        Raises:
          NonFiniteLossError: the last update has spoilt the weights; what was kept
            before stays.
        """
        for variable in self.model.weights:
            if variable.dtype.is_floating and not tf.reduce_all(
                tf.math.is_finite(variable)
            ):
                raise NonFiniteLossError(
                    f"{variable.name} is not finite after step {self.step}, "
                    f"{self._advice()}"
                )
        if self._leads:
            os.makedirs(self.directory, exist_ok=True)
            self._write("settings.json", self._settings)
            self._write("history.json", self.history)
        self._manager.save(checkpoint_number=self.step)

    def refuse(self, loss):
        """Raises NonFiniteLossError for a loss."""
        epoch = (self.step - 1) // self.steps_per_epoch + 1
        raise NonFiniteLossError(
            f"The loss became {loss} at step {self.step} (epoch {epoch}), "
            f"{self._advice()}"
        )

    def columns(self) -> dict[str, list[float]]:
        """The history by name."""
        names = self.history[0] if self.history else ()
        return {name: [row.get(name) for row in self.history] for name in names}

    def _advice(self):
        kept = (
            f"The network is as in the last good checkpoint, {self.latest}. "
            if self.latest
            else ""
        )
        return (
            f"and training was stopped. {kept}Check the images for NaN, lower the "
            "learning rate, or clip the gradients (global_clipnorm of the optimizer)."
        )

    def _read(self, name, default):
        try:
            with open(os.path.join(self.directory, name), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return default

    def _write(self, name, content):
        path = os.path.join(self.directory, name)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        os.replace(f"{path}.new", path)


def _differences(one, other, path=""):
    """Paths of the settings in which two nested dicts differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            difference
            for key in sorted({*one, *other})
            for difference in _differences(
                one.get(key), other.get(key), f"{path}.{key}" if path else key
            )
        ]
    return [] if one == other else [f"{path}: {one} there, {other} here"]


class _InitialCounters:
    """Answers fit's question for the epoch and step to begin with."""

    def __init__(self, state):
        self._counters = divmod(state.step, state.steps_per_epoch)

    def maybe_load_initial_counters_from_ckpt(self, *args, **kwargs):
        return self._counters


class _Guard(tf_keras.callbacks.Callback):
    """Comes before all other callbacks: counts steps, and stops on a bad loss."""

    def __init__(self, state):
        super().__init__()
        self._state = state
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        # Not one more each time: an execution may be of several steps.
        self._state.step = self._epoch * self._state.steps_per_epoch + batch + 1
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(loss):
            self._state.refuse(loss)


class _Backup(tf_keras.callbacks.Callback):
    """Comes after all other callbacks: keeps the state."""

    def __init__(self, state):
        super().__init__()
        self._state = state
        self._kept = state.step

    def on_train_batch_end(self, batch, logs=None):
        every, step = self._state.backup_every, self._state.step
        # The end of an epoch is kept with its logs, in on_epoch_end.
        within = step % self._state.steps_per_epoch
        if every and within and step // every > self._kept // every:
            self._state.save()
            self._kept = step

    def on_epoch_end(self, epoch, logs=None):
        if self._state.step < (epoch + 1) * self._state.steps_per_epoch:
            return  # The data ended early: no whole epoch, and fit says so.
        row = {name: float(value) for name, value in (logs or {}).items()}
        self._state.history.append(row)
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
