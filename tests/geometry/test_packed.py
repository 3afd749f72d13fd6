"""The sparse geometries give the numbers of the dense one, whatever the mask."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import Dense, Images, Packed, packed
from sact_tf.geometry.calibration import PackingCost
from sact_tf.layers.residual_units import BasicUnit, BottleneckUnit

NORM = {"momentum": 0.9, "epsilon": 1e-3}
CHANNELS = 8
UNITS = {
    "bottleneck": lambda name: BottleneckUnit(
        CHANNELS, CHANNELS // 4, batch_norm=NORM, name=name
    ),
    "basic": lambda name: BasicUnit(CHANNELS, CHANNELS, batch_norm=NORM, name=name),
}
PACKED = {
    "positions": {},
    "positions, packed late": {"packing": PackingCost(20.0, 0.5, 1.1)},
    "hardly packed": {"packing": PackingCost(1e9, 0.0, 1.1)},
    "Winograd": {"winograd": True},
    "Winograd, packed late": {
        "winograd": True,
        "packing": PackingCost(20.0, 0.5, 1.1),
    },
    "tiles of 2": {"side": 2},
    "tiles of 5": {"side": 5},
    "tiles of 16": {"side": 16},
}


@pytest.fixture
def always_winograd(monkeypatch):
    """However few rows there are."""
    monkeypatch.setattr(packed, "WINOGRAD_FIXED", -1e9)


def shrinking(shape, kind, seed=0):
    """Three masks, each inside the one before."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(size=shape)
    if kind == "blob":
        rows, columns = np.mgrid[: shape[1], : shape[2]]
        level = level * 0.1 + np.hypot(rows - 2, columns - 3) / 8
    shares = {"all": (2, 2, 2), "none": (0, 0, 0), "some": (0.7, 0.7, 0.2)}
    if kind == "corner":
        level = np.ones(shape)
        level[0, -1, -1] = 0
    return [level < share for share in shares.get(kind, (0.8, 0.4, 0.1))]


def run(geometry, units, masks, weights):
    """What a block does, with its halting decisions given."""
    scores = []
    for index, unit in enumerate(units):
        if index:
            geometry.halt(
                tf.constant(masks[index - 1]),
                None if weights is None else tf.constant(weights[index]),
                left=len(units) - index,
            )
            geometry.add(functools.partial(unit.residual, geometry))
        active = masks[index - 1] if index else np.ones_like(masks[0])
        rng = np.random.default_rng(index)
        kernel = tf.constant(rng.normal(size=(10, CHANNELS)).astype("f"))
        offset = tf.constant(rng.normal(size=10).astype("f"))
        score = geometry.unless_empty(
            functools.partial(geometry.linear_score, kernel, offset),
            functools.partial(tf.zeros, geometry.decisions_shape),
        )
        # What a score says of halted positions means nothing.
        if index < len(units) - 1:
            scores.append(tf.where(active, score, 0.0))
            scores.append(geometry.global_mean())
    return [geometry.leave(), *scores]


class Case:
    """Units, masks, weights and features that are the same for all geometries."""

    def __init__(self, unit, shape, kind):
        self.units = [UNITS[unit](f"unit{index}") for index in range(4)]
        rng = np.random.default_rng(1)
        for layer in self.units:
            for norm in (layer.preact, layer.conv1_norm):
                norm.beta.assign(rng.normal(size=norm.beta.shape))
                norm.moving_mean.assign(rng.normal(size=norm.beta.shape))
        self.masks = shrinking(shape, kind)
        self.weights = rng.uniform(size=(4, *shape)).astype("f")
        # Nothing is left where a position has halted.
        for index in range(1, 4):
            self.weights[index] *= self.masks[index - 1]
        self.features = tf.constant(rng.normal(size=(*shape, CHANNELS)).astype("f"))

    def run(self, maps, geometry, options):
        if geometry is Packed:
            options = {"radius": self.units[0].radius, **options}
        return run(geometry(maps, **options), self.units, self.masks, self.weights)


@pytest.mark.parametrize("options", PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "shape, kind",
    [
        ((2, 9, 7), "scattered"),
        ((1, 10, 12), "blob"),
        ((3, 1, 1), "scattered"),
        ((2, 5, 6), "all"),
        ((2, 5, 6), "none"),
        ((2, 5, 6), "corner"),
    ],
)
def test_values_are_the_dense_ones(always_winograd, options, unit, shape, kind):
    case = Case(unit, shape, kind)
    expected = case.run(case.features, Dense, {})
    actual = case.run(case.features, Packed, options)
    for value, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("options", PACKED.values(), ids=PACKED)
