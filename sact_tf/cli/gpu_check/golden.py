"""The authors' numbers."""

import pathlib

import numpy as np

import sact_tf
from sact_tf.cli.gpu_check.device import tf32
from sact_tf.cli.gpu_check.settings import Check

_GOLDEN = pathlib.Path(__file__).parents[3] / "tests" / "data"
_TOLERANCE = 1e-4


def golden(check: Check) -> None:
    """Largest differences from samples of the authors' outputs, without TF32."""
    if not _GOLDEN.is_dir():
        check.skip(why=f"{_GOLDEN} is not here: run it in a checkout")
        return
    with tf32(False):
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
    off = [_difference(expected, "logits", record["logits"])]
    flops = expected["flops"]
    # The authors' SACT FLOPs are [B, B] with equal columns.
    flops = flops[:, 0] if flops.ndim == 2 else flops
    equal = np.array_equal(record["flops"], flops)
    for index, block in enumerate(record["blocks"]):
        prefix = f"block{'_' if network == 'cifar' else ''}{index + 1}"
        off.append(_difference(expected, f"{prefix}/output", block["output"]))
        if adaptivity != "none":
            units = _difference(expected, f"{prefix}/num_units", block["num_units"])
            equal = equal and units == 0
    off = np.max(off)  # NaN if anything is.
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
