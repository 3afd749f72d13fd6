import json

import pytest

from sact_tf.cli import benchmark_dense
from sact_tf.cli.benchmark import settings
from tests.tools.calling import call


@pytest.fixture
def measures(monkeypatch, capsys):
    monkeypatch.setitem(settings.SIZES, "224", (32, 64))
    return lambda *arguments: call(monkeypatch, capsys, benchmark_dense, *arguments)


def test_units_and_their_passes(measures):
    flags = ["--image_size", "224", "--turns", 1]
    code, out, _ = measures(*flags, "--json")
    assert code == 0
    rows = json.loads(out)
    assert {row["block"] for row in rows} == {1, 2, 3, 4}
    for row in rows:
        assert row["milliseconds"] > 0
        assert (row["floor"] > 0) == (row["what"] in benchmark_dense.PASSES)
        assert row["share"] == 1 or row["what"] != "plain unit"


def test_bad_flags(measures):
    code, _, err = measures("--turns", 0)
    assert code == 2 and "--turns must be at least 1" in err
