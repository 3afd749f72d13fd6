"""The Model Garden's own detectors, with a feature pyramid over an adaptive backbone.

`--experiment=sact_retinanet_coco`, `sact_fasterrcnn_fpn_coco`, and the same with
SSBNet's sampling: `ssb_retinanet_coco`, `ssb_fasterrcnn_fpn_coco`. Task, data, decoder,
heads and schedule are the Garden's; what its strict overrides can set is there as
always, and `task.model.backbone.sact_resnet` beside it. tau times the ponder cost is in
the loss: the Garden's tasks add what a backbone's `losses` hold.
"""

from official.core import config_definitions as cfg
from official.core import exp_factory

from sact_tf.model_garden import configs

#: Of ResNet-50, which these detectors are compared with.
_UNITS = (3, 4, 6, 3)


@exp_factory.register_config_factory("sact_retinanet_coco")
def sact_retinanet_coco() -> cfg.ExperimentConfig:
    """RetinaNet with SACT, levels 3 to 7."""
    return _with("retinanet_resnetfpn_coco", adaptivity="sact", tau=0.005)


@exp_factory.register_config_factory("sact_fasterrcnn_fpn_coco")
def sact_fasterrcnn_fpn_coco() -> cfg.ExperimentConfig:
    """Faster R-CNN with SACT, levels 2 to 6."""
    return _with("fasterrcnn_resnetfpn_coco", adaptivity="sact", tau=0.005)


@exp_factory.register_config_factory("ssb_retinanet_coco")
def ssb_retinanet_coco() -> cfg.ExperimentConfig:
    """RetinaNet with SSB-ResNet-D-50; four sevenths of each side, as 16 of 28."""
    return _with("retinanet_resnetfpn_coco", **_SAMPLED)


@exp_factory.register_config_factory("ssb_fasterrcnn_fpn_coco")
def ssb_fasterrcnn_fpn_coco() -> cfg.ExperimentConfig:
    """Faster R-CNN with SSB-ResNet-D-50, as `ssb_retinanet_coco`."""
    return _with("fasterrcnn_resnetfpn_coco", **_SAMPLED)


_SAMPLED = {"family": "resnet_d", "adaptivity": "none", "sampling": "adaptive"}


def _with(experiment, **options):
    params = exp_factory.get_exp_config(experiment)
    model = params.task.model
    model.backbone = configs.Backbone(
        sact_resnet=configs.SACTResNet(units=list(_UNITS), **options)
    )
    # The Garden's checkpoints have another backbone.
    params.task.init_checkpoint = None
    params.task.init_checkpoint_modules = "backbone"
    return params
