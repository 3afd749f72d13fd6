"""The sections of `python -m tools.gpu_check`."""

import contextlib
import dataclasses
import functools
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
import tf_keras

import sact_tf

_GOLDEN = pathlib.Path(__file__).parents[1] / "tests" / "data"
_TOLERANCE = 1e-4
_EXECUTIONS = ("auto", "dense", "positions", "tiles")


class Way(NamedTuple):
    """A network and how it is run.

    Attributes:
      network: "peer", or adaptivity, execution and precision.
      xla: whether XLA compiles it, which takes long.
      large: whether it is run on large images, too.
    """

    network: str
    xla: bool = False
    large: bool = True


@dataclasses.dataclass(frozen=True)
class Settings:
    """How large everything is."""

    units: Sequence[int] = (3, 4, 23, 3)
    base_channels: int = 64
    size: tuple[int, int] = (224, 224)
    #: The most telling first: time may run out.
    batches: Sequence[int] = (32, 8, 1)
    large: tuple[tuple[int, int], int] = ((600, 848), 8)
    peer: Callable[..., tf_keras.Model] = tf_keras.applications.ResNet101V2
    training_units: Sequence[int] = (3, 4, 6, 3)
    training_batch: int = 32
    cifar_units: Sequence[int] = (5, 5, 5)
    cifar_batch: int = 128
    cifar_updates: int = 50
    #: Side of the matrices, and how many products follow one another.
    product: int = 8192
    products: int = 8
    #: Numbers in the vector that is copied.
    copied: int = 2**28
    golden: Sequence[tuple[str, str]] = (
        *(("imagenet_tiny_sact", way) for way in _EXECUTIONS),
        *(("imagenet_tiny_act", way) for way in ("auto", "positions")),
        ("imagenet_tiny_vanilla", "auto"),
        *(("cifar_sact", way) for way in _EXECUTIONS),
        *(("cifar_act", way) for way in ("auto", "positions")),
        ("cifar_vanilla", "auto"),
    )
    #: The most telling first here, too.
    ways: Sequence[Way] = (
        Way("plain"),
        Way("SACT auto"),
        Way("SACT dense", xla=True, large=False),
        Way("plain", xla=True, large=False),
        Way("ACT positions"),
        Way("SACT dense"),
        Way("plain bfloat16"),
        Way("SACT auto bfloat16"),
        Way("peer"),
        Way("ACT auto", large=False),
        Way("peer", xla=True, large=False),
    )
    turns: int = 10


FULL = Settings()
TINY = Settings(
    units=(1, 2, 2, 1),
    base_channels=4,
    size=(32, 32),
    batches=(2,),
    large=((64, 96), 1),
    peer=functools.partial(tf_keras.applications.MobileNet, alpha=0.25),
    training_units=(1, 2, 1, 1),
    training_batch=2,
    cifar_units=(1, 2, 1),
    cifar_batch=2,
    cifar_updates=2,
    product=64,
    products=2,
    copied=2**12,
    golden=(("cifar_sact", "dense"), ("cifar_vanilla", "auto")),
    ways=(
        Way("plain"),
        Way("SACT auto"),
        Way("SACT dense", xla=True, large=False),
        Way("ACT positions", large=False),
        Way("plain bfloat16", large=False),
        Way("peer", large=False),
    ),
    turns=2,
)


class Result(NamedTuple):
    """One line of the table.

    Attributes:
      section: it belongs to.
      what: was measured.
      value: of it.
      unit: of the value.
      details: whatever else is known.
    """

    section: str
    what: str
    value: float
    unit: str
    details: dict


class Case(NamedTuple):
    """Something to be timed.

    Attributes:
      name: of the result.
      make: gives a function without arguments that runs it and returns one number.
      images: in one update.
      updates: in one call.
      details: of the result.
    """

    name: str
    make: Callable[[], Callable[[], tf.Tensor]]
    images: int = 0
    updates: int = 1
    details: dict = {}  # noqa: RUF012 (never changed)


class Check(Protocol):
    """What a section needs of the run that it is part of."""

    settings: Settings
    results: list[Result]

    def add(self, what: str, value: float, unit: str, **details) -> None:
        """Keeps a result."""

    def skip(self, what: str = "", why: str = "no time left") -> None:
        """Names what was not run."""

    def say(self, text: str) -> None:
        """Shows progress."""

    def guarded(self, what: str = "") -> contextlib.AbstractContextManager:
        """A context in which what goes wrong becomes a line."""

    def seconds_left(self) -> float:
        """Of the section's time."""

    def compare(
        self, cases: Sequence[Case], seconds: float | None = None
    ) -> dict[str, float]:
        """Milliseconds of cases that take turns."""


