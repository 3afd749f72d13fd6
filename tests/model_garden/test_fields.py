import pytest
from official.core import exp_factory
from official.modeling import hyperparams

from sact_tf.model_garden import experiments, fields, runs

DETECTOR, CLASSIFIER = "sact_fasterrcnn_coco", "sact_resnet_imagenet"
OURS = [
    *(DETECTOR, "sact_fasterrcnn_digit_scenes", CLASSIFIER),
    *("sact_resnet_cifar10", "sact_resnet_digit_scenes"),
]
RATE = "trainer.optimizer_config.learning_rate"
NETWORK = "task.model.backbone.sact_resnet"


def overridden(override, experiment=DETECTOR):
    params = exp_factory.get_exp_config(experiment)
    return hyperparams.override_params_dict(params, override, is_strict=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.train_data.image_dir=2017", "a string. Received: 2017"),
        ("task.model.num_classes=three", "an integer. Received: 'three'"),
        ("task.train_data.global_batch_size=two", "an integer. Received: 'two'"),
        ("task.model.anchor_sizes=32", "a list of numbers, such as [1, 2]. Received: "),
        ("task.model.anchor_sizes=[32,big]", "a list of numbers, "),
        ("task.model.num_classes=3.5", "an integer. Received: 3.5"),
        ("task.model.num_classes=true", "an integer. Received: True"),
        ("task.train_data.horizontal_flip=maybe", "true or false. Received: 'maybe'"),
        ("task.train_data.horizontal_flip=1", "true or false. Received: 1"),
        ("task.seed=None", "an integer or null. Received: 'None'"),
        ("task.model.backbone=resnet", "a group of fields (type, "),
        ("task.train_data=[1,2]", "a group of fields (input_path, "),
        ("task=5", "a group of fields ("),
        (f"{NETWORK}.units=3", "a list of integers, such as [1, 2]. Received: 3"),
        (f"{NETWORK}.tau=small", "a number. Received: 'small'"),
        (f"{RATE}=0.1", "a group of fields (type, constant, "),
        (f"{RATE}.type=stepwize", "one of constant, cosine, "),
        (f"{RATE}.stepwise.boundaries=[1,half]", "a list of integers, "),
        ("trainer.train_steps=1e3", "an integer. Received: 1000.0"),
        ("runtime.mixed_precision_dtype=16", "a string or null. Received: 16"),
        ("{task: {init_checkpoint: {a: 1}}}", "a string. Received: {'a': 1}"),
    ],
)
def test_values_of_the_wrong_type(override, message):
    name = override.partition("=")[0]
    name = "task.init_checkpoint" if name.startswith("{") else name
    with pytest.raises(ValueError) as error:
        fields.check(overridden(override))
    assert str(error.value).startswith(f"{name} must be {message}")


@pytest.mark.parametrize(
    "override",
    [
        "task.train_data.image_dir='2017'",
        "task.train_data.input_path=[a,b]",
        "task.init_checkpoint=null",
        "task.seed=null",
        "task.train_data.horizontal_flip=false",
        f"{NETWORK}.tau=1",
        f"{NETWORK}.tau=1e-3",
        "task.model.anchor_sizes=[32,64.5]",
        f"{RATE}.stepwise.values=[1,0.1]",
        "runtime.loss_scale=dynamic",
        "runtime.loss_scale=128",
    ],
)
def test_values_that_are_right(override):
    fields.check(overridden(override))


@pytest.mark.parametrize("name", OURS)
def test_our_experiments(name):
    fields.check(exp_factory.get_exp_config(name))


def test_experiments_that_do_not_hold_what_they_declare():
    """Such as the Garden's `include_in_weight_decay` of vit_imagenet_pretrain."""
    usual = experiments.sact_resnet_imagenet()
    usual.task.model.num_classes = "1001"
    params = exp_factory.get_exp_config(CLASSIFIER)
    params.task.model.num_classes = "1001"
    fields.check(params, like=usual)
    with pytest.raises(ValueError, match=r"^task.model.num_classes must be"):
        fields.check(params)


def test_several_are_all_said():
    params = overridden("task.model.num_classes=three,task.train_data.image_dir=2017")
    with pytest.raises(ValueError, match=r"num_classes must .*; .*image_dir must be"):
        fields.check(params)


def test_nothing_is_written_before(tmp_path):
    params = overridden("task.model.num_classes=three", CLASSIFIER)
    with pytest.raises(ValueError, match=r"task.model.num_classes must be an integer"):
        runs.train(params, tmp_path / "run")
    assert not (tmp_path / "run").exists()
