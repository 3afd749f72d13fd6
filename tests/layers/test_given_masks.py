"""Units under a given mask, on whatever they run."""

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import Packed
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.calibration import Calibration, PackingCost
from sact_tf.geometry.grid import Grid
from sact_tf.layers import given_masks
from sact_tf.layers.series import Series
from tests.geometry.test_packed import CHANNELS, UNITS, always_winograd

__all__ = ["always_winograd"]

WAYS = {
    "packed": ({}, None),
    "packed because it pays": ({}, PackingCost(1.0, 0.1, 1.0)),
    "not packed": ({}, PackingCost(1e9, 0.0, 1.0)),
    "Winograd": ({"winograd": True}, None),
    "tiles": ({"side": 2}, None),
}


@pytest.mark.parametrize("kind", ["some", "all", "none"])
@pytest.mark.parametrize("way", WAYS)
def test_loops_are_units_written_out(always_winograd, monkeypatch, way, kind):
    rng = np.random.default_rng(0)
    layers = [UNITS["bottleneck"](f"unit{index}") for index in range(3)]
    for layer in layers:
        layer.preact.beta.assign(rng.normal(size=layer.preact.beta.shape))
    features = tf.constant(rng.normal(size=(2, 7, 9, CHANNELS)).astype("f"))
    valid = np.ones([2, 7, 9], bool)
    valid[1, 5:] = False
    share = {"some": 0.2, "all": 2.0, "none": 0.0}[kind]
    mask = tf.constant(valid & (rng.uniform(size=valid.shape) < share))
    units = Series([layer.branch() for layer in layers])
    packed, original = [], Packed.from_map

    def from_map(*arguments):
        packed.append(True)
        return original(*arguments)

    monkeypatch.setattr(Packed, "from_map", from_map)
    options, packing = WAYS[way]
    layout = Layout(Grid.of(features), 1, valid=tf.constant(valid), **options)
    expected = given_masks.masked(features, units, mask, layout.valid)
    actual = given_masks.loop_over_units(features, layout, units, mask, packing)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-5)
    if kind == "none":
        np.testing.assert_array_equal(actual, tf.where(valid[..., None], features, 0))
    if kind != "all":
        assert bool(packed) == (kind == "some" and way != "not packed")


def test_where_packing_can_pay_for_a_mask():
    """From fewer units on than where it is not known what will halt."""
    known = Calibration()
    wide = known.packing_cost(1, 64, 256, 2 * 64 * (256 * 2 + 9 * 64))
    assert wide.pays_with_mask(2, 150 * 212) and not wide.pays(2, 150 * 212)
    narrow = known.packing_cost(2, 16, 16, 2 * 2 * 9 * 16 * 16)
    assert not narrow.pays_with_mask(17, 32 * 32)
