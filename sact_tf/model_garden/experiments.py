"""Experiments: `--experiment=sact_resnet_imagenet` and so on.

Those called sact_ train SACT; `task.model.backbone.sact_resnet.adaptivity` is "none",
"act" or "sact". Those called ssb_ and ssin_ train ResNet-D with SSBNet's sampling, or
SSIN's masks.
"""

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import optimization
from official.vision.configs import image_classification as garden

from sact_tf.data import digit_scenes
from sact_tf.model_garden import configs

_IMAGENET_TRAIN_IMAGES = 1281167
_CIFAR10_TRAIN_IMAGES = 50000


@exp_factory.register_config_factory("sact_resnet_imagenet")
def sact_resnet_imagenet() -> cfg.ExperimentConfig:
    """ResNet-101 on ImageNet as in the paper (supplement A.1).

    Steps are those of batches of 32: with n replicas, set the batch size to 32 n and
    divide the steps and the boundaries by n.
    """
    batch_size = 32
    epoch = _IMAGENET_TRAIN_IMAGES // batch_size
    drops = [30, 60, 90, 120, 150]
    return cfg.ExperimentConfig(
        task=configs.ClassificationTask(
            model=_model(1001, 224, units=[3, 4, 23, 3], tau=0.005),
            losses=garden.Losses(label_smoothing=0.1, l2_weight_decay=1e-4),
            train_data=configs.ImageData(
                tfds_split="train", global_batch_size=batch_size
            ),
            validation_data=_evaluated(
                configs.ImageData, tfds_split="validation", global_batch_size=batch_size
            ),
        ),
        trainer=trainer(
            epoch,
            160 * epoch,
            optimizer={"momentum": 0.9},
            rate=stepwise([drop * epoch for drop in drops], 0.05),
        ),
        restrictions=RESTRICTIONS,
    )


@exp_factory.register_config_factory("sact_resnet_cifar10")
def sact_resnet_cifar10() -> cfg.ExperimentConfig:
    """Five units per block on CIFAR-10, through TFDS, as the authors published it."""
    batch_size = 128
    data = {"tfds_name": "cifar10", "preprocessing": "cifar"}
    return cfg.ExperimentConfig(
        task=configs.ClassificationTask(
            model=_model(10, 32, family="cifar", units=[5, 5, 5], tau=0.01),
            losses=garden.Losses(l2_weight_decay=2e-4),
            train_data=configs.ImageData(
                tfds_split="train",
                global_batch_size=batch_size,
                shuffle_buffer_size=_CIFAR10_TRAIN_IMAGES,
                **data,
            ),
            validation_data=_evaluated(
                configs.ImageData, tfds_split="test", global_batch_size=500, **data
            ),
        ),
        trainer=trainer(
            500,
            100000,
            evaluate_every=2000,
            optimizer={"momentum": 0.9},
            rate=stepwise([60000, 75000, 90000], 0.1),
        ),
        restrictions=RESTRICTIONS,
    )


@exp_factory.register_config_factory("sact_resnet_digit_scenes")
def sact_resnet_digit_scenes() -> cfg.ExperimentConfig:
    """A small network on scenes that need no download: minutes on two cores."""
    steps = 3000
    return cfg.ExperimentConfig(
        task=configs.ClassificationTask(
            model=_model(
                digit_scenes.NUM_CLASSES,
                64,
                units=[3, 4, 5, 2],
                base_channels=16,
                root_channels=16,
                tau=0.1,
                # Statistics of a few hundred steps, not of the many of ImageNet.
                batch_norm_momentum=0.97,
            ),
            losses=garden.Losses(l2_weight_decay=1e-4),
            train_data=configs.DigitScenes(global_batch_size=32),
            validation_data=_evaluated(configs.DigitScenes, global_batch_size=50),
            seed=0,
        ),
        trainer=trainer(
            100,
            steps,
            evaluate_every=500,
            optimizer={"momentum": 0.9, "nesterov": True, "global_clipnorm": 5.0},
            rate=_cosine(0.08, steps),
        ),
        restrictions=RESTRICTIONS,
    )


@exp_factory.register_config_factory("ssb_resnet_imagenet")
def ssb_resnet_imagenet() -> cfg.ExperimentConfig:
    """SSB-ResNet-D-50 (16, 8, 4), adaptive, on ImageNet.

    120 epochs are the supplement's; the rest of the recipe is not published with it,
    and taken from what is usual for ResNet-D: batches of 256, a rate of 0.1 that rises
    for five epochs and then falls as a cosine, label smoothing 0.1.
    """
    return _resnet_d_imagenet(sampling="adaptive", sampling_sizes=[16, 8, 4])


