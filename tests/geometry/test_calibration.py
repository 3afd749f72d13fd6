import json

import pytest

from sact_tf.geometry import calibration
from sact_tf.geometry.calibration import Calibration, packing_cost


@pytest.fixture(autouse=True)
def _own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SACT_TF_CALIBRATION", str(tmp_path / "new" / "own.json"))


def test_defaults_without_a_file():
    defaults = Calibration()
    tables = {1: defaults.thresholds, 2: defaults.basic_thresholds}
    for radius, table in tables.items():
        for width, threshold in table.items():
            slower = packing_cost(radius, width, 1, 1).slower
            assert slower == pytest.approx(1 / threshold)


def test_saved_thresholds_are_interpolated_and_end_flat():
    assert calibration.save(Calibration({16: 0.25, 64: 0.75})).exists()
    for width, threshold in ((32, 0.5), (4, 0.25), (999, 0.75)):
        assert packing_cost(1, width, 1, 1).slower == pytest.approx(1 / threshold)


def test_costs_are_rows_of_a_unit():
    calibration.save(
        Calibration(flops_per_second=1e9, seconds=0.25, seconds_per_value=0.5e-3)
    )
    cost = packing_cost(1, 64, channels=256, flops_per_row=1_000_000)
    assert cost.fixed == pytest.approx(0.25e9 / 1e6)
    assert cost.per_row == pytest.approx(256 * 0.5e-3 * 1e9 / 1e6)


def test_what_pays():
    cost = calibration.PackingCost(fixed=100.0, per_row=1.0, slower=1.2)
    assert cost.pays(units=5, rows=None)
    assert not cost.pays(units=4, rows=None)
    assert cost.pays(units=5, rows=1000)
    assert not cost.pays(units=5, rows=100)
    assert not cost._replace(slower=2.5).pays(units=100, rows=None)


def test_ski_rental():
    """Packed when what ran in vain has cost as much, if the units to come repay it."""
    cost = calibration.PackingCost(fixed=100.0, per_row=0.5, slower=1.0)
    for need, idle, left, packs, after in (
        (300, 0.0, 9, False, 100.0),
        (300, 200.0, 9, True, 300.0),
        (300, 200.0, 3, False, 300.0),
        (400, 500.0, 9, False, 500.0),
    ):
        pays, idle = cost.repays(400, need, idle, left)
        assert (bool(pays), float(idle)) == (packs, after)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        {"thresholds": {}},
        {"thresholds": {"8": 2}},
        {"basic_thresholds": {"8": 0}},
        {"seconds": 0},
        {"no_such_constant": 1.0},
    ],
)
def test_a_broken_file_is_named(content):
    where = calibration.save(Calibration())
    if isinstance(content, dict):
        good = json.loads(where.read_text())
        content = json.dumps({**good, **content})
    where.write_text(content)
    with pytest.raises(ValueError, match=r"own\.json must hold a calibration"):
        packing_cost(1, 16, 1, 1)
