"""ResNet-101 at the paper's operating points and under given masks; its training."""

import functools

import numpy as np
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.cli.benchmark import settings
from sact_tf.cli.benchmark.forced import force_halting, map_sizes
from sact_tf.cli.benchmark.masks import spread
from sact_tf.cli.benchmark.timing import Result, fastest, traced, waited
from sact_tf.models.backbone import Backbone
from sact_tf.models.config import BackboneConfig


def _extract(model, images, blocks):
    """Features and FLOPs after the root and some blocks."""
    record = model.run(images, num_blocks=blocks)
    return record["blocks"][-1]["output"], record["flops"]


def extractor(flags) -> list[Result]:
    """Root and first blocks of ResNet-101, plain and SACT at each operating point."""
    return _networks(flags, blocks=flags.blocks, default_size="600x848", peer=False)


def network(flags) -> list[Result]:
    """The whole ResNet-101, and its peer from tf_keras.applications."""
    return _networks(flags, blocks=4, default_size="224", peer=True)


def _networks(flags, blocks, default_size, peer):
    size = flags.image_size or default_size
    height, width = settings.SIZES[size]
    points = settings.OPERATING_POINTS.get(size, settings.DETECTION_POINTS)
    if unknown := set(flags.points or ()) - set(points):
        raise ValueError(
            f"--points for {size} are {', '.join(points)}. Received: "
            f"{', '.join(sorted(unknown))}"
        )
    points = {name: points[name] for name in flags.points or points}
    images = tf.random.uniform([flags.batch_size, height, width, 3], -1, 1)

    def network_of(adaptivity, execution="auto"):
        return sact_tf.ResNet(units=101, adaptivity=adaptivity, execution=execution)

    def function_of(model, jit):
        def features_of(images):
            if blocks == len(settings.UNITS):
                return model(images, training=False)
            return _extract(model, images, blocks)[0]

        return traced(features_of, jit)

    plain = network_of("none")
    whole = float(_flops_of(plain, images, blocks))
    functions = {"plain": function_of(plain, flags.jit)}
    shares = {"plain": 1.0}
    if peer:
        other = tf_keras.applications.ResNet101V2(
            weights=None,
            input_shape=(height, width, 3),
            include_top=True,
        )
        functions["ResNet101V2"] = traced(
            lambda images: other(images, training=False), flags.jit
        )
        shares["ResNet101V2"] = 1.0
    changes = []
    for point, means in points.items():
        for execution in ("dense", "auto"):
            model = network_of("sact", execution)
            changes.append(
                force_halting(
                    model, map_sizes(height, width), means, "blob", flags.batch_size
                )
            )
            name = f"SACT {point} {execution}"
            functions[name] = function_of(model, flags.jit and execution == "dense")
            shares[name] = float(_flops_of(model, images, blocks)) / whole
    candidates = {
        name: functools.partial(waited, function, images)
        for name, function in functions.items()
    }
    rng = np.random.default_rng(0)

    def renew():
        for change in changes:
            change(rng)

    seconds = fastest(candidates, flags.turns, size, renew if flags.new_masks else None)
    return [
        Result(
            name,
            1e3 * value,
            shares[name],
            seconds["plain"] / value,
            size,
            flops=flags.batch_size * whole * shares[name],
        )
        for name, value in seconds.items()
    ]


def given_masks(flags) -> list[Result]:
    """Root and first blocks of a plain ResNet-101 under masks of given shares."""
    height, width = settings.SIZES[flags.image_size or "600x848"]
    images = tf.random.uniform([flags.batch_size, height, width, 3], -1, 1)
    functions = {}
    for execution in ("dense", "positions", "auto"):
        config = BackboneConfig(
            units=settings.UNITS, adaptivity="none", execution=execution
        )
        model = Backbone(config, flags.blocks)

        def run(images, mask=None, model=model):
            record = model.run(images, active_mask=mask)
            return record["blocks"][-1]["output"], record["flops"]

        functions[execution] = traced(run, flags.jit and execution == "dense")
    _, whole = functions["dense"](images)
    level = spread(flags.masks, (flags.batch_size, *map_sizes(height, width)[0]))
    results = []
    for share in settings.MASK_SHARES:
        mask, flops = tf.constant(level < share), {}
        ways = {"plain": (functions["dense"], None)}
        ways.update({name: (function, mask) for name, function in functions.items()})

        def candidate(name, ways=ways, flops=flops):
            function, given = ways[name]
            output, flops[name] = function(images, given)
            return tf.reshape(output, [-1])[0].numpy()

        seconds = fastest(
            {name: functools.partial(candidate, name) for name in ways},
            flags.turns,
            f"{share:.0%} active",
        )
        for name, value in seconds.items():
            left = float(flops[name][0] / whole[0])
            speed_up, note = seconds["plain"] / value, f"{share:.0%} active"
            total = float(tf.reduce_sum(flops[name]))
            results.append(Result(name, 1e3 * value, left, speed_up, note, total))
    return results


@tf.function(autograph=False)
def _flops_of(model, images, blocks):
    if blocks == len(settings.UNITS):
        return model(images, training=False, with_record=True)["flops"][0]
    return _extract(model, images, blocks)[1][0]


def training(flags) -> list[Result]:
    """A step of SGD of ResNet-50: plain and SACT, live and frozen batch norm."""
    height, width = settings.SIZES[flags.image_size or "224"]
    images = tf.random.uniform([flags.batch_size, height, width, 3], -1, 1)
    labels = tf.zeros([flags.batch_size], tf.int32)
    models = {}
    for frozen in (False, True):
        state = "frozen" if frozen else "live"
        options = {"units": 50, "num_classes": 10, "freeze_batch_norm": frozen}
        models[f"plain, {state}"] = sact_tf.ResNet(adaptivity="none", **options)
        for execution in ("dense", "auto") if frozen else ("auto",):
            model = sact_tf.ResNet(adaptivity="sact", execution=execution, **options)
            if frozen:
                half = [(count + 1) / 2 for count in (3, 4, 6, 3)]
                force_halting(
                    model, map_sizes(height, width), half, "blob", flags.batch_size
                )
            models[f"SACT {execution}, {state}"] = model
    candidates, shares = {}, {}
    for name, model in models.items():
        model.compile(
            tf_keras.optimizers.SGD(1e-4, jit_compile=False),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=flags.jit and name != "SACT auto, frozen",
        )
        step = model.make_train_function()
        data = tf.data.Dataset.from_tensors((images, labels)).repeat()
        candidates[name] = functools.partial(_updated, step, iter(data))
        shares[name] = float(_flops_of(model, images, len(settings.UNITS)))
    seconds = fastest(candidates, flags.turns, "training step")
    return [
        Result(
            name,
            1e3 * value,
            shares[name] / shares["plain, live"],
            seconds[f"plain, {name.rpartition(', ')[2]}"] / value,
            # Gradients by features and by weights take as much each.
            flops=3 * flags.batch_size * shares[name],
        )
        for name, value in seconds.items()
    ]


def _updated(step, batches):
    # A number of the step's: it waits for the device.
    return float(step(batches)["loss"])
