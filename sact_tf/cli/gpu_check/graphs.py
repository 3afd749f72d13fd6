"""How many operations graphs have on a GPU, and how often the host waits for it.

Counted from TensorFlow's kernel registry, without running anything: the numbers are
those of a GPU on every machine. The optimiser has not yet been at the graphs; loops are
counted once.
"""

import tensorflow as tf

from sact_tf.cli.gpu_check import networks, training
from sact_tf.cli.gpu_check.placement import placement
from sact_tf.cli.gpu_check.settings import Check
from sact_tf.geometry.control_flow import for_gpu


def graphs(check: Check) -> None:
    """Networks at inference, and an update of the CIFAR network."""
    settings = check.settings
    batch = settings.batches[0]
    images = tf.TensorSpec([batch, *settings.size, 3])
    for name in settings.graphs:
        if check.seconds_left() < 0:
            check.skip(name)
            continue
        check.say(f"graphs: {name}")
        with check.guarded(name), for_gpu():
            model = networks.network(settings, name)

            def run(images, model=model):
                return model(images, training=False)

            _count(check, name, run, images)
    images = tf.TensorSpec([settings.cifar_batch, 32, 32, 3])
    labels = tf.TensorSpec([settings.cifar_batch], tf.int64)
    for kind in ("plain", "SACT"):
        name = f"update of CIFAR, {kind}"
        if check.seconds_left() < 0:
            check.skip(name)
            continue
        check.say(f"graphs: {name}")
        with check.guarded(name), for_gpu():
            model = training.cifar_network(settings, kind)
            _count(check, name, training.update(model), images, labels)


def _count(check, name, run, *signature):
    graph = tf.function(run, autograph=False).get_concrete_function(*signature)
    found = placement(graph)
    check.add(
        name,
        float(len(found.kernels)),
        "operations",
        on_host=len(found.on_host),
        host_waits=len(found.transfers),
    )
