"""Importing this registers what sact_tf has, beside all that the Garden has itself.

Experiments, as `--experiment=sact_resnet_imagenet` (`experiments`,
`detection_experiments`, and those of the Garden's own detectors: `fpn_experiments`),
their tasks, and the backbone `sact_resnet`.
"""

from official.vision import registry_imports as garden

from sact_tf.model_garden import (
    backbones,
    detection_experiments,
    detection_tasks,
    experiments,
    fpn_experiments,
    tasks,
)

__all__ = [
    "backbones",
    "detection_experiments",
    "detection_tasks",
    "experiments",
    "fpn_experiments",
    "garden",
    "tasks",
]
