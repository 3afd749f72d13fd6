"""What can be set in the Model Garden's YAML files and overrides.

These are `official`'s own dataclasses, extended. Their strict overrides refuse a field
that is not here, so nothing is here that would have no effect.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from official.core import config_definitions as cfg
from official.modeling import hyperparams
from official.vision.configs import backbones
from official.vision.configs import image_classification as garden

from sact_tf.layers.stochastic_sampling import Sampling

PREPROCESSING = ("imagenet", "cifar")


@dataclasses.dataclass
class Masks(hyperparams.Config):
    """SSIN's masks, with adaptivity "ssin"; see `masks` in docs/sampling.md."""

    grid: int = Sampling().grid
    window: int = Sampling().window
    temperature: float = Sampling().temperature
    seed: int | None = Sampling().seed


@dataclasses.dataclass
class SACTResNet(hyperparams.Config):
    """The backbone; all but the last two as in `sact_tf.ResNet`.

    `masks` are those of adaptivity "ssin", whose temperature goes down from one while
    it is trained, to that of inference in the trainer's last step.
    """

    family: str = "imagenet"
    units: Sequence[int] = dataclasses.field(default_factory=lambda: [3, 4, 23, 3])
    adaptivity: str = "sact"
    base_channels: int | None = None
    root_channels: int | None = None
    tau: float = 0.005
    epsilon: float = 0.01
    execution: str = "auto"
    tile_size: int = 1
    freeze_batch_norm: bool = False
    batch_norm_momentum: float | None = None
    sampling: str | None = None
    sampling_sizes: Sequence[float] | None = None
    masks: Masks = dataclasses.field(default_factory=Masks)
    #: Whether fresh weights make every unit the identity: helps short trainings.
    identity_units: bool = False
    #: Only the first so many blocks, for tasks that add more themselves.
    num_blocks: int | None = None


@dataclasses.dataclass
class Backbone(backbones.Backbone):
    """The Model Garden's choice of backbones, with `sact_resnet` among them."""

    type: str | None = "sact_resnet"
    sact_resnet: SACTResNet = dataclasses.field(default_factory=SACTResNet)


@dataclasses.dataclass
class ClassificationModel(hyperparams.Config):
    """The network that is trained.

    `input_size` is [height, width, 3] of the images; the network takes any.
    """

    num_classes: int = 1001
    input_size: Sequence[int] = dataclasses.field(default_factory=lambda: [224, 224, 3])
    backbone: Backbone = dataclasses.field(default_factory=Backbone)


@dataclasses.dataclass
class ImageData(cfg.DataConfig):
    """Images from TFRecords (`input_path`) or from TFDS (`tfds_name`).

    Attributes:
      preprocessing: "imagenet" (Inception augmentation and the central 87.5 %) or
        "cifar" (crops of the padded image, standardised images).
      image_size: side of the images; 0 for the model's `input_size`. Say here at which
        resolution to evaluate, if it is another one.
      first_label: the smallest label in the data, which becomes class 0, or class 1 if
        the network has one class more than the data (background). None for what is
        usual: see `inputs.label_offset`.
      image_field_key, label_field_key: features of the TFRecords.
      on_device: in training, keep all images in the memory of the device, and choose
        and augment them there, as a part of the step; for small data of preprocessing
        "cifar", on one device. Every image then comes once in an epoch, and a run that
        is taken up goes on exactly.
    """

    preprocessing: str = "imagenet"
    image_size: int = 0
    first_label: int | None = None
    image_field_key: str = "image/encoded"
    label_field_key: str = "image/class/label"
    on_device: bool = False
    is_training: bool | None = True
    shuffle_buffer_size: int = 10000
    cycle_length: int | None = 10
    # What the Garden's task asks for and our data do not have.
    is_multilabel: ClassVar[bool] = False


@dataclasses.dataclass
class DigitScenes(cfg.DataConfig):
    """Digit scenes, drawn while training (sact_tf.data.digit_scenes).

    Training scenes are all different; `seed` says which, and a run that is taken up
    goes on with those it has not seen.

    Attributes:
      image_size: side of the scenes; 0 for the model's `input_size`.
      num_scenes: of an evaluation.
    """

    image_size: int = 0
    num_scenes: int = 1000
    seed: int | None = 0
    is_training: bool | None = True
    is_multilabel: ClassVar[bool] = False


@dataclasses.dataclass
class ClassificationTask(garden.ImageClassificationTask):
    """Classification with ponder cost.

    Attributes:
      init_checkpoint: what to start from: the folder of another run, or one of its
        checkpoints. A plain network's weights are taken into an ACT or SACT network
        (section 4.1), and the first units of each block from a deeper network.
      init_checkpoint_modules: "all", or "backbone" to leave the classification layer
        out.
      seed: of the initial weights; None for other ones each time.
      allow_image_summary: whether evaluations write ponder cost maps to TensorBoard.
      synchronize_batch_norm: whether batch norm has the statistics of the whole batch
        where synchronous replicas share it, or each replica's own, which costs no
        communication.
    """

    model: ClassificationModel = dataclasses.field(default_factory=ClassificationModel)
    train_data: cfg.DataConfig = dataclasses.field(
        default_factory=lambda: ImageData(is_training=True)
    )
    validation_data: cfg.DataConfig = dataclasses.field(
        default_factory=lambda: ImageData(is_training=False)
    )
    seed: int | None = None
    allow_image_summary: bool = True
    synchronize_batch_norm: bool = True
