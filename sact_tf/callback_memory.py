"""What callbacks remember while a network is trained, kept for when it goes on.

The memory of a callback are those of its attributes that change after on_train_begin:
the best value so far, how long nothing got better, counters, lists of values, and the
same of callbacks that users write. See `sact_tf.snapshots` for what can be kept.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence

import tensorflow as tf
import tf_keras

from sact_tf import snapshots
from sact_tf.snapshots import ABSENT, NotPlainError, Snapshot

_Callback = tf_keras.callbacks.Callback
# Of the trainer, not of the callback.
_NOT_ITS_OWN = {
    *("model", "params", "validation_data"),
    *("_chief_worker_only", "_supports_tf_logs", "_sact_tf_beginning"),
}
# Of TensorBoard's attributes, most are of the process: traces, writers, clocks.
_MEMORY_OF_TENSORBOARD = {"_global_train_batch", "_previous_epoch_iterations"}
# What tf_keras' callbacks remember, whatever they are told at another beginning: a
# file with a better network than theirs must not be written over.
_MEMORY_OF_KERAS = {
    tf_keras.callbacks.ModelCheckpoint: {"best", "epochs_since_last_save"},
    tf_keras.callbacks.EarlyStopping: {"best", "wait", "best_weights", "best_epoch"},
    tf_keras.callbacks.ReduceLROnPlateau: {"best", "wait", "cooldown_counter"},
}
# Two callbacks of a class are told apart by these.
_PLACES = ("filepath", "filename", "log_dir", "path")


class CallbackMemory(tf.train.experimental.PythonState):
    """The memory of callbacks, and some notes, as a part of a checkpoint."""

    def __init__(self, callbacks: Sequence[_Callback], model: tf_keras.Model):
        """Creates it.

        Args:
          callbacks: those of `model.fit`.
          model: the network.
        """
        super().__init__()
        #: What else to keep, as JSON.
        self.notes = {}
        self._callbacks = [_Remembering(callback, model) for callback in callbacks]

    def serialize(self) -> bytes:
        """What a checkpoint keeps."""
        kept = [callback.kept() for callback in self._callbacks]
        return snapshots.pack({"notes": self.notes, "callbacks": kept})

    def deserialize(self, content: bytes) -> None:
        """Takes notes from a checkpoint, and what `restore` gives the callbacks."""
        content = snapshots.unpack(content)
        self.notes = content["notes"]
        for callback in self._callbacks:
            callback.memory, callback.taken_up = {}, False
        left = content["callbacks"]
        # The same one; else one of the same kind, whose files were moved.
        for certain in (True, False):
            for callback in self._callbacks:
                if callback.taken_up:
                    continue
                found = next((k for k in left if callback.is_of(k, certain)), None)
                if found:
                    left.remove(found)
                    callback.memory, callback.taken_up = found["memory"], True

    def begin(self) -> None:
        """Sees all callbacks as they are at the beginning, after on_train_begin."""
        for callback in self._callbacks:
            callback.begin()

    def restore(self) -> None:
        """Gives the callbacks the memory from the checkpoint."""
        for callback in self._callbacks:
            callback.restore()


@contextlib.contextmanager
def csv_loggers_append(callbacks: Sequence[_Callback], epoch: int) -> Iterator[None]:
    """Lets CSVLoggers go on with their files, instead of beginning them anew.

    Args:
      callbacks: some of which may be CSVLoggers.
      epoch: the one to begin with.
    """
    begun = [
        callback
        for callback in callbacks
        if isinstance(callback, tf_keras.callbacks.CSVLogger)
        and epoch
        and not callback.append
        and os.path.exists(callback.filename)
    ]
    for callback in begun:
        _drop_last_row(callback.filename, callback.sep, epoch)
        callback.append = True
    try:
        yield
    finally:
        for callback in begun:
            callback.append = False


def _drop_last_row(path, separator, epoch):
    """Removes the row of an epoch that was logged, but not kept."""
    with open(path, encoding="utf-8", newline="") as file:
        lines = file.readlines()
    if lines and lines[-1].startswith(f"{epoch}{separator}"):
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.writelines(lines[:-1])


class _Remembering:
    """A callback, and what changes in it."""

    def __init__(self, callback, model):
        self.memory = {}  # By attribute: how it began, and what was kept.
        self.taken_up = False
        self._callback, self._model = callback, model
        self._beginning = {}
        self._always = frozenset()
        for kind, names in _MEMORY_OF_KERAS.items():
            if isinstance(callback, kind):
                self._always = names
        self._identity = {
            "class": type(callback).__qualname__,
            "monitor": str(getattr(callback, "monitor", "")),
            "place": [
                os.path.abspath(getattr(callback, name))
                for name in _PLACES
                if isinstance(getattr(callback, name, None), (str, os.PathLike))
            ],
        }

    def is_of(self, kept, certain):
        """Whether something kept is this callback's."""
        names = self._identity if certain else ("class", "monitor")
        return all(kept["identity"][name] == self._identity[name] for name in names)

    def begin(self):
        # One that has been in an interrupted run of this process goes back first.
        earlier = getattr(self._callback, "_sact_tf_beginning", None)
        if earlier is not None and self.taken_up:
            self._assign({**dict.fromkeys(self._attributes(), ABSENT), **earlier})
        self._beginning = self._attributes()
        self._callback._sact_tf_beginning = self._beginning

    def restore(self):
        given = {}
        for name, (beginning, value) in self.memory.items():
            # Another beginning than then: it was told something else.
            same = self._beginning.get(name, ABSENT) == beginning
            if same or name in self._always:
                given[name] = value
        self._assign(given)

    def kept(self):
        for name, value in self._attributes().items():
            beginning = self._beginning.get(name, ABSENT)
            if name in self.memory:
                self.memory[name] = [self.memory[name][0], value]
            elif value != beginning:
                self.memory[name] = [beginning, value]
        return {"identity": self._identity, "memory": self.memory}

    def _attributes(self):
        found = {}
        for name, value in vars(self._callback).items():
            if name in _NOT_ITS_OWN or any(
                value is known for known in (self._model, self._model.optimizer)
            ):
                continue
            if (
                isinstance(self._callback, tf_keras.callbacks.TensorBoard)
                and name not in _MEMORY_OF_TENSORBOARD
            ):
                continue
            with contextlib.suppress(NotPlainError):
                found[name] = snapshots.take(value, self._simple)
        return found

    def _simple(self, value):
        modules = {kind.__module__ for kind in type(self._callback).__mro__}
        own = modules - {_Callback.__module__, "builtins"}
        return dataclasses.is_dataclass(value) or type(value).__module__ in own

    def _assign(self, values: dict[str, Snapshot]):
        for name, value in values.items():
            if value == ABSENT:
                vars(self._callback).pop(name, None)
                continue
            current = getattr(self._callback, name, None)
            with contextlib.suppress(NotPlainError):
                setattr(self._callback, name, snapshots.give(value, current))
