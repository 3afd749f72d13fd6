import json

import pytest

from sact_tf.cli import benchmark, benchmark_detector
from tests.tools.calling import call


@pytest.fixture
def measures(monkeypatch, capsys):
    monkeypatch.setitem(benchmark.SIZES, "224", (64, 96))
    small = {"base_channels": 4, "root_channels": 4}
    monkeypatch.setattr(benchmark_detector, "NETWORK", small)

    def run(*arguments):
        flags = ("--image_size", "224", "--num_proposals", 8, "--turns", 1)
        return call(monkeypatch, capsys, benchmark_detector, *arguments, *flags)

    return run


def test_detectors_and_their_parts(measures):
    flags = ("--depth", 50, "--stopping", 1.0, "--json")
    code, out, err = measures("detector", *flags)
    assert code == 0, err
    result = json.loads(out)
    plain, sact = result["rows"]
    assert [row["what"] for row in (plain, sact)] == [
        "plain",
        "SACT, 100% of regions stop",
    ]
    assert plain["share_of_time"] == plain["share_of_flops"] == 1
    assert result["peak_memory_gib"] > 0
    for row in (plain, sact):
        assert tuple(row["parts"]) == benchmark_detector.PARTS
        assert min(row["parts"].values()) > 0 and row["milliseconds"] > 0
    # One unit of three, and the units of the operating point.
    assert sact["head_flops"] < 0.6 * plain["head_flops"]
    assert sact["extractor_flops"] < 0.9 * plain["extractor_flops"]


def test_ways_to_crop(measures):
    code, out, err = measures("crops", "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert len(rows) == len(benchmark_detector.CHUNKS) + 1
    assert all(row["largest_difference"] < 1e-5 for row in rows)
    assert rows[-1]["what"] == "one call" and rows[-1]["of_one_call"] == 1


def test_bad_flags(measures):
    code, _, err = measures("detector", "--stopping", 1.5)
    assert code == 2 and "--stopping must be shares" in err
