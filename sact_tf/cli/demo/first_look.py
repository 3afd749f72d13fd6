"""Pictures while the demo trains: the first one early, then one after each epoch.

Ponder cost maps need a network that halts, and the demo begins with a plain one. So for
the first picture a second process takes the plain network's weights after a few epochs,
trains SACT from there for some steps, draws, and forgets the network.
"""

import multiprocessing
import os
import sys
import time

import tensorflow as tf

from sact_tf import visualization
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.cli.demo.processes import end_with_parent, share_accelerators
from sact_tf.cli.demo.trainer import Trainer, compile_network
from sact_tf.data import digit_scenes

PICTURE, MAPS = "first_look.png", "ponder_cost_maps.png"
_LOG = "first_look.log"
_SHOWN = 6
#: Scenes of the first look: a phase that no training has.
_PHASE = 9


class Look:
    """Draws; see above."""

    def __init__(self, recipe, output, say):
        """Creates it; nothing is drawn yet."""
        self._recipe, self._output, self._say = recipe, output, say
        self._process, self._offered = None, False
        self._weights = output / "training" / "first_look.weights.h5"

    def begin(self):
        """Starts the second process, if there is no picture yet."""
        if self._process or (self._output / PICTURE).exists():
            return
        self._weights.parent.mkdir(parents=True, exist_ok=True)
        self._weights.unlink(missing_ok=True)
        self._process = multiprocessing.get_context("spawn").Process(
            target=_look, args=(self._recipe, self._output, self._weights), daemon=True
        )
        self._process.start()

    def offer(self, plain, epochs):
        """Takes the plain network after so many epochs, if there is no picture yet."""
        if self._offered or epochs < self._recipe.look_after:
            return
        self.begin()
        self._offered = True
        if self._process:
            temporary = self._weights.with_name(f"new-{self._weights.name}")
            plain.save_weights(temporary)
            temporary.replace(self._weights)

    def draw(self, network):
        """Draws ponder cost maps of scenes that are not for training."""
        _draw(self._recipe, network, self._output / MAPS)
        self._say(f"\nPonder cost maps so far: {self._output / MAPS}\n")

    def close(self):
        """Waits for the first picture."""
        if self._process:
            self._process.join()
            if self._process.exitcode:
                log = self._output / "training" / _LOG
                self._say(f"\nThe first picture failed; see {log}\n")


def _draw(recipe, network, path):
    scenes = digit_scenes.dataset(
        "validation", _SHOWN, num_scenes=_SHOWN, size=recipe.size
    )
    images, _ = next(iter(scenes))
    figure = visualization.ponder_cost_maps(images, network.introspect(images))
    temporary = path.with_name(f".{path.name}")
    visualization.save(figure, temporary)
    temporary.replace(path)


def _look(recipe, output, weights):
    """What the second process does."""
    end_with_parent()
    log = output / "training" / _LOG
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    with log.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    tf.get_logger().setLevel("ERROR")
    share_accelerators()
    # The training beside has the rest.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    trainer = Trainer(recipe, output, sys.stdout.write)
    plain = trainer.network("none", recipe.units)
    network = trainer.network("sact", recipe.units)
    compile_network(network, recipe.second_rate, recipe.look_steps)
    scenes = trainer.scenes(recipe.first_phases[-1][0], _PHASE, 0)
    # A step, so that everything is traced, is taken back.
    fresh = network.get_weights()
    network.fit(scenes, steps_per_epoch=1, verbose=0)
    network.set_weights(fresh)
    for variable in network.optimizer.variables:
        variable.assign(tf.zeros_like(variable))
    while not weights.exists():
        time.sleep(0.1)
    plain.load_weights(weights)
    initialize_from(network, plain)
    network.fit(scenes, steps_per_epoch=recipe.look_steps, verbose=2)
    _draw(recipe, network, output / PICTURE)
    weights.unlink()
    terminal.write(
        f"\nA first look at where SACT computes, after {recipe.look_steps} steps: "
        f"{output / PICTURE}\n"
    )
    terminal.flush()
