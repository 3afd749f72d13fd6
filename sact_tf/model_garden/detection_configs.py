"""What can be set in detection experiments; see `configs` for the backbone."""

import dataclasses
from collections.abc import Sequence

from official.core import config_definitions as cfg
from official.modeling import hyperparams

from sact_tf.detection.config import FasterRCNNConfig
from sact_tf.model_garden import configs


def _backbone():
    return configs.Backbone(
        sact_resnet=configs.SACTResNet(freeze_batch_norm=True, num_blocks=3)
    )


@dataclasses.dataclass
class DetectionModel(hyperparams.Config):
    """The detector; what is not described here is in `FasterRCNNConfig`.

    Attributes:
      num_classes: the background, class 0, included; 91 for COCO's category ids.
      backbone: a network of the imagenet family. Its first three blocks are the feature
        extractor, its fourth goes into the box head.
      head_stride: of block 4 on the pooled crops.
      proposal_filters: channels of the region proposal network's 3x3 convolution.
      head_adaptivity: where block 4 may halt in the box head: "none", "act" (for a
        region) or "sact" (for a position of a region); null for that of the backbone.
      head_tau: weight of the box head's ponder cost.
    """

    num_classes: int = 91
    backbone: configs.Backbone = dataclasses.field(default_factory=_backbone)
    head_stride: int = 1
    proposal_filters: int = 512
    anchor_sizes: Sequence[float] = dataclasses.field(
        default_factory=lambda: list(FasterRCNNConfig.anchor_sizes)
    )
    aspect_ratios: Sequence[float] = dataclasses.field(
        default_factory=lambda: list(FasterRCNNConfig.aspect_ratios)
    )
    num_proposals: int = FasterRCNNConfig.num_proposals
    pre_nms_top_k: int = FasterRCNNConfig.pre_nms_top_k
    proposal_nms_iou: float = FasterRCNNConfig.proposal_nms_iou
    crop_size: int = FasterRCNNConfig.crop_size
    pool_size: int = FasterRCNNConfig.pool_size
    crops_at_once: int = FasterRCNNConfig.crops_at_once
    num_sampled: int = FasterRCNNConfig.num_sampled
    foreground_fraction: float = FasterRCNNConfig.foreground_fraction
    detection_nms_iou: float = FasterRCNNConfig.detection_nms_iou
    score_threshold: float = FasterRCNNConfig.score_threshold
    max_detections: int = FasterRCNNConfig.max_detections
    head_adaptivity: str | None = FasterRCNNConfig.head_adaptivity
    head_tau: float = FasterRCNNConfig.head_tau
    proposal_threshold: float = FasterRCNNConfig.proposal_threshold


@dataclasses.dataclass
class DetectionData(cfg.DataConfig):
    """Images with boxes: TFRecords, TFDS, or a COCO JSON and a folder of images.

    One of `input_path` (as `sact-tf coco-to-tfrecord` writes them), `tfds_name`
    (coco/2014 or coco/2017), or `annotation_file` and `image_dir` must be set.

    Attributes:
      annotation_file: COCO JSON.
      image_dir: folder of its images.
      shorter_side: pixels that the shorter side of every image is brought to ...
      longer_side: ... unless the longer one would then have more pixels than this.
      horizontal_flip: mirror every other image, in training.
      max_num_instances: boxes of an image, at most, in training. How many are left out
        is logged as `boxes_left_out`. Evaluations take all.
    """

    annotation_file: str = ""
    image_dir: str = ""
    shorter_side: int = 600
    longer_side: int = 1024
    horizontal_flip: bool = True
    max_num_instances: int = 100
    is_training: bool | None = True
    shuffle_buffer_size: int = 1000
    cycle_length: int | None = 10
    global_batch_size: int = 1


@dataclasses.dataclass
class DetectionScenes(cfg.DataConfig):
    """Digit scenes with one to four digits; see `configs.DigitScenes`.

    Attributes:
      image_size: side of the scenes.
      num_scenes: of an evaluation.
      max_digits: of a scene.
    """

    image_size: int = 128
    num_scenes: int = 500
    max_digits: int = 4
    seed: int | None = 0
    is_training: bool | None = True
    global_batch_size: int = 8


@dataclasses.dataclass
class DetectionLosses(hyperparams.Config):
    """Weights of the four losses, and of the L2 penalty (halved)."""

    proposal_score_weight: float = 1.0
    proposal_box_weight: float = 1.0
    class_weight: float = 1.0
    box_weight: float = 1.0
    l2_weight_decay: float = 0.0


@dataclasses.dataclass
class DetectionTask(cfg.TaskConfig):
    """Detection with ponder cost.

    Attributes:
      init_checkpoint: what to start from: the folder of a classification or detection
        run, one of its checkpoints, a saved network, or a checkpoint of the authors'.
        A plain network's weights are taken into an ACT or SACT network.
      seed: of the initial weights; None for other ones each time.
      reference_units: residual units of the plain feature extractor that the logged
        `flops_share` compares with: ResNet-101's, as in table 1.
      allow_image_summary: whether evaluations write pictures to TensorBoard.
      synchronize_batch_norm: see the classification task; without effect where batch
        norm is fixed.
    """

    model: DetectionModel = dataclasses.field(default_factory=DetectionModel)
    train_data: cfg.DataConfig = dataclasses.field(
        default_factory=lambda: DetectionData(is_training=True)
    )
    validation_data: cfg.DataConfig = dataclasses.field(
        default_factory=lambda: DetectionData(is_training=False, drop_remainder=False)
    )
    losses: DetectionLosses = dataclasses.field(default_factory=DetectionLosses)
    seed: int | None = None
    reference_units: Sequence[int] = dataclasses.field(
        default_factory=lambda: [3, 4, 23]
    )
    allow_image_summary: bool = True
    synchronize_batch_norm: bool = True
