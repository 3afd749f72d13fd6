"""What a training needs to go on, in memory and on disk."""

import contextlib
import json
import os
import tempfile
import warnings
import weakref
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf import resumable, snapshots
from sact_tf.callback_memory import CallbackMemory
from sact_tf.checkpoints import patterns
from sact_tf.models.resnet import ResNet

_MEMORY = "memory/.ATTRIBUTES/py_state"
#: By optimizer and folder: its settings when the run began, and when fit returned.
_SEEN = weakref.WeakKeyDictionary()


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite, and training was stopped."""


class State:
    """The state of a run of `sact_tf.training.fit`.

    Files of its folder: settings.json, history.json (a row for each epoch), the last
    two checkpoints `ckpt-STEP`, and when the run is over the weights as Keras has
    finished them (averages, the best ones), `finished-STEP`: a run that goes on with
    more epochs needs those before.
    """

    def __init__(
        self,
        model: tf_keras.Model,
        directory: str,
        steps_per_epoch: int,
        backup_every: int | None,
        callbacks: Sequence[tf_keras.callbacks.Callback],
    ):
        """Creates the state of a run that begins."""
        self.model = model
        self.directory = directory
        self.steps_per_epoch = steps_per_epoch
        self.backup_every = backup_every
        self.history = []
        self.ended_by = None  # Name of the callback that did.
        self.interrupted = False  # By somebody who set model.stop_training.
        self.memory = CallbackMemory(callbacks, model)
        self._run = resumable.Run(directory)
        if hasattr(model.optimizer, "build"):
            model.optimizer.build(model.trainable_variables)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        parts = {"model": model, "optimizer": model.optimizer, "step": self._step}
        # Checkpoints of earlier versions have no memory: it is read apart.
        self._checkpoint = tf.train.Checkpoint(**parts)
        # All workers take part in saving, since it averages variables over them; what
        # those save that do not lead is for nobody.
        self._leads = model.distribute_strategy.extended.should_checkpoint
        self._aside = None if self._leads else tempfile.TemporaryDirectory()
        self._open = contextlib.ExitStack()
        self._folder = self._open.enter_context(
            patterns.literal_folder(directory if self._leads else self._aside.name)
        )
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(**parts, memory=self.memory),
            self._folder,
            max_to_keep=2,
        )
        optimizer = _plain(model.optimizer.get_config())
        self._settings = {"steps_per_epoch": steps_per_epoch, "optimizer": optimizer}
        if isinstance(model, ResNet):
            arguments = {**_plain(model.get_config()), "name": None}
            # It is the machine's, and changes no numbers.
            arguments.pop("calibration", None)
            self._settings["model"] = arguments
        runs = _SEEN.setdefault(model.optimizer, {})
        place = os.path.realpath(directory)
        if place not in runs or not self.latest:
            runs[place] = {"began": optimizer, "left": optimizer}
        self._seen = runs[place]
        # What somebody has set since fit returned.
        self._set = resumable.differences(self._seen["left"], optimizer, "optimizer")

    def close(self):
        """Leaves the run; its folder can be taken up by the next call."""
        self._seen["left"] = _plain(self.model.optimizer.get_config())
        self._open.close()

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
        return patterns.latest_checkpoint(self.directory)

    def over(self, steps: int, callbacks: Sequence) -> bool:
        """Whether the run has come to its end: all steps, or a callback ended it."""
        named = {type(callback).__qualname__ for callback in callbacks}
        ended_by = self.ended_by or self.memory.notes.get("ended_by")
        return self.step >= steps or ended_by in named

    def restore(self) -> bool:
        """Goes back to the last checkpoint; false if there is none."""
        latest = self.latest
        if not latest:
            return False
        with patterns.literal_prefix(latest) as prefix, self._readable(latest):
            if _MEMORY in dict(tf.train.list_variables(prefix)):
                self.memory.deserialize(tf.train.load_variable(prefix, _MEMORY))
            self._refuse_others()
            try:
                status = self._checkpoint.restore(prefix)
                # Partial: the memory is not an object of this checkpoint.
                status.assert_existing_objects_matched().expect_partial()
            except (AssertionError, ValueError) as error:
                raise ValueError(
                    f"{self.directory} holds the state of another network or "
                    "optimizer; choose another directory, or move that one away. "
                    f"({str(error).splitlines()[0]})"
                ) from error
        rows = self._run.read("history.json", [])
        self.history = rows[: self.step // self.steps_per_epoch]
        if self._set:
            warnings.warn(
                f"The run goes on with the hyperparameters that {self.directory} "
                f"holds, not with what was set since ({self._set[0]})",
                stacklevel=3,
            )
            self._set = []
        return True

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
        self.memory.notes = {
            "ended_by": self.ended_by,
            "optimizer": _plain(self.model.optimizer.get_config()),
        }
        if self.step % self.steps_per_epoch:
            self.memory.notes["metrics"] = {
                name: snapshots.take([value.numpy() for value in metric.variables])
                for name, metric in _sums(self.model).items()
            }
        if self._leads:
            self._run.write("settings.json", self._settings)
            self._run.write("history.json", self.history)
        self._manager.save(checkpoint_number=self.step)

    def add_to_metrics(self):
        """Counts the steps of the epoch that were taken before an interruption.

        Called after the first step since then: metrics do not exist before. Metrics
        that are not sums, which only users write, cover the remaining steps.
        """
        kept = self.memory.notes.get("metrics", {})
        for name, metric in _sums(self.model).items():
            values = snapshots.give(kept[name]) if name in kept else []
            if [tuple(v.shape) for v in metric.variables] == [v.shape for v in values]:
                for variable, value in zip(metric.variables, values, strict=True):
                    variable.assign(variable.read_value() + value)

    def finish(self):
        """Keeps the weights as they are when all is over."""
        if self._leads:
            for file in os.listdir(self.directory):
                if file.startswith("finished-"):
                    os.remove(os.path.join(self.directory, file))
        prefix = os.path.join(self._folder, f"finished-{self.step}")
        tf.train.Checkpoint(model=self.model).write(prefix)

    def restore_finished(self) -> bool:
        """Takes the weights that `finish` kept; false if a run was killed before."""
        prefix = os.path.join(self.directory, f"finished-{self.step}")
        if not os.path.exists(f"{prefix}.index"):
            return False
        with patterns.literal_prefix(prefix) as literal, self._readable(prefix):
            status = tf.train.Checkpoint(model=self.model).read(literal)
            status.assert_existing_objects_matched()
        return True

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

    def _refuse_others(self):
        """Raises ValueError if the folder's settings are not those of this call.

        Hyperparameters change while training, so an optimizer that has trained is
        asked for what it was when the run began, and one that was loaded with a
        network may be as the run has left it.
        """
        there = self._run.read("settings.json", self._settings)
        here = {**self._settings, "optimizer": self._seen["began"]}
        others = resumable.differences(there, here)
        kept = self.memory.notes.get("optimizer")
        if others and kept and not resumable.differences(kept, here["optimizer"]):
            here["optimizer"] = there["optimizer"]
            others = resumable.differences(there, here)
        if others:
            raise ValueError(
                f"{self.directory} holds a run with other settings ("
                f"{', '.join(others[:3])}); choose another directory, or move that one "
                "away"
            )
        self._settings = there
        self._seen["began"] = there["optimizer"]

    @contextlib.contextmanager
    def _readable(self, prefix):
        """Says which checkpoint is damaged."""
        try:
            yield
        except (tf.errors.OpError, IndexError) as error:
            raise ValueError(
                f"{prefix} cannot be read; is it whole? ({str(error).splitlines()[0]})"
            ) from error

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


def _sums(model):
    """Metrics, by name, whose variables are sums over examples."""
    return {
        f"{index} {metric.name}": metric
        for index, metric in enumerate(model.metrics)
        if isinstance(metric, (tf_keras.metrics.Mean, tf_keras.metrics.Sum))
        or type(metric).__module__.startswith("tf_keras.")
    }


def _plain(settings):
    def plain(value):
        return value.item() if isinstance(value, np.generic) else str(value)

    return json.loads(json.dumps(settings, default=plain))
