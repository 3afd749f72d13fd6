"""Packed rows give the numbers of the map, whatever the mask."""

import numpy as np
import pytest
import tensorflow as tf

from sact_tf.geometry import Dense, Images, Packed, active_set, winograd
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.buckets import bucket
from sact_tf.geometry.grid import Grid
from sact_tf.layers.maker import Maker
from sact_tf.layers.residual_units import BasicUnit, BottleneckUnit

MAKE = Maker(momentum=0.9, epsilon=1e-3)
CHANNELS = 8
UNITS = {
    "bottleneck": lambda name: BottleneckUnit(
        CHANNELS, CHANNELS // 4, make=MAKE, name=name
    ),
    "basic": lambda name: BasicUnit(CHANNELS, CHANNELS, make=MAKE, name=name),
}
LAYOUTS = {
    "positions": {},
    "Winograd": {"winograd": True},
    "tiles of 2": {"side": 2},
    "tiles of 5": {"side": 5},
    "tiles of 16": {"side": 16},
    "without conditionals": {"conditionals": False},
    "tiles without conditionals": {"side": 2, "conditionals": False},
}


def layouts_of(unit, names=LAYOUTS):
    """Names of layouts; basic units, of two 3x3 convolutions, know no Winograd."""
    return [name for name in names if (unit, name) != ("basic", "Winograd")]


@pytest.fixture
def always_winograd(monkeypatch):
    """However few rows there are."""
    monkeypatch.setattr(winograd, "FIXED", -1e9)
    active_set._selecting.cache_clear()
    yield
    active_set._selecting.cache_clear()


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


class Case:
    """Units, masks, weights and features that are the same for all geometries."""

    def __init__(self, unit, shape, kind):
        self.units = [UNITS[unit](f"unit{index}") for index in range(3)]
        rng = np.random.default_rng(1)
        for layer in self.units:
            for norm in (layer.preact, layer.conv1_norm):
                norm.beta.assign(rng.normal(size=norm.beta.shape))
                norm.moving_mean.assign(rng.normal(size=norm.beta.shape))
        self.masks = shrinking(shape, kind)
        # Nothing is left where a position has halted; weights shrink as masks do.
        left = np.cumprod(rng.uniform(size=(3, *shape)), axis=0) * self.masks
        self.left = left.astype("f")
        self.features = tf.constant(rng.normal(size=(*shape, CHANNELS)).astype("f"))

    def run(self, maps, options=None, weighted=True):
        """What a block does, with its halting decisions given; packed with options."""
        geometry, scores = Dense(maps), []
        for index, unit in enumerate(self.units):
            mask = tf.constant(self.masks[index])
            left = tf.constant(self.left[index]) if weighted else None
            some = self.masks[index].any()
            packs = options is not None and (some or not options.get("conditionals", 1))
            if packs and index == 0:
                layout = Layout(Grid.of(maps), unit.radius, **options)
                output = maps if weighted else None
                geometry = Packed.from_map(layout, maps, mask, output, left)
            else:
                geometry.halt(mask, left)
                if packs:
                    geometry.shrink()
            geometry.add(unit.branch()(geometry))
            rng = np.random.default_rng(index)
            kernel = tf.constant(rng.normal(size=(10, CHANNELS)).astype("f"))
            offset = tf.constant(rng.normal(size=10).astype("f"))
            if index < 2:
                # What a score says of halted positions means nothing.
                score = geometry.linear_score(kernel, offset)
                scores.append(tf.where(mask, score, 0.0))
                scores.append(geometry.global_mean())
        return [geometry.leave(), *scores]


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
@pytest.mark.parametrize("unit", UNITS)
def test_values_are_the_dense_ones(always_winograd, unit, shape, kind):
    case = Case(unit, shape, kind)
    expected = case.run(case.features)
    for name in layouts_of(unit):
        actual = case.run(case.features, LAYOUTS[name])
        for value, wanted in zip(actual, expected, strict=True):
            np.testing.assert_allclose(
                value, wanted, rtol=1e-5, atol=2e-5, err_msg=name
            )


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
def test_given_masks_leave_the_features(always_winograd, options):
    case = Case("bottleneck", (2, 9, 7), "scattered")
    expected = case.run(case.features, weighted=False)
    actual = case.run(case.features, options, weighted=False)
    for value, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    "unit, name",
    [
        (unit, name)
        for unit in UNITS
        for name in layouts_of(
            unit, ["positions", "without conditionals", "Winograd", "tiles of 2"]
        )
    ],
)
def test_gradients_are_the_dense_ones(always_winograd, name, unit):
    case = Case(unit, (2, 7, 5), "scattered")

    def loss(maps, options):
        results = case.run(maps, options)
        # Scaled, so that rounding stays below the absolute tolerance.
        return 0.1 * tf.add_n([tf.reduce_sum(tf.sin(x)) for x in results])

    # Of unknown size, as in a saved model.
    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, CHANNELS])],
        autograph=False,
    )
    def packed_loss(maps):
        return loss(maps, LAYOUTS[name])

    def gradients(function, *options):
        with tf.GradientTape() as tape:
            tape.watch(case.features)
            value = function(case.features, *options)
        used = [v for layer in case.units for v in layer.trainable_variables]
        return tape.gradient(value, [case.features, *used])

    expected = gradients(loss, None)
    for value, wanted in zip(gradients(packed_loss), expected, strict=True):
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
                if isinstance(geometry, Images):
                    geometry.shrink()
                geometry.add(layer.branch()(geometry))
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


