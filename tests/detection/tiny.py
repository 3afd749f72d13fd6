"""A detector small enough for tests."""

from sact_tf.detection.faster_rcnn import FasterRCNN, Settings
from sact_tf.detection.heads import BoxHead, RegionProposalHead
from sact_tf.layers.normalization import BatchNormalization
from sact_tf.models.backbone import Backbone
from sact_tf.models.blocks import make_block
from sact_tf.models.config import BackboneConfig

SETTINGS = Settings(
    anchor_sizes=(24.0, 48.0),
    num_proposals=20,
    crop_size=8,
    pool_size=4,
    num_sampled=16,
    max_detections=10,
)


def detector(
    adaptivity="sact", num_classes=4, head_stride=1, settings=SETTINGS, **options
):
    config = BackboneConfig(
        units=(1, 2, 3, 2),
        adaptivity=adaptivity,
        base_channels=4,
        root_channels=4,
        freeze_batch_norm=True,
        **{"tau": 0.01, "weight_decay": 0.0, **options},
    )
    norm = BatchNormalization(128, **config.layer_options(None)["batch_norm"])
    return FasterRCNN(
        Backbone(config, 3),
        RegionProposalHead(64, SETTINGS.num_anchors, filters=16),
        BoxHead(make_block(config, 3, stride=head_stride), norm, 128, num_classes),
        settings,
    )


def decided(detector):
    """Gives a detector scores far from each other, lest rounding change their order."""
    for layer in (detector.box_head.classes, detector.proposal_head.scores):
        layer.kernel.assign(100 * layer.kernel)
    return detector
