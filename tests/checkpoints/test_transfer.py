import numpy as np
import pytest
import tensorflow as tf

import sact_tf
from sact_tf.checkpoints.paths import variables_by_path
from sact_tf.checkpoints.transfer import initialize_from


def network(adaptivity, units=(2, 3, 2, 2), **options):
    options = {"num_classes": 5, "base_channels": 4, **options}
    model = sact_tf.ResNet("imagenet", units, adaptivity, **options)
    rng = np.random.default_rng(len(model.weights))
    for variable in variables_by_path(model).values():
        variable.assign(rng.uniform(0.1, 1.0, variable.shape))
    return model


@pytest.mark.parametrize("adaptivity", ["act", "sact"])
def test_two_stage_start_leaves_halting_scores_fresh(adaptivity):
    plain, adaptive = network("none"), network(adaptivity)
    fresh = {p: v.numpy() for p, v in variables_by_path(adaptive).items()}
    kept = initialize_from(adaptive, plain)
    assert kept and all("/halting" in path for path in kept)
    given = variables_by_path(plain)
    for path, variable in variables_by_path(adaptive).items():
        expected = fresh[path] if path in kept else given[path]
        np.testing.assert_array_equal(variable, expected)


def test_shallower_network_gets_the_first_units():
    deep, shallow = network("sact"), network("none", units=(1, 2, 2, 1))
    assert initialize_from(shallow, deep) == []
    np.testing.assert_array_equal(
        shallow.blocks[1].units[1].conv2.kernel, deep.blocks[1].units[1].conv2.kernel
    )


def test_halting_scores_travel_between_networks_of_one_kind():
    source, target = network("sact"), network("sact")
    assert initialize_from(target, source) == []
    images = tf.random.uniform([1, 64, 64, 3])
    np.testing.assert_array_equal(source(images), target(images))


@pytest.mark.parametrize(
    "source, message",
    [
        (lambda: network("none", units=(2, 2, 2, 2)), "as many units in every block"),
        (
            lambda: network("none", base_channels=8),
            "variables of the source have anoth",
        ),
        (lambda: network("none", num_classes=7), "head=False leaves"),
        (lambda: sact_tf.ResNet("cifar", 20, num_classes=5), "same family"),
    ],
)
def test_misfits_are_refused_and_nothing_changes(source, message):
    model = network("sact")
    before = [variable.numpy() for variable in model.weights]
    with pytest.raises(ValueError, match=message):
        initialize_from(model, source())
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_other_classes_without_the_head():
    kept = initialize_from(network("none"), network("none", num_classes=7), head=False)
    assert kept == ["head/logits/kernel", "head/logits/bias"]


@pytest.mark.parametrize(
    "options, fresh",
    [
        ({"sampling": "adaptive"}, "/saliency/kernel"),
        ({"sampling": "depthwise"}, "/sampler"),
        ({"adaptivity": "ssin"}, "/mask"),
    ],
)
def test_networks_that_sample_start_from_plain_ones(options, fresh):
    def small(adaptivity="none", **options):
        return sact_tf.ResNet(
            "resnet_d_small", (1, 2, 1, 1), adaptivity, base_channels=2, **options
        )

    plain, target, other = small(), small(**options), small(**options)
    paths = variables_by_path(target)
    # Each has a path of its own, but for what says where training is.
    own = [
        w for w in target.weights if w.name.split("/")[-1][:4] not in ("temp", "step")
    ]
    costs = [w for metric in target._cost_metrics for w in metric.weights]
    assert len(paths) == len({id(w) for w in own} - {id(w) for w in costs})
    kept = initialize_from(target, plain)
    assert kept and all(fresh in path for path in kept)
    np.testing.assert_array_equal(
        target.blocks[1].units[1].conv2.kernel, plain.blocks[1].units[1].conv2.kernel
    )
    assert initialize_from(other, target) == []
    for path, variable in variables_by_path(other).items():
        np.testing.assert_array_equal(variable, paths[path])
