import dataclasses
import inspect
import pathlib

import pytest
import yaml
from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import hyperparams

import sact_tf
from sact_tf.evaluation import published
from sact_tf.layers.stochastic_sampling import Sampling
from sact_tf.model_garden import backbones, configs, registry_imports  # noqa: F401

CLASSIFICATION = pathlib.Path(sact_tf.__file__).parents[1] / "classification_configs"

EXPERIMENTS = ["imagenet", "cifar10", "digit_scenes"]


def experiment(name):
    return exp_factory.get_exp_config(f"sact_resnet_{name}")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_yaml_round_trip(name, tmp_path):
    params = experiment(name)
    params.task.model.backbone.sact_resnet.units = [1, 2, 2, 1]
    params.trainer.optimizer_config.optimizer.sgd.momentum = 0.8
    path = str(tmp_path / "params.yaml")
    hyperparams.save_params_dict_to_yaml(params, path)
    again = hyperparams.override_params_dict(experiment(name), path, is_strict=True)
    assert again.as_dict() == params.as_dict()
    assert isinstance(again, cfg.ExperimentConfig)
    assert type(again.task.train_data) is type(params.task.train_data)
    # What runs.load reads: no Python objects, lists for tuples.
    plain = yaml.safe_load((tmp_path / "params.yaml").read_text())
    assert plain["task"]["model"]["backbone"]["sact_resnet"]["units"] == [1, 2, 2, 1]


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_adaptivity_is_one_override(adaptivity):
    params = hyperparams.override_params_dict(
        experiment("cifar10"),
        f"task.model.backbone.sact_resnet.adaptivity={adaptivity}",
        is_strict=True,
    )
    backbone = params.task.model.backbone
    assert backbone.get().adaptivity == adaptivity and backbone.get().tau == 0.01


def test_a_wrong_field_is_named():
    for wrong in ("task.model.dropout", "task.train_data.aug_type"):
        with pytest.raises(KeyError, match=wrong.rpartition(".")[2]):
            hyperparams.override_params_dict(
                experiment("imagenet"), f"{wrong}=1", is_strict=True
            )


def test_the_config_has_the_arguments_of_the_network():
    arguments = inspect.signature(sact_tf.ResNet).parameters
    elsewhere = {"num_classes", "weight_decay", "name", "dtype"}
    elsewhere |= {"calibration"}  # The machine's.
    fields = {field.name for field in dataclasses.fields(configs.SACTResNet)}
    only_here = {"num_blocks", "identity_units"}  # A prefix; ResNet.begin_as_identity.
    assert fields - only_here == set(arguments) - elsewhere
    config = configs.SACTResNet().as_dict()
    for name in fields - only_here - {"units", "masks"}:
        assert config[name] == arguments[name].default, name


def test_masks_are_those_of_the_network():
    masks = configs.Masks(grid=5)
    config = configs.SACTResNet(family="resnet_d", adaptivity="ssin", masks=masks)
    made = backbones.network_config(config)
    assert made.masks == {**Sampling()._asdict(), "grid": 5}
    # Others have none.
    assert backbones.network_config(configs.SACTResNet()).masks is None


@pytest.mark.parametrize(
    "name, sampled, adaptivity",
    [
        ("ssb_resnet_imagenet", "adaptive", "none"),
        ("ssin_resnet_imagenet", None, "ssin"),
        ("ssb_resnet_digit_scenes", "adaptive", "none"),
        ("ssin_resnet_digit_scenes", None, "ssin"),
        ("sact_retinanet_coco", None, "sact"),
        ("sact_fasterrcnn_fpn_coco", None, "sact"),
        ("ssb_retinanet_coco", "adaptive", "none"),
        ("ssb_fasterrcnn_fpn_coco", "adaptive", "none"),
    ],
)
def test_other_ways_to_save(name, sampled, adaptivity):
    params = exp_factory.get_exp_config(name)
    made = backbones.network_config(params.task.model.backbone.sact_resnet)
    assert (made.sampling, made.adaptivity) == (sampled, adaptivity)
    again = hyperparams.override_params_dict(
        exp_factory.get_exp_config(name), params.as_dict(), is_strict=True
    )
    assert again.as_dict() == params.as_dict()


def test_rows_of_the_supplement():
    rows = {row.name: row for row in published.TABLES["ssbnet"]}
    files = sorted((CLASSIFICATION / "ssbnet").glob("*.yaml"))
    for file in files:
        params = exp_factory.get_exp_config("ssb_resnet_imagenet")
        hyperparams.override_params_dict(params, str(file), is_strict=True)
        made = backbones.network_config(params.task.model.backbone.sact_resnet)
        depth, sampler, sizes = file.stem.split("_", 2)
        assert made.units == made.spec.resolve_units(int(depth))
        assert made.sampling == sampler
        sizes = ", ".join(sizes.split("_"))
        assert f"SSB-ResNet-D-{depth}, {sampler} ({sizes})" in rows
        if sampler != "depthwise":
            assert ", ".join(map(str, made.sampling_sizes)) == sizes
    assert len(files) == len(rows)


def test_schedules_are_those_of_the_paper():
    imagenet = experiment("imagenet")
    rates = imagenet.trainer.optimizer_config.learning_rate.get()
    assert rates.boundaries[0] == 30 * 40036
    assert rates.values == pytest.approx([5 * 10**-k for k in range(2, 8)])
    assert imagenet.trainer.train_steps == 160 * 40036
    assert imagenet.task.losses.label_smoothing == 0.1
    cifar = experiment("cifar10")
    rates = cifar.trainer.optimizer_config.learning_rate.get()
    assert rates.boundaries == [60000, 75000, 90000]
    assert rates.values == pytest.approx([0.1, 0.01, 0.001, 0.0001])
    assert cifar.trainer.train_steps == 100000
