"""What the demo does in a second process, while the first one goes on."""

import json
import multiprocessing
import os
import sys

import tensorflow as tf
import tf_keras
from tqdm import tqdm

from sact_tf.cli.demo.processes import end_with_parent, share_accelerators
from sact_tf.cli.demo.recipe import LONGER, place
from sact_tf.cli.demo.trainer import Trainer


def _epochs_done(place):
    """Epochs of a phase that are finished and kept."""
    history = place / "history.json"  # Of sact_tf.training.fit.
    if not history.exists():
        return 0
    return len(json.loads(history.read_text(encoding="utf-8")))


class Beside:
    """A plain network's second stage in another process, while this one goes on.

    Operations on narrow feature maps are too small to be shared out: two processes with
    a core each train faster than one after the other with both.
    """

    def __init__(self, recipe, output, name, units, say):
        """Creates it, unless that is trained already; `with` starts and ends it."""
        self._name, self._say = name, say
        self._log = output / "training" / f"{name}.log"
        phases = recipe.second_phases
        self._steps = sum(epochs for _, epochs in phases) * recipe.steps_per_epoch
        processes = multiprocessing.get_context("spawn")
        self._done = processes.Value("i", 0)
        self._process = None
        if not all(
            _epochs_done(place(output, name, number, size)) >= epochs
            for number, (size, epochs) in enumerate(phases)
        ):
            self._process = processes.Process(
                target=_train_beside,
                args=(recipe, output, name, units, self._log, self._done),
                daemon=True,
            )

    def __enter__(self):
        if self._process:
            self._say(f"\n{self._name}: beside the following, log in {self._log}\n")
            self._process.start()
        return self

    def __exit__(self, *_):
        if self._process:
            self._process.terminate()
            self._process.join()

    def wait(self):
        """Waits for it.

        Raises:
          RuntimeError: it failed.
        """
        if not self._process:
            return
        with tqdm(total=self._steps, desc=self._name, unit="step") as bar:
            while self._process.is_alive():
                self._process.join(0.5)
                bar.update(self._done.value - bar.n)
        if self._process.exitcode:
            raise RuntimeError(
                f"Training {self._name} failed with exit code "
                f"{self._process.exitcode}; see {self._log}"
            )


def _train_beside(recipe, output, name, units, log, done):
    """What the other process does."""
    end_with_parent()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    tf.get_logger().setLevel("ERROR")
    share_accelerators()
    if name == LONGER:
        # Half the cores: with all of them two trainings are in each other's way.
        tf.config.threading.set_intra_op_parallelism_threads(
            max(1, (os.cpu_count() or 2) // 2)
        )
    tf_keras.utils.set_random_seed(recipe.seed)

    def count(batch, logs):
        done.value += 1

    callback = tf_keras.callbacks.LambdaCallback(on_train_batch_end=count)
    Trainer(recipe, output, sys.stdout.write, [callback]).second(name, "none", units)
