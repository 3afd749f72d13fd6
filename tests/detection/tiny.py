"""A detector small enough for tests."""

import sact_tf
from sact_tf.detection.faster_rcnn import FasterRCNN, Settings
from sact_tf.detection.heads import BoxHead, RegionProposalHead, set_stride
from sact_tf.model_garden.backbones import SACTResNetBackbone

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
    network = sact_tf.ResNet(
        units=(1, 2, 3, 2),
        adaptivity=adaptivity,
        num_classes=1,
        base_channels=4,
        root_channels=4,
        freeze_batch_norm=True,
        **{"tau": 0.01, "weight_decay": 0.0, **options},
    )
    set_stride(network.blocks[3], head_stride)
    return FasterRCNN(
        SACTResNetBackbone(network, 3),
        RegionProposalHead(64, SETTINGS.num_anchors, filters=16),
        BoxHead(network.blocks[3], network.head.postnorm, 128, num_classes),
        settings,
    )


def decided(detector):
    """Gives a detector scores far from each other, lest rounding change their order."""
    for layer in (detector.box_head.classes, detector.proposal_head.scores):
        layer.kernel.assign(100 * layer.kernel)
    return detector
