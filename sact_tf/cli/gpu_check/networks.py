"""Networks at inference."""

import functools
from collections.abc import Callable

import tensorflow as tf

import sact_tf
from sact_tf.cli.gpu_check.settings import Case, Check, Settings


def networks(check: Check) -> None:
    """ResNet-101, plain, SACT and ACT, beside a peer, at several sizes and batches."""
    settings = check.settings
    groups = [(settings.size, batch) for batch in settings.batches]
    groups.append(settings.large)
    models = {}
    for index, (size, batch) in enumerate(groups):
        if check.seconds_left() < 0:
            check.skip(f"{size[0]} x {size[1]}, batch {batch}")
            continue
        # The first one also builds the networks, and is what is chosen from.
        seconds = check.seconds_left() * (
            0.55 if not index else 1 / (len(groups) - index)
        )
        cases = _inference_cases(
            settings, models, size, batch, large=index == len(groups) - 1
        )
        with check.guarded(f"{size[0]} x {size[1]}, batch {batch}"):
            times = check.compare(cases, seconds)
            _share_of_product(check, models, size, batch, times)


def _inference_cases(settings, models, size, batch, large):
    images = tf.random.uniform([batch, *size, 3], -1, 1)
    cases = []
    for name, xla, also_large in settings.ways:
        if large and not also_large:
            continue
        title = name.replace(" bfloat16", ", bfloat16") + ", XLA" * xla
        cases.append(
            Case(
                f"{title}, {size[0]} x {size[1]}, batch {batch}",
                functools.partial(inference, settings, models, name, images, xla),
                batch,
                details={
                    "network": title,
                    "size": f"{size[0]}x{size[1]}",
                    "batch": batch,
                },
            )
        )
    return cases


def inference(
    settings: Settings, models: dict, name: str, images: tf.Tensor, xla: bool
) -> Callable[[], tf.Tensor]:
    """A network as a function that gives one number.

    Args:
      settings: how large it is.
      models: those that there are already; a new one is put there.
      name: of a Way.
      images: it runs on.
      xla: whether XLA compiles it.
    """
    size = tuple(images.shape[1:])
    key = (name, size if name == "peer" else None)
    if key not in models:
        if name == "peer":
            models[key] = settings.peer(weights=None, input_shape=size)
        else:
            models[key] = network(settings, name)
    model = models[key]
    options = {}
    if "ACT" in name:
        options["halting_bias"] = _spread(images.shape[0], max(settings.units))

    @tf.function(autograph=False, jit_compile=xla)
    def run(images):
        return tf.reduce_sum(model(images, training=False, **options))

    return functools.partial(run, images)


def network(settings: Settings, name: str) -> sact_tf.ResNet:
    """The network of a Way's name, which halts where halting_bias says."""
    adaptivity, *options = name.lower().split()
    execution = options[0] if options and options[0] != "bfloat16" else "auto"
    model = sact_tf.ResNet(
        units=settings.units,
        adaptivity="none" if adaptivity == "plain" else adaptivity,
        base_channels=settings.base_channels,
        execution=execution,
        dtype="mixed_bfloat16" if "bfloat16" in options else None,
    )
    return _with_free_halting(model)


def _with_free_halting(model):
    """Logits of zero: halting_bias alone says where it halts."""
    for block in model.blocks:
        for score in block.halting_scores:
            for variable in score.trainable_weights:
                variable.assign(tf.zeros_like(variable))
    return model


def _spread(batch, units):
    """A halting_bias for each image: they halt at units spread evenly over a block.

    A sigmoid of 1 / n at every unit halts at unit n.
    """
    share = (tf.range(batch, dtype=tf.float32) + 0.5) / batch
    return -tf.math.log(share * units)


def _share_of_product(check, models, size, batch, times):
    """What share of the rate of large products plain networks reach."""
    rates = {
        result.what.removeprefix("rate of product "): result.value
        for result in check.results
        if result.what.startswith("rate of product ")
    }
    flops = None
    for network, precision in (
        ("plain", "float32"),
        ("plain, XLA", "float32"),
        ("plain, bfloat16", "bfloat16"),
    ):
        name = f"{network}, {size[0]} x {size[1]}, batch {batch}"
        if name not in times or precision not in rates:
            continue
        if flops is None:
            images = tf.zeros([1, *size, 3])
            record = models["plain", None](images, training=False, with_record=True)
            flops = float(record["flops"][0])
        rate = batch * flops / times[name] / 1e9
        details = {"TFLOP/s": rate}
        check.add(f"{name}: of products", 100 * rate / rates[precision], "%", **details)
