"""The demo's networks: made, and trained in stages that are kept on disk."""

import functools

import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf import training
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.cli.demo.recipe import FIRST, place
from sact_tf.data import digit_scenes


class Trainer:
    """Makes the networks and trains them in stages that are kept on disk."""

    def __init__(self, recipe, output, say, callbacks=(), look=None):
        """Creates it.

        Args:
          recipe: what to train.
          output: the demo's folder.
          say: takes text for people.
          callbacks: for every training.
          look: has `begin()`, called before the first stage; `offer(model, epochs)`,
            after each epoch of it; `draw(model)`, after each of an adaptive network.
        """
        self._recipe, self._output, self._say = recipe, output, say
        self._callbacks, self._look = callbacks, look
        self._first = None
        self._validation = digit_scenes.dataset(
            "validation",
            50,
            num_scenes=min(200, recipe.validation_scenes),
            size=recipe.size,
        ).cache()
        self._shown = next(iter(self._validation))[0][:4]

    def first(self):
        """The plain network that all others start from."""
        if self._first is None:
            recipe = self._recipe
            self._first = self.network("none", recipe.units)
            self._first.begin_as_identity()
            if self._look is not None:
                self._look.begin()
            self._train(self._first, FIRST, recipe.first_phases, recipe.first_rate)
        return self._first

    def second(self, name, adaptivity, units=None):
        """A network trained from the weights of the first one."""
        recipe = self._recipe
        model = self.network(adaptivity, units or recipe.units)
        initialize_from(model, self.first())
        self._train(model, name, recipe.second_phases, recipe.second_rate)
        return model

    def network(self, adaptivity, units):
        """A network with fresh weights: the same ones each time."""
        recipe = self._recipe
        tf_keras.utils.set_random_seed(recipe.seed)
        return sact_tf.ResNet(
            units=units,
            adaptivity=adaptivity,
            num_classes=digit_scenes.NUM_CLASSES,
            base_channels=recipe.base_channels,
            root_channels=recipe.root_channels,
            tau=recipe.tau,
            # Statistics of a few hundred steps, not of the many that ImageNet takes.
            batch_norm_momentum=0.97,
        )

    def _train(self, model, name, phases, rate):
        recipe = self._recipe
        epochs = sum(epochs for _, epochs in phases)
        compile_network(model, rate, epochs * recipe.steps_per_epoch)
        for number, (size, epochs) in enumerate(phases):
            self._say(f"\n{name}: {epochs} epochs on scenes of {size} x {size}\n")
            directory = place(self._output, name, number, size)
            logs = str(directory / "logs")
            callbacks = [
                tf_keras.callbacks.TensorBoard(logs, write_graph=False),
                *self._callbacks,
            ]
            watched = model.adaptivity != "none" and size == recipe.size
            if watched:
                callbacks.append(training.PonderCostMaps(self._shown, logs))
            callbacks += self._looking(model)
            training.fit(
                model,
                functools.partial(self.scenes, size, number),
                epochs=epochs,
                steps_per_epoch=recipe.steps_per_epoch,
                directory=directory,
                validation_data=self._validation if watched else None,
                callbacks=callbacks,
            )

    def _looking(self, model):
        """What draws pictures meanwhile."""
        look = self._look
        if look is None:
            return []

        def after(epoch, logs):
            if model is self._first:
                look.offer(model, epoch + 1)
            elif model.adaptivity != "none":
                look.draw(model)

        return [tf_keras.callbacks.LambdaCallback(on_epoch_end=after)]

    def scenes(self, size, phase, step):
        """Batches of a phase, from a step on."""
        recipe = self._recipe
        # No scene is seen twice: phases and sizes begin far from each other.
        first = (phase * 1000 + size) * 10**6
        scenes = digit_scenes.dataset(
            "train",
            recipe.batch_size,
            start=first + step * recipe.batch_size,
            seed=recipe.seed,
            size=size,
        )
        return scenes.map(lambda images, labels: (_of_any_size(images), labels))


def _of_any_size(images):
    """The images, but nobody knows their size: networks are traced once for all."""
    return tf.compat.v1.placeholder_with_default(images, [None, None, None, 3])


def compile_network(model, rate, steps):
    """Compiles a network for so many steps, in which the rate falls to zero."""
    model.compile(
        # In so few steps Adam comes much further than SGD.
        tf_keras.optimizers.Adam(
            tf_keras.optimizers.schedules.CosineDecay(rate, steps), global_clipnorm=5.0
        ),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
    )