def describe_device() -> str:
    """Name of the GPU, or that there is none, and versions."""
    gpus = tf.config.list_physical_devices("GPU")
    name = "no GPU: everything ran on the CPU"
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        name = details.get("device_name", "unknown GPU")
        if len(gpus) > 1:
            name += f" (the first of {len(gpus)})"
    return f"{name}, TensorFlow {tf.__version__}"


# --- The device ---------------------------------------------------------------------


def device(check: Check) -> None:
    """Rates of large products and of a large copy."""
    size, count = check.settings.product, check.settings.products
    flops = 2.0 * count * size**3

    def product(dtype):
        # Not larger from product to product.
        matrix = tf.cast(tf.random.normal([size, size]) / math.sqrt(size), dtype)

        @tf.function(autograph=False)
        def run(matrix):
            other = matrix
            for _ in range(count):
                other = tf.matmul(matrix, other)
            return other[0, 0]

        return functools.partial(run, matrix)

    def copy():
        values = tf.random.normal([check.settings.copied])

        # Not a constant, several of which the graph optimiser would make one.
        factor = tf.constant(1.0)

        @tf.function(autograph=False)
        def run(values, factor):
            for _ in range(count):
                values = values * factor
            return values[0]

        return functools.partial(run, values, factor)

    products = ["float32", "bfloat16"]
    cases = [
        Case(f"product {name}", functools.partial(product, name)) for name in products
    ]
    times = check.compare([*cases, Case("copy", copy)])
    with _tf32(False):
        times |= check.compare(
            [
                Case(
                    "product float32 without TF32",
                    functools.partial(product, "float32"),
                )
            ]
        )
    for name, milliseconds in times.items():
        if name == "copy":
            moved = 8.0 * count * check.settings.copied
            check.add("rate of copy", moved / milliseconds / 1e6, "GB/s")
        else:
            check.add(f"rate of {name}", flops / milliseconds / 1e9, "TFLOP/s")


@contextlib.contextmanager
def _tf32(enabled):
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(enabled)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


# --- The authors' numbers -----------------------------------------------------------


def golden(check: Check) -> None:
    """Largest differences from samples of the authors' outputs, without TF32."""
    if not _GOLDEN.is_dir():
        check.skip(why=f"{_GOLDEN} is not here: run it in a checkout")
        return
    with _tf32(False):
        for spec, execution in check.settings.golden:
            name = f"{spec} {execution}"
            if check.seconds_left() < 0:
                check.skip(name)
                continue
            check.say(f"golden: {name}")
            with check.guarded(name):
                _compare_with_authors(check, name, spec, execution)


def _compare_with_authors(check, name, spec, execution):
    network, _, kind = spec.rpartition("_")
    structure = {"family": "cifar", "units": (3, 3, 3), "num_classes": 10}
    if network != "cifar":
        structure = {"units": (2, 3, 4, 2), "num_classes": 11, "base_channels": 8}
    adaptivity = "none" if kind == "vanilla" else kind
    model = sact_tf.ResNet(adaptivity=adaptivity, execution=execution, **structure)
    sact_tf.load_authors_checkpoint(model, _GOLDEN / spec / "model.ckpt")
    expected = dict(np.load(_GOLDEN / spec / "golden.npz"))
    record = model.introspect(expected["images"])
    off = _difference(expected, "logits", record["logits"])
    flops = expected["flops"]
    # The authors' SACT FLOPs are [B, B] with equal columns.
    flops = flops[:, 0] if flops.ndim == 2 else flops
    equal = np.array_equal(record["flops"], flops)
    for index, block in enumerate(record["blocks"]):
        prefix = f"block{'_' if network == 'cifar' else ''}{index + 1}"
        off = max(off, _difference(expected, f"{prefix}/output", block["output"]))
        if adaptivity != "none":
            units = _difference(expected, f"{prefix}/num_units", block["num_units"])
            equal = equal and units == 0
    details = {"same_units": bool(equal), "equal": bool(equal and off <= _TOLERANCE)}
    check.add(name, off, "off at most", **details)


def _difference(expected, key, actual):
    """Of an array, or of the sample of it that there is; see make_golden_samples."""
    actual = np.asarray(actual)
    if key in expected:
        return float(np.abs(actual - expected[key]).max())
    sample = expected[f"sample/{key}"]
    index = np.unique(np.linspace(0, actual.size - 1, sample.size).astype(int))
    return float(np.abs(actual.ravel()[index] - sample).max())


# --- Inference ----------------------------------------------------------------------


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
        network = name.replace(" bfloat16", ", bfloat16") + ", XLA" * xla
        cases.append(
            Case(
                f"{network}, {size[0]} x {size[1]}, batch {batch}",
                functools.partial(_inference, settings, models, name, images, xla),
                batch,
                details={
                    "network": network,
                    "size": f"{size[0]}x{size[1]}",
                    "batch": batch,
                },
            )
        )
    return cases


