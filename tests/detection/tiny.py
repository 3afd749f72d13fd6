"""A detector small enough for tests."""

from sact_tf.detection.config import FasterRCNNConfig
from sact_tf.detection.faster_rcnn import FasterRCNN
from sact_tf.models.config import BackboneConfig


def detector(adaptivity="sact", num_classes=4, head_stride=1, settings=None, **options):
    """A detector; options are those of the backbone, settings those of the rest."""
    backbone = BackboneConfig(
        adaptivity=adaptivity,
        base_channels=4,
        root_channels=4,
        freeze_batch_norm=True,
        **{"units": (1, 2, 3, 2), "tau": 0.01, "weight_decay": 0.0, **options},
    )
    small = {
        "proposal_filters": 16,
        "anchor_sizes": (24.0, 48.0),
        "num_proposals": 20,
        "crop_size": 8,
        "pool_size": 4,
        "num_sampled": 16,
        "max_detections": 10,
    }
    config = FasterRCNNConfig(
        backbone=backbone,
        num_classes=num_classes,
        head_stride=head_stride,
        **{**small, **(settings or {})},
    )
    return FasterRCNN(config)


def decided(detector):
    """Gives a detector scores far from each other, lest rounding change their order.

    And from one: many would be equal there.
    """
    for layer, factor in (
        (detector.box_head.classes, 5),
        (detector.proposal_head.scores, 20),
    ):
        layer.kernel.assign(factor * layer.kernel)
    return detector
