"""Outputs of the authors' implementation, whole where they are, else sampled."""

import pathlib

import numpy as np
import pytest

import sact_tf
from tests import make_golden_samples

SPECS = make_golden_samples.SPECS
SAMPLES = pathlib.Path(__file__).parent / "data"
WHOLE = pathlib.Path(__file__).parents[2] / "shared" / "golden"

needs_whole = pytest.mark.skipif(
    not WHOLE.is_dir(), reason="the whole golden data (../shared/golden) is not here"
)


class Golden:
    """The expected values of one file; compares what is asked for.

    With the copy in the repository, and with the whole data where they are: one
    computation serves for both.
    """

    def __init__(self, spec, name):
        paths = [folder / spec / name for folder in (SAMPLES, WHOLE)]
        self._files = [dict(np.load(path)) for path in paths if path.is_file()]

    def __getitem__(self, key):
        first, *others = (values[key] for values in self._files)
        for other in others:
            np.testing.assert_array_equal(first, other)
        return first

    def keys(self, prefix):
        """All keys below a prefix, sampled or not."""
        names = {key.removeprefix("sample/") for file in self._files for key in file}
        return sorted(name for name in names if name.startswith(prefix))

    def largest(self, key):
        """The largest magnitude among the expected values."""
        return max(
            values[f"max/{key}"]
            if f"max/{key}" in values
            else np.abs(values[key]).max()
            for values in self._files
        )

    def close(self, key, actual, tolerance):
        """Asserts that no entry is further away than the tolerance."""
        actual = np.asarray(actual)
        for values in self._files:
            found = actual
            if key in values:
                expected = values[key]
            else:
                assert tuple(values[f"shape/{key}"]) == actual.shape, key
                expected = values[f"sample/{key}"]
                found = make_golden_samples.sample(actual)
            assert expected.shape == found.shape, key
            error = np.abs(found - expected).max(initial=0.0)
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