def _inference(settings, models, name, images, xla):
    size = tuple(images.shape[1:])
    key = (name, size if name == "peer" else None)
    if key not in models:
        if name == "peer":
            models[key] = settings.peer(weights=None, input_shape=size)
        else:
            models[key] = _network(settings, name)
    model = models[key]
    options = {}
    if "ACT" in name:
        options["halting_bias"] = _spread(images.shape[0], max(settings.units))

    @tf.function(autograph=False, jit_compile=xla)
    def run(images):
        return tf.reduce_sum(model(images, training=False, **options))

    return functools.partial(run, images)


def _network(settings, name):
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


# --- Training -----------------------------------------------------------------------


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
        run = tf.function(_update(model), autograph=False)
        return functools.partial(run, images, labels)

    cases = [
        Case(
            f"{kind}, {'frozen' if frozen else 'live'}, {precision}",
            functools.partial(step, kind, frozen, precision),
            batch,
        )
        for frozen in (False, True)
        for precision in ("float32", "mixed_bfloat16")
        for kind in ("SACT", "plain")
    ]
    check.compare(cases)


def _update(model, rate=1e-4):
    """One step of SGD with momentum as a function of images and labels: the loss."""
    # Its own compiler would compile the update of every variable by itself.
    optimizer = tf_keras.optimizers.SGD(rate, momentum=0.9, jit_compile=False)
    # All variables are made now: loops and XLA can make none.
    optimizer.build(model.trainable_variables)
    cross_entropy = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def update(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = cross_entropy(labels, logits) + tf.add_n(model.losses)
        optimizer.minimize(loss, model.trainable_variables, tape=tape)
        return loss

    return update


def cifar(check: Check) -> None:
    """An update of a CIFAR network: the step compiled by XLA, many steps in a call."""
    settings = check.settings
    batch, count = settings.cifar_batch, settings.cifar_updates
    images = tf.random.normal([batch, 32, 32, 3])
    labels = tf.random.uniform([batch], 0, 10, tf.int32)

    def updates(adaptivity, xla, count):
        model = sact_tf.ResNet("cifar", settings.cifar_units, adaptivity, 10)
        step = tf.function(_update(model), autograph=False, jit_compile=xla)
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

    cases = [
        ("SACT, XLA", "sact", True, count),
        ("plain, XLA", "none", True, count),
        ("SACT", "sact", False, count),
        ("SACT, XLA", "sact", True, 1),
    ]
    check.compare(
        [
            Case(
                f"{name}, {steps} updates a call",
                functools.partial(updates, adaptivity, xla, steps),
                batch,
                steps,
            )
            for name, adaptivity, xla, steps in cases
        ]
    )


# --- The profile --------------------------------------------------------------------


def busy(check: Check) -> None:
    """Share of the time in which the GPU computes, from TensorFlow's profiler."""
    if not tf.config.list_physical_devices("GPU"):
        check.skip(why="no GPU")
        return
    settings, models = check.settings, {}
    for name in ("plain", "SACT auto"):
        for batch in settings.batches:
            what = f"{name}, batch {batch}"
            if check.seconds_left() < 0:
                check.skip(what)
                continue
            check.say(f"busy: {what}")
            with check.guarded(what):
                images = tf.random.uniform([batch, *settings.size, 3], -1, 1)
                call = _inference(settings, models, name, images, xla=False)
                for _ in range(2):
                    call().numpy()
                check.add(what, 100 * _profiled(call, settings.turns), "%")


def _profiled(call, turns):
    # Not in every TensorFlow at the same place.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        try:
            for _ in range(turns):
                call().numpy()
        finally:
            tf.profiler.experimental.stop()
        planes = []
        for path in pathlib.Path(folder).rglob("*.xplane.pb"):
            space = xplane_pb2.XSpace()
            space.ParseFromString(path.read_bytes())
            planes += [plane for plane in space.planes if "GPU:0" in plane.name]
    spans = [
        (1000 * line.timestamp_ns + event.offset_ps, event.duration_ps)
        for plane in planes
        for line in plane.lines
        if line.name.startswith("Stream")
        for event in line.events
    ]
    if not spans:
        raise RuntimeError("the profiler saw no kernels")
    return covered((start, start + length) for start, length in spans)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Share of the time from the first start to the last end that intervals cover."""
    intervals = sorted(intervals)
    total, end = 0.0, intervals[0][0]
    for start, stop in intervals:
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total / max(end - intervals[0][0], 1e-9)
