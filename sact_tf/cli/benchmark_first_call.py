"""Seconds until something happens for the first time: what a user waits for.

  network   ResNet-101, 10 classes, two images of 224 x 224: tf_keras' ResNet101V2 as
            the peer, plain, SACT dense and auto
  detector  Faster R-CNN with ResNet-101 (the Model Garden's experiments for COCO), one
            image of 600 x 848: plain, SACT dense and auto

Every kind runs in a process of its own, one after the other. Compare kinds within one
run only, and on a machine that does nothing else. Weights are random: how many
positions halt is not what is measured here.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tqdm import tqdm

from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser, add_units
from sact_tf.evaluation import report

KINDS = {
    "network": ("peer", "plain", "dense", "auto"),
    "detector": ("plain", "dense", "auto"),
}
_ADAPTIVITY = {"plain": "none", "dense": "sact", "auto": "sact"}
_ONE = "SACT_TF_FIRST_CALL"


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument("what", choices=list(KINDS), help="what to measure")
    parser.add_argument(
        "--kinds", nargs="+", help="only these (all), as shown above for each"
    )
    add_units(parser, "default: ResNet-101's", default=[3, 4, 23, 3])
    parser.add_argument("--base_channels", type=int, help="width (64)")


def run(flags: argparse.Namespace) -> dict:
    """Measures the kinds one after the other."""
    kinds = flags.kinds or KINDS[flags.what]
    if unknown := set(kinds) - set(KINDS[flags.what]):
        raise ValueError(
            f"--kinds of {flags.what} are {', '.join(KINDS[flags.what])}. Received: "
            f"{', '.join(sorted(unknown))}"
        )
    units = flags.units
    if isinstance(units, int) or len(units) != 4 or min(units) < 1:
        raise ValueError(
            f"--units must be four numbers, as 3,4,23,3. Received: {units}"
        )
    # In a process of its own.
    if os.environ.get(_ONE):
        return _measure(flags, kinds[0])
    results = {}
    for kind in tqdm(kinds, desc=flags.what, unit="kind", dynamic_ncols=True):
        results[kind] = _in_a_process(flags, kind)
    return results


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    names = list(dict.fromkeys(name for laps in result.values() for name in laps))
    rows = [
        [name, *(_number(laps.get(name)) for laps in result.values())] for name in names
    ]
    return report.pipe_table([["", *result], *rows])


def _number(value):
    return "" if value is None else f"{value:.1f}"


def _in_a_process(flags, kind):
    command = [sys.executable, "-m", "sact_tf.cli.benchmark_first_call", flags.what]
    command += ["--kinds", kind]
    command += ["--json", "--units", *map(str, flags.units)]
    if flags.base_channels is not None:
        command += ["--base_channels", str(flags.base_channels)]
    done = subprocess.run(
        command, env={**os.environ, _ONE: "1"}, capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(f"{kind} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def _measure(flags, kind) -> dict[str, float]:
    laps = _Laps()
    with tempfile.TemporaryDirectory() as folder:
        {"network": _network, "detector": _detector}[flags.what](
            flags, kind, laps, pathlib.Path(folder)
        )
    return laps.seconds


class _Laps:
    """Times what is called, without what it prints."""

    def __init__(self):
        self.seconds = {}

    def __call__(self, name, run):
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            result = run()
        self.seconds[name] = time.perf_counter() - began
        return result


def _options(flags, kind):
    """What a network of this kind is made of."""
    return {
        "units": flags.units,
        "base_channels": flags.base_channels,
        "adaptivity": _ADAPTIVITY[kind],
        "execution": "dense" if kind == "dense" else "auto",
    }


def _network(flags, kind, laps, folder):
    import tensorflow as tf
    import tf_keras

    import sact_tf

    def make():
        if kind == "peer":
            return tf_keras.applications.ResNet101V2(
                weights=None, classes=10, classifier_activation=None
            )
        return sact_tf.ResNet(num_classes=10, **_options(flags, kind))

    images = tf.random.uniform([2, 224, 224, 3], -1, 1)
    model = laps("build", make)
    laps("first predict", lambda: model.predict(images, verbose=0))
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, ["accuracy"])
    laps("first step of fit", lambda: model.fit(images, tf.constant([1, 2]), verbose=0))
    if kind in ("dense", "auto"):
        laps("first introspect", lambda: model.introspect(images))
    laps("export", lambda: model.export(str(folder / "saved")))
    _size(laps, folder / "saved")
    loaded = laps("load SavedModel", lambda: tf.saved_model.load(str(folder / "saved")))
    laps("its first answer", lambda: loaded.serve(images))
    file = str(folder / "model.keras")
    laps("save .keras", lambda: model.save(file))
    load = sact_tf.load_model if kind != "peer" else tf_keras.models.load_model
    laps("load .keras", lambda: load(file))


def _detector(flags, kind, laps, folder):
    import tensorflow as tf
    from official.core import exp_factory, task_factory

    from sact_tf.model_garden import registry_imports  # noqa: F401
    from sact_tf.serving import detection, export

    config = exp_factory.get_exp_config("sact_fasterrcnn_coco")
    backbone = {"type": "sact_resnet", "sact_resnet": _options(flags, kind)}
    config.override({"task": {"model": {"backbone": backbone}}})
    task = task_factory.get_task(config.task)
    model = laps("build", task.build_model)
    images = tf.random.uniform([1, 600, 848, 3], -1, 1)
    laps("first detect", lambda: model.detect(images))
    servable = detection.Detector(model, config.task.model.num_classes)
    written = laps("export", lambda: export.write(servable, folder, "detector"))
    _size(laps, written.folder)
    loaded = laps("load SavedModel", lambda: tf.saved_model.load(str(written.folder)))
    pixels = tf.zeros([1, 600, 848, 3], tf.uint8)
    signature = loaded.signatures["tensors"]
    inputs = {
        name: pixels if spec.dtype == tf.uint8 else tf.zeros([1], spec.dtype)
        for name, spec in signature.structured_input_signature[1].items()
    }
    laps("its first answer", lambda: signature(**inputs))


def _size(laps, saved_model):
    size = (saved_model / "saved_model.pb").stat().st_size
    laps.seconds["saved_model.pb, MB"] = size / 1e6


COMMAND = command_line.Command(
    "benchmark_first_call", __doc__, add_flags, run, show, "print JSON"
)

if __name__ == "__main__":
    COMMAND.main()
