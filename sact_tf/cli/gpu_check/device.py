"""The device's own rates, and the share of the time in which it computes."""

import contextlib
import functools
import math
import pathlib
import tempfile
from collections.abc import Iterable, Iterator

import tensorflow as tf

from sact_tf.cli.gpu_check import networks
from sact_tf.cli.gpu_check.settings import Case, Check


def describe() -> str:
    """Name of the GPU, or that there is none, and versions."""
    gpus = tf.config.list_physical_devices("GPU")
    name = "no GPU: everything ran on the CPU"
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        name = details.get("device_name", "unknown GPU")
        if len(gpus) > 1:
            name += f" (the first of {len(gpus)})"
    return f"{name}, TensorFlow {tf.__version__}"


def rates(check: Check) -> None:
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

        # Not as a graph, whose optimiser may make one product of several.
        def run(values):
            for _ in range(count):
                values = values * 1.5
            return values[0]

        return functools.partial(run, values)

    products = ["float32", "bfloat16"]
    cases = [
        Case(f"product {name}", functools.partial(product, name)) for name in products
    ]
    times = check.compare([*cases, Case("copy", copy)])
    with tf32(False):
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
def tf32(enabled: bool) -> Iterator[None]:
    """Whether products of float32 may be rounded to TF32, and as before behind it."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(enabled)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


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
                call = networks.inference(settings, models, name, images, xla=False)
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
