import json

import pytest

from sact_tf.cli import benchmark_sampling
from tests.tools.calling import call


@pytest.fixture
def measures(monkeypatch, capsys):
    return lambda *arguments: call(monkeypatch, capsys, benchmark_sampling, *arguments)


def left_of(out):
    return {(r["where"], r["what"]): r["flops_left"] for r in json.loads(out)}


def test_networks(measures):
    flags = ["--units", "1,2,1,1", "--image_size", "64", "--turns", 1, "--json"]
    code, out, _ = measures("networks", *flags)
    left = left_of(out)
    assert code == 0 and left["network", "plain"] == 1
    assert left["network", "uniform"] < left["network", "adaptive"] < 1


def test_units_and_masks(measures):
    for what, count in (("units", 3), ("masks", 4)):
        code, out, _ = measures(what, "--image_size", "32x64", "--turns", 1, "--json")
        left = left_of(out)
        assert code == 0
        assert len({where for where, _ in left}) == count
        for (where, name), share in left.items():
            if name == "plain":
                assert share == 1
            # Of a map of two positions a mask may be all, and costs a little itself.
            elif share is not None:
                assert share < (1.05 if where.endswith("1 x 2") else 1)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--turns", 0], "--turns must be at least 1"),
        (["--density", "1"], "--density must be in"),
        (["--image_size", "big"], "--image_size must be a side"),
    ],
)
def test_bad_flags(measures, flags, message):
    code, _, err = measures("units", *flags)
    assert code == 2 and message in err
