"""What can be chosen about a detector, checked at once."""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sact_tf.models.config import ADDED_LATER, BackboneConfig

#: Of the feature extractor; the one after them goes into the region heads.
NUM_BLOCKS = 3
#: Of the feature extractor.
STRIDE = 16
#: Of the region heads: nowhere, once for each region, or at each position of a region.
HEAD_ADAPTIVITIES = ("none", "act", "sact")


def check_num_proposals(value, most: int, name: str = "num_proposals") -> None:
    """Refuses what cannot be a number of proposals to look at.

    Args:
      value: one number.
      most: how many the detector proposes.
      name: of the argument, for the message.

    Raises:
      ValueError: it is no integer from 1 to `most`.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not 1 <= value <= most:
        raise ValueError(
            f"{name} must be an integer from 1 to {most}, the proposals that the "
            f"detector makes. Received: {name}={value!r}"
        )


def check_proposal_threshold(value, name: str = "proposal_threshold") -> None:
    """Refuses what cannot be the least score of proposals to look at.

    Raises:
      ValueError: it is no number from 0 to 1.
    """
    if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise ValueError(
            f"{name} must be a number from 0 to 1, which scores are, too. Received: "
            f"{name}={value!r}"
        )


@dataclass(frozen=True, kw_only=True)
class FasterRCNNConfig:
    """Arguments of a FasterRCNN; the defaults are the paper's (supplement A.2).

    Attributes:
      backbone: a network of the imagenet family. Its first three blocks are the feature
        extractor, its fourth goes into the region heads.
      num_classes: K, the background, class 0, included; 91 for COCO's category ids.
      head_stride: of block 4 on the pooled crops.
      proposal_filters: channels of the region proposal network's 3x3 convolution.
      anchor_sizes, aspect_ratios: see `anchors.grid`.
      num_proposals: of an image.
      pre_nms_top_k: boxes that take part in the proposals' suppression.
      proposal_nms_iou: threshold of the proposals' non-maximum suppression.
      crop_size, pool_size, crops_at_once: see `crop_and_resize`.
      num_sampled: proposals of an image that the second stage is trained on.
      foreground_fraction: share of objects among these, at most.
      detection_nms_iou: threshold of the final suppression, within a class.
      score_threshold: detections have a higher score.
      max_detections: of an image.
      proposal_score_weight, proposal_box_weight, class_weight, box_weight: of the four
        losses, see `losses.detector_losses`.
      head_adaptivity: where block 4 may halt in the region heads: "none", "act" (one
        decision for each region) or "sact" (one for each position of a region); None
        for that of the backbone.
      head_tau: weight of the heads' ponder cost (eqn 13, mean over regions); the paper
        has none.
      proposal_threshold: proposals of a lower score are not looked at in detection, 0
        to 1; 0 for all. Training samples from all of them.

    A field that is added must have a default that changes nothing, and ADDED_LATER as
    metadata (see BackboneConfig).

    Raises:
      ValueError: an argument is out of range; the message says which.
    """

    backbone: BackboneConfig = dataclasses.field(
        default_factory=lambda: BackboneConfig(freeze_batch_norm=True)
    )
    num_classes: int = 91
    head_stride: int = 1
    proposal_filters: int = 512
    anchor_sizes: Sequence[float] = (64.0, 128.0, 256.0, 512.0)
    aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0)
    num_proposals: int = 300
    pre_nms_top_k: int = 6000
    proposal_nms_iou: float = 0.7
    crop_size: int = 28
    pool_size: int = 7
    crops_at_once: int = 64
    num_sampled: int = 64
    foreground_fraction: float = 0.25
    detection_nms_iou: float = 0.6
    score_threshold: float = 0.0
    max_detections: int = 100
    proposal_score_weight: float = 1.0
    proposal_box_weight: float = 1.0
    class_weight: float = 1.0
    box_weight: float = 1.0
    head_adaptivity: str | None = dataclasses.field(default=None, metadata=ADDED_LATER)
    head_tau: float = dataclasses.field(default=0.0, metadata=ADDED_LATER)
    proposal_threshold: float = dataclasses.field(default=0.0, metadata=ADDED_LATER)

    def __post_init__(self):
        """Checks the fields."""
        if self.backbone.family != "imagenet":
            raise ValueError(
                "The backbone of a detector must be of family 'imagenet'. Received: "
                f"family={self.backbone.family!r}"
            )
        if not isinstance(self.num_classes, numbers.Integral) or self.num_classes < 2:
            raise ValueError(
                "num_classes counts the background, so it must be at least 2. "
                f"Received: num_classes={self.num_classes!r}"
            )
        if self.head_stride not in (1, 2):
            raise ValueError(
                f"head_stride must be 1 or 2. Received: head_stride={self.head_stride}"
            )
        for name in (
            "proposal_filters",
            "num_proposals",
            "pre_nms_top_k",
            "num_sampled",
            "max_detections",
        ):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(
                    f"{name} must be an integer of at least 1. Received: "
                    f"{name}={value!r}"
                )
        for name in ("anchor_sizes", "aspect_ratios"):
            values = tuple(getattr(self, name))
            if not values or min(values) <= 0:
                raise ValueError(
                    f"{name} must be positive numbers, at least one. Received: "
                    f"{name}={list(values)}"
                )
            object.__setattr__(self, name, values)
        check_proposal_threshold(self.proposal_threshold)
        self._check_head()

    def _check_head(self):
        kinds = ", ".join(map(repr, HEAD_ADAPTIVITIES))
        if self.head_adaptivity not in (None, *HEAD_ADAPTIVITIES):
            raise ValueError(
                f"head_adaptivity must be one of {kinds}, or None for that of the "
                f"backbone. Received: head_adaptivity={self.head_adaptivity!r}"
            )
        tau = self.head_tau
        if not isinstance(tau, numbers.Real) or not math.isfinite(tau) or tau < 0:
            raise ValueError(
                f"head_tau must be zero or more. Received: head_tau={tau!r}"
            )
        head = self.head_network
        if tau and head.adaptivity == "none":
            raise ValueError(
                "head_tau is the price of units that region heads could leave out, and "
                "these leave none out: set head_adaptivity to 'act' or 'sact'. "
                f"Received: head_tau={tau}, head_adaptivity={self.head_adaptivity!r}, "
                f"adaptivity={self.backbone.adaptivity!r}"
            )
        if self.backbone.calibration is None and head.calibration is not None:
            # So that it is written down with the rest of the backbone.
            backbone = dataclasses.replace(self.backbone, calibration=head.calibration)
            object.__setattr__(self, "backbone", backbone)

    @property
    def head_network(self) -> BackboneConfig:
        """The network that block 4 of the region heads is of."""
        if self.head_adaptivity in (None, self.backbone.adaptivity):
            return self.backbone
        # Tiles are of SACT, and only one of the two can be that.
        return dataclasses.replace(
            self.backbone, adaptivity=self.head_adaptivity, tile_size=1
        )

    @property
    def num_anchors(self) -> int:
        """Anchors of each position."""
        return len(self.anchor_sizes) * len(self.aspect_ratios)

    @classmethod
    def of(cls, arguments: Mapping) -> "FasterRCNNConfig":
        """A config from what `arguments` gave."""
        backbone = BackboneConfig(**arguments["backbone"])
        return cls(**{**arguments, "backbone": backbone})

    def arguments(self) -> dict:
        """The fields as plain values, for `get_config`."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if not field.metadata.get("added_later")
            or getattr(self, field.name) != field.default
        }
        return {
            **values,
            "backbone": self.backbone.arguments(),
            "anchor_sizes": list(self.anchor_sizes),
            "aspect_ratios": list(self.aspect_ratios),
        }