def packed(features, mask, **options):
    layout = Layout(Grid.of(features), radius=1, **options)
    return Packed.from_map(layout, features, tf.constant(mask))


def test_only_the_rows_that_are_needed_are_kept():
    """The state holds the active positions and their neighbours, not the map."""
    features = tf.random.stateless_normal([1, 20, 20, CHANNELS], [1, 2])
    mask = np.zeros([1, 20, 20], bool)
    mask[0, 5:9, 5:9] = True
    geometry = packed(features, mask)
    assert geometry.features(0).shape[1] == 16
    assert geometry.features(1).shape[1] == 40  # 16, 20 and some of nothing.
    mask[0, 6:, :] = False
    geometry.halt(tf.constant(mask))
    geometry.shrink()
    assert geometry.features(0).shape[1] == 8  # Of which four are active.
    assert geometry.features(1).shape[1] == 24  # 14 more and two of nothing.


def test_matrices_come_in_few_sizes():
    """Every shape is compiled for once: masks of ever new sizes must not give any."""
    counts = np.arange(1, 3000, dtype=np.int32)
    sizes = [int(bucket(tf.constant(count))) for count in counts]
    assert len(set(sizes)) < 90
    excess = sizes - counts
    assert excess.min() == 0 and (excess < np.maximum(8, counts / 16)).all()
    assert bucket(tf.constant(0)) == 0
    assert bucket(tf.constant(65), 64) == 128
    found = set()
    rng = np.random.default_rng(1)
    features = tf.zeros([1, 20, 20, CHANNELS])
    for share in np.linspace(0.2, 0.8, 40):
        geometry = packed(features, rng.random([1, 20, 20]) < share)
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
        geometry = packed(features, mask[np.newaxis], winograd=True)
        pays[name] = bool(geometry.state.set.tiles.pay)
    assert pays == {"together": True, "scattered": False, "few": False}


@pytest.mark.parametrize("conditionals", [True, False])
def test_rows_that_fill_up_a_bucket_do_no_harm(conditionals):
    """They are in no output and no mean, and stay finite while units run on them."""
    features = tf.random.stateless_normal([2, 9, 9, CHANNELS], [1, 2])
    mask = np.zeros([2, 9, 9], bool)
    mask[0, 2:5, 2:5] = mask[1, 0, 0] = True

    def outcome(geometry):
        geometry.halt(tf.constant(mask))
        for _ in range(40):
            geometry.add(geometry.features(0) / 2)
        mean = geometry.global_mean()
        geometry.halt(tf.constant(mask & (np.arange(9) > 2)))
        return [mean, geometry.leave()]

    dense = outcome(Dense(features))
    sparse = outcome(packed(features, mask, conditionals=conditionals))
    for actual, expected in zip(sparse, dense, strict=True):
        assert np.isfinite(actual).all()
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
