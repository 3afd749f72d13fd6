"""Outputs of the authors' implementation, whole where they are, else sampled."""

import pathlib

import numpy as np
import pytest

import sact_tf
from tests.make_golden_samples import SPECS, sample

SAMPLES = pathlib.Path(__file__).parent / "data"
WHOLE = pathlib.Path(__file__).parents[2] / "shared" / "golden"

needs_whole = pytest.mark.skipif(
    not WHOLE.is_dir(), reason="the whole golden data (../shared/golden) is not here"
)
#: (folder, spec) for the copies in the repository and for the whole data.
EVERYWHERE = [
    *(pytest.param(SAMPLES, spec, id=f"samples-{spec}") for spec in SPECS),
    *(
        pytest.param(WHOLE, spec, id=f"whole-{spec}", marks=needs_whole)
        for spec in SPECS
    ),
]


class Golden:
    """The expected values of one file; compares what is asked for."""

    def __init__(self, path):
        self._values = dict(np.load(path))

    def __getitem__(self, key):
        return self._values[key]

    def __contains__(self, key):
        return key in self._values or f"sample/{key}" in self._values

    def keys(self, prefix):
        """All keys below a prefix, sampled or not."""
        names = {key.removeprefix("sample/") for key in self._values}
        return sorted(name for name in names if name.startswith(prefix))

    def largest(self, key):
        """The largest magnitude among the expected values."""
        if f"max/{key}" in self._values:
            return self._values[f"max/{key}"]
        return np.abs(self._values[key]).max()

    def close(self, key, actual, tolerance):
        """Asserts that no entry is further away than the tolerance."""
        actual = np.asarray(actual)
        if key in self._values:
            expected = self._values[key]
        else:
            assert tuple(self._values[f"shape/{key}"]) == actual.shape, key
            expected, actual = self._values[f"sample/{key}"], sample(actual)
        assert expected.shape == actual.shape, key
        error = np.abs(actual - expected).max(initial=0.0)
        assert error <= tolerance, f"{key}: off by {error}, allowed {tolerance}"


def kind_of(spec):
    kind = spec.rpartition("_")[2]
    return "none" if kind == "vanilla" else kind


def network(spec, **options):
    """A network of a golden spec's structure, with fresh weights."""
    if spec.startswith("cifar"):
        structure = {"family": "cifar", "units": (3, 3, 3), "num_classes": 10}
    else:
        structure = {
            "family": "imagenet",
            "units": (2, 3, 4, 2),
            "num_classes": 11,
            "base_channels": 8,
        }
    return sact_tf.ResNet(
        **structure, adaptivity=kind_of(spec), **{"tau": 0.01, **options}
    )


def block_name(spec, index):
    """The authors' name of a block counted from zero."""
    return f"block{'_' if spec.startswith('cifar') else ''}{index + 1}"


def column(flops):
    """The authors' SACT FLOPs are [B, B] with equal columns: [B]."""
    return flops if flops.ndim < 2 else flops[:, 0]
