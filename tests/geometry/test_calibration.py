import json

import pytest
import tensorflow as tf

import sact_tf
from sact_tf.geometry import calibration
from sact_tf.geometry.calibration import Calibration
from sact_tf.layers import adaptive_blocks
from sact_tf.models.backbone import record_beside
from sact_tf.models.blocks import make_block
from sact_tf.models.config import BackboneConfig


def packing_cost(*arguments, **options):
    known = calibration.resolved(None) or Calibration()
    return known.packing_cost(*arguments, **options)


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
    assert not cost._replace(per_row=0.0).pays(units=2, rows=None)
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
        {"device": "abacus"},
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


def test_a_network_keeps_what_it_was_built_with(caplog):
    """Its config says it, not the file of whatever machine it is loaded on."""
    network = tiny_network()
    assert "calibration" not in network.get_config()
    calibration.save(Calibration({64: 0.5}))
    calibrated = tiny_network()
    assert f"calibration in {calibration.path()} (measured on a CPU)" in caplog.text
    config = json.loads(json.dumps(calibrated.get_config()))
    assert config["calibration"]["thresholds"] == {"64": 0.5}
    calibration.save(Calibration({64: 0.25}))
    loaded = sact_tf.ResNet.from_config(config)
    assert loaded.config.calibration == Calibration({64: 0.5})
    given = tiny_network(calibration=Calibration({64: 0.75}))
    assert given.config.calibration.thresholds == {64: 0.75}
    with pytest.raises(ValueError, match=r"calibration=\{'seconds': 1\} must hold"):
        tiny_network(calibration={"seconds": 1})


def test_it_is_recorded_beside_an_export(tmp_path):
    network = tiny_network(calibration=Calibration({64: 0.5}))
    record_beside(tmp_path, network.get_config())
    record = json.loads((tmp_path / "assets.extra/network.json").read_text())
    assert record["calibration"]["thresholds"] == {"64": 0.5}
    assert sact_tf.ResNet.from_config(record).get_config() == record


def test_a_gpu_packs_only_by_what_was_measured_on_one(monkeypatch):
    monkeypatch.setattr(adaptive_blocks, "gpu_is_visible", lambda: True)
    features = tf.zeros([1, 90, 90, 256])
    for device, packs in (("CPU", False), ("GPU", True)):
        known = Calibration({64: 0.9}, device=device)
        config = BackboneConfig(units=(9, 1, 1, 1), calibration=known)
        packing = make_block(config, 0)._packing(features, training=False)
        assert (packing is not adaptive_blocks._NEVER) == packs


def tiny_network(**options):
    return sact_tf.ResNet(units=(2, 1, 1, 1), base_channels=2, num_classes=2, **options)
