"""Faster R-CNN on a SACT feature extractor, one stage a file (section 4.2)."""

from sact_tf.detection import (
    anchors,
    config,
    costs,
    faster_rcnn,
    losses,
    proposals,
    regions,
    targets,
)

__all__ = [
    "anchors",
    "config",
    "costs",
    "faster_rcnn",
    "losses",
    "proposals",
    "regions",
    "targets",
]