@exp_factory.register_config_factory("ssin_resnet_imagenet")
def ssin_resnet_imagenet() -> cfg.ExperimentConfig:
    """SSIN on ResNet-D-50, lambda 0.005, on ImageNet; as `ssb_resnet_imagenet`."""
    return _resnet_d_imagenet(adaptivity="ssin", tau=0.005)


def _resnet_d_imagenet(**options):
    batch_size = 256
    epoch = _IMAGENET_TRAIN_IMAGES // batch_size
    params = sact_resnet_imagenet()
    task = params.task
    options = {"adaptivity": "none", "units": [3, 4, 6, 3], **options}
    task.model = _model(1000, 224, family="resnet_d", **options)
    for data in (task.train_data, task.validation_data):
        data.global_batch_size = batch_size
    steps = 120 * epoch
    params.trainer = trainer(
        epoch,
        steps,
        optimizer={"momentum": 0.9, "nesterov": True},
        rate=_cosine(0.1, steps),
        warmup=5 * epoch,
    )
    return params


@exp_factory.register_config_factory("ssb_resnet_digit_scenes")
def ssb_resnet_digit_scenes() -> cfg.ExperimentConfig:
    """A small ResNet-D with adaptive sampling, as `sact_resnet_digit_scenes`."""
    return _resnet_d_digit_scenes(sampling="adaptive")


@exp_factory.register_config_factory("ssin_resnet_digit_scenes")
def ssin_resnet_digit_scenes() -> cfg.ExperimentConfig:
    """A small ResNet-D with masks, as `sact_resnet_digit_scenes`."""
    return _resnet_d_digit_scenes(adaptivity="ssin", tau=0.1)


def _resnet_d_digit_scenes(**options):
    params = sact_resnet_digit_scenes()
    old = params.task.model.backbone.sact_resnet
    options = {"adaptivity": "none", "units": list(old.units), **options}
    params.task.model = _model(
        digit_scenes.NUM_CLASSES,
        64,
        family="resnet_d_small",
        base_channels=old.base_channels,
        batch_norm_momentum=old.batch_norm_momentum,
        **options,
    )
    return params


#: Of every experiment here.
RESTRICTIONS = ["task.train_data.is_training != None"]


def _model(num_classes, size, **options):
    return configs.ClassificationModel(
        num_classes=num_classes,
        input_size=[size, size, 3],
        backbone=configs.Backbone(sact_resnet=configs.SACTResNet(**options)),
    )


def _evaluated(data, **options):
    # Every image counts, those of a smaller last batch too.
    return data(is_training=False, drop_remainder=False, **options)


def stepwise(boundaries: list[int], rate: float) -> dict:
    """A learning rate that is divided by ten at every boundary."""
    values = [rate * 0.1**drop for drop in range(len(boundaries) + 1)]
    return {
        "type": "stepwise",
        "stepwise": {"boundaries": boundaries, "values": values},
    }


def _cosine(rate, steps):
    return {
        "type": "cosine",
        "cosine": {"initial_learning_rate": rate, "decay_steps": steps},
    }


def trainer(
    interval: int,
    steps: int,
    *,
    optimizer: dict,
    rate: dict,
    evaluate_every: int | None = None,
    warmup: int = 0,
) -> cfg.TrainerConfig:
    """Trains with SGD, and writes checkpoints and summaries at every interval.

    Args:
      interval: in steps.
      steps: in all.
      optimizer: arguments of SGD.
      rate: the learning rate's config.
      evaluate_every: in steps; at every interval by default.
      warmup: steps in which the rate rises from zero.
    """
    optimization_config = {
        "optimizer": {"type": "sgd", "sgd": optimizer},
        "learning_rate": rate,
    }
    if warmup:
        rising = {"warmup_steps": warmup, "warmup_learning_rate": 0.0}
        optimization_config["warmup"] = {"type": "linear", "linear": rising}
    return cfg.TrainerConfig(
        train_steps=steps,
        steps_per_loop=interval,
        summary_interval=interval,
        checkpoint_interval=interval,
        validation_interval=evaluate_every or interval,
        optimizer_config=optimization.OptimizationConfig(optimization_config),
    )
