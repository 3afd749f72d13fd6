"""Steps of training."""

import functools

import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.cli.gpu_check.settings import Case, Check, Settings


def training(check: Check) -> None:
    """A step of ResNet-50, plain and SACT, live and frozen batch norm."""
    settings = check.settings
    batch = settings.training_batch
    images = tf.random.uniform([batch, *settings.size, 3], -1, 1)
    labels = tf.zeros([batch], tf.int32)

    def step(kind, frozen, precision):
        model = sact_tf.ResNet(
            units=settings.training_units,
            adaptivity="none" if kind == "plain" else "sact",
            base_channels=settings.base_channels,
            num_classes=10,
            freeze_batch_norm=frozen,
            dtype=precision,
        )
        run = tf.function(update(model), autograph=False)
        return functools.partial(run, images, labels)

    cases = [
        Case(
            f"{kind}, {'frozen' if frozen else 'live'}, {precision}",
            functools.partial(step, kind, frozen, precision),
            batch,
        )
        for kind, frozen, precision in settings.training
    ]
    check.compare(cases)


def update(model, rate=1e-4):
    """One step of SGD with momentum as a function of images and labels: the loss."""
    # Its own compiler would compile the update of every variable by itself.
    optimizer = tf_keras.optimizers.SGD(rate, momentum=0.9, jit_compile=False)
    # All variables are made now: loops and XLA can make none.
    optimizer.build(model.trainable_variables)
    cross_entropy = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = cross_entropy(labels, logits) + tf.add_n(model.losses)
        optimizer.minimize(loss, model.trainable_variables, tape=tape)
        return loss

    return step


def cifar_network(settings: Settings, kind: str) -> sact_tf.ResNet:
    """The CIFAR network of a kind, "plain" or "SACT"."""
    return sact_tf.ResNet(
        "cifar",
        settings.cifar_units,
        "none" if kind == "plain" else "sact",
        num_classes=10,
        base_channels=settings.cifar_channels,
    )


def cifar(check: Check) -> None:
    """An update of a CIFAR network: the step compiled by XLA, many steps in a call."""
    settings = check.settings
    batch = settings.cifar_batch
    images = tf.random.normal([batch, 32, 32, 3])
    labels = tf.random.uniform([batch], 0, 10, tf.int32)

    def updates(kind, xla, count):
        model = cifar_network(settings, kind)
        step = tf.function(update(model), autograph=False, jit_compile=xla)
        if count == 1:
            return functools.partial(step, images, labels)

        @tf.function(autograph=False)
        def run(images, labels):
            _, loss = tf.while_loop(
                lambda done, loss: done < count,
                lambda done, loss: (done + 1, step(images, labels)),
                (tf.constant(0), tf.constant(0.0)),
                parallel_iterations=1,
            )
            return loss

        return functools.partial(run, images, labels)

    check.compare(
        [
            Case(
                f"{kind}{', XLA' * xla}, {count} updates a call",
                functools.partial(updates, kind, xla, count),
                batch,
                count,
            )
            for kind, xla, count in settings.cifar
        ]
    )