def test_given_masks_leave_the_features(always_winograd, options):
    case = Case("bottleneck", (2, 9, 7), "scattered")
    case.weights = None
    expected = case.run(case.features, Dense, {})
    actual = case.run(case.features, Packed, options)
    for value, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    "name", ["positions", "positions, packed late", "Winograd", "tiles of 2"]
)
@pytest.mark.parametrize("unit", UNITS)
def test_gradients_are_the_dense_ones(always_winograd, name, unit):
    case = Case(unit, (2, 7, 5), "scattered")

    def outcome(geometry, options):
        # Of unknown size, as in a saved model.
        @tf.function(
            input_signature=[tf.TensorSpec([None, None, None, CHANNELS])],
            autograph=False,
        )
        def loss(maps):
            results = case.run(maps, geometry, options)
            # Scaled, so that rounding stays below the absolute tolerance.
            return 0.1 * tf.add_n([tf.reduce_sum(tf.sin(x)) for x in results])

        with tf.GradientTape() as tape:
            tape.watch(case.features)
            value = loss(case.features)
        used = [v for layer in case.units[1:] for v in layer.trainable_variables]
        return tape.gradient(value, [case.features, *used])

    expected = outcome(Dense, {})
    for value, wanted in zip(outcome(Packed, PACKED[name]), expected, strict=True):
        tolerance = 5e-6 + 3e-4 * np.abs(wanted).max()
        np.testing.assert_allclose(value, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("unit", UNITS)
def test_halted_images_are_left_out(unit):
    units = [UNITS[unit](f"unit{index}") for index in range(4)]
    active = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    rng = np.random.default_rng(0)
    weights = (active * rng.uniform(size=(4, 4))).astype("f")
    features = tf.constant(rng.normal(size=(4, 5, 6, CHANNELS)).astype("f"))

    def outcome(geometry):
        values, ran = [], []
        for index, layer in enumerate(units):
            if index:
                geometry.halt(tf.constant(active[index]), tf.constant(weights[index]))
                geometry.add(functools.partial(layer.residual, geometry))
            ran.append(geometry.features(0).shape[0])
            mean = geometry.decisions_per_image(geometry.global_mean()[:, 0])
            values.append(mean * active[index])
        return [*values, geometry.leave()], ran

    expected, ran = outcome(Dense(features, per_image=True))
    assert ran == [4, 4, 4, 4]
    actual, ran = outcome(Images(features))
    assert ran == [4, 3, 2, 0]
    for value, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


def test_only_the_rows_that_are_needed_are_kept():
    """The state holds the active positions and their neighbours, not the map."""
    features = tf.random.stateless_normal([1, 20, 20, CHANNELS], [1, 2])
    geometry = Packed(features, radius=1)
    mask = np.zeros([1, 20, 20], bool)
    mask[0, 5:9, 5:9] = True
    geometry.halt(tf.constant(mask))
    assert geometry.features(0).shape[1] == 16
    assert geometry.features(1).shape[1] == 40  # 16, 20 and some of nothing.
    mask[0, 6:, :] = False
    geometry.halt(tf.constant(mask))
    assert geometry.features(0).shape[1] == 8  # Of which four are active.
    assert geometry.features(1).shape[1] == 24  # 14 more and two of nothing.


def test_matrices_come_in_few_sizes():
    """Every shape is compiled for once: masks of ever new sizes must not give any."""
    counts = np.arange(1, 3000, dtype=np.int32)
    sizes = [int(packed._next_size(tf.constant(count))) for count in counts]
    assert len(set(sizes)) < 90
    excess = sizes - counts
    assert excess.min() == 0 and (excess < np.maximum(8, counts / 16)).all()
    assert packed._next_size(tf.constant(0)) == 0
    assert packed._next_size(tf.constant(65), 64) == 128
    found = set()
    rng = np.random.default_rng(1)
    for share in np.linspace(0.2, 0.8, 40):
        features = tf.zeros([1, 20, 20, CHANNELS])
        geometry = Packed(features, radius=1)
        geometry.halt(tf.constant(rng.random([1, 20, 20]) < share))
        found |= {geometry.features(radius).shape[1] for radius in (0, 1)}
    assert found <= {*sizes, 400} and len(found) < 30


def test_winograd_where_it_saves_time():
    """Where many positions are active that lie together."""
    features = tf.zeros([1, 40, 40, CHANNELS])
    lines, columns = np.mgrid[:40, :40]
    masks = {
        "together": lines < 20,
        "scattered": (lines + columns) % 2 == 0,
        "few": lines < 5,
    }
    pays = {}
    for name, mask in masks.items():
        geometry = Packed(features, radius=1, winograd=True)
        geometry.halt(tf.constant(mask[np.newaxis]))
        pays[name] = bool(geometry._state.squares.pay)
    assert pays == {"together": True, "scattered": False, "few": False}


@pytest.mark.parametrize("left, packed", [(1, False), (2, True), (None, True)])
def test_nothing_is_packed_that_the_units_to_come_do_not_repay(left, packed):
    features = tf.zeros([1, 20, 20, CHANNELS])
    cost = PackingCost(fixed=0.0, per_row=0.25, slower=1.0)  # 100 rows.
    geometry = Packed(features, radius=1, packing=cost)
    mask = np.mgrid[:20, :20][0][np.newaxis] < 16  # A unit saves 80.
    for further in (3, left):
        assert geometry.features(0).shape[1] == 400
        geometry.halt(tf.constant(mask), left=further)
    assert geometry.features(0).shape[1] == (320 if packed else 400)


@pytest.mark.parametrize("conditionals", [True, False])
def test_spare_rows_do_no_harm(conditionals):
    """They are in no output and no mean, and stay finite while units run on them."""
    features = tf.random.stateless_normal([2, 9, 9, CHANNELS], [1, 2])
    mask = np.zeros([2, 9, 9], bool)
    mask[0, 2:5, 2:5] = mask[1, 0, 0] = True

    def outcome(geometry):
        geometry.halt(tf.constant(mask))
        for _ in range(40):
            geometry.add(lambda: geometry.features(0) / 2)
        mean = geometry.global_mean()
        geometry.halt(tf.constant(mask & (np.arange(9) > 2)))
        return [mean, geometry.leave()]

    dense = outcome(Dense(features))
    sparse = outcome(Packed(features, radius=1, conditionals=conditionals))
    for actual, expected in zip(sparse, dense, strict=True):
        assert np.isfinite(actual).all()
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
