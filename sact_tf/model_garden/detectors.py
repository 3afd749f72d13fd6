"""Detectors from configs, and weights from other networks into them."""

import dataclasses
import os

import tensorflow as tf
from official.core import config_definitions as cfg

from sact_tf.checkpoints import authors, files, patterns
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.detection.config import NUM_BLOCKS, FasterRCNNConfig
from sact_tf.detection.faster_rcnn import FasterRCNN
from sact_tf.model_garden import (
    backbones,
    detection_configs,
    detection_inputs,
    labels,
    runs,
)
from sact_tf.models.resnet import ResNet


def build(
    config: detection_configs.DetectionModel, weight_decay: float = 0.0
) -> FasterRCNN:
    """Makes the detector that a config describes, with fresh weights.

    Raises:
      ValueError: the config describes none; the message says which field to set.
    """
    field = "task.model"
    if config.backbone.type != "sact_resnet":
        raise ValueError(
            f"{field}.backbone.type must be 'sact_resnet'. Received: "
            f"{config.backbone.type!r}"
        )
    backbone = config.backbone.sact_resnet
    if backbone.family != "imagenet" or backbone.num_blocks != NUM_BLOCKS:
        raise ValueError(
            f"{field}.backbone.sact_resnet must be of family 'imagenet', with "
            f"num_blocks={NUM_BLOCKS}. Received: {backbone.family!r}, "
            f"{backbone.num_blocks}"
        )
    names = [option.name for option in dataclasses.fields(FasterRCNNConfig)]
    options = {name: getattr(config, name) for name in names if hasattr(config, name)}
    try:
        options["backbone"] = backbones.network_config(backbone, weight_decay)
        detector = FasterRCNN(FasterRCNNConfig(**options))
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
    if backbone.identity_units:
        detector.begin_as_identity()
    return detector


@dataclasses.dataclass(frozen=True)
class Run:
    """A detection run of sact_tf.

    Attributes:
      folder: of the run (`--model_dir`).
      checkpoint: prefix of the checkpoint.
      task: config of its task.
      detector: with its trained weights.
    """

    folder: str
    checkpoint: str
    task: detection_configs.DetectionTask
    detector: FasterRCNN

    @property
    def built(self) -> "Run":
        """The run: scripts for earlier versions have `run.built.detector`."""
        return self

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes, that of the background first; None if nobody knows.

        Raises:
          ValueError: the run's labels.txt has not one for each class.
        """
        return labels.find(self.task, self.folder)

    def labelled_images(self, data: cfg.DataConfig | None = None) -> tf.data.Dataset:
        """Images one by one, with labels, for an evaluation.

        Args:
          data: config of the data; that of the run's validation by default.

        Returns:
          See `detection_inputs`.
        """
        data = (data or self.task.validation_data).replace(
            is_training=False, drop_remainder=False, global_batch_size=1
        )
        return detection_inputs.dataset(
            data, num_classes=self.task.model.num_classes, field="task.validation_data"
        )


def is_run(path: str | os.PathLike) -> bool:
    """Whether a run is one of detection; see `load` for the path.

    Raises:
      FileNotFoundError: there is no checkpoint, or no params.yaml.
    """
    return _describes_detector(runs.locate(path)[2])


def load(
    path: str | os.PathLike,
    execution: str | None = None,
    num_proposals: int | None = None,
) -> Run:
    """Opens a detection run.

    Args:
      path: the run's folder (`--model_dir`), for its last checkpoint; or the prefix of
        one of its checkpoints, `folder/ckpt-500`.
      execution: see ResNet; as in the run by default.
      num_proposals: how many regions of an image the detector proposes, on which no
        weight depends; as in the run by default.

    Raises:
      FileNotFoundError: there is no checkpoint, or no params.yaml.
      ValueError: these are not of a detection run of sact_tf.
    """
    folder, prefix, params = runs.locate(path)
    task = detection_configs.DetectionTask()
    try:
        content = params["task"]
        for part in ("train_data", "validation_data"):
            if "num_scenes" in content[part]:
                setattr(task, part, detection_configs.DetectionScenes())
        task.override(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder}/params.yaml is not of a detection run of sact_tf. ({error})"
        ) from error
    if execution:
        task.model.backbone.sact_resnet.execution = execution
    if num_proposals:
        task.model.num_proposals = num_proposals
    detector = build(task.model, task.losses.l2_weight_decay)
    _check_head(detector, prefix, folder)
    runs.restore(detector, prefix, folder)
    return Run(folder, prefix, task, detector)


def _check_head(detector, prefix, folder):
    """Refuses a checkpoint whose head halts otherwise, which might seem to fit."""
    block = detector.box_head.block
    try:
        with patterns.literal_prefix(prefix) as literal:
            names = tf.train.load_checkpoint(literal).get_variable_to_shape_map()
    except (ValueError, tf.errors.OpError):
        return  # What is no checkpoint is found out when it is read.
    head = [name for name in names if name.startswith("model/box_head/block/")]
    scores = [name for name in head if "/halting_scores/" in name]
    there = "none"
    if scores:
        there = "sact" if any("/local_conv/" in name for name in scores) else "act"
    # Of one unit there is nothing to leave out, and nothing to decide.
    if head and len(block.units) > 1 and there != block.adaptivity:
        raise ValueError(
            f"The box head of {prefix} was trained with head_adaptivity={there!r}, but "
            f"{folder}/params.yaml says {block.adaptivity!r} (task.model."
            "head_adaptivity, or that of the backbone where this is null)"
        )


def initialize(detector: FasterRCNN, path: str) -> list[str]:
    """Takes weights from another network or detector.

    Blocks 1 to 3 go into the feature extractor and block 4, with the batch norm that
    follows it, into the box head. Heads are taken from detectors whose heads have the
    same shapes.

    Args:
      detector: the detector to initialise.
      path: a classification or detection run (its folder, or the prefix of a
        checkpoint), a saved network (.keras or SavedModel) or detector (.keras), or
        the prefix of a checkpoint of the authors'.

    Returns:
      Names of the variables and layers that keep their values.

    Raises:
      FileNotFoundError: there is nothing of the kind.
      ValueError: it does not fit.
    """
    source, other = _source(path)
    kept = initialize_from(detector.parts, source, head=False)
    theirs = _heads(other) if other else {}
    for name, layer in _heads(detector).items():
        given = theirs.get(name)
        if given is None or given.kernel.shape != layer.kernel.shape:
            kept.append(name)
            continue
        layer.kernel.assign(given.kernel)
        layer.bias.assign(given.bias)
    return kept


def _heads(detector):
    """Convolutions of the heads, without block 4, by name."""
    return {
        f"{head.name}/{layer.name}": layer
        for head, layers in (
            (detector.proposal_head, ("conv", "scores", "boxes")),
            (detector.box_head, ("classes", "boxes")),
        )
        for layer in (getattr(head, name) for name in layers)
    }


def _source(path):
    """A network, and the detector that it is of, if it is of one."""
    if path.endswith(".keras") or os.path.exists(os.path.join(path, "saved_model.pb")):
        model = files.load(path, (ResNet, FasterRCNN))
        return (model.parts, model) if isinstance(model, FasterRCNN) else (model, None)
    try:
        _, _, params = runs.locate(path)
    except FileNotFoundError:
        if os.path.isdir(path):
            raise
        # A checkpoint that no run left: the authors'.
        network = ResNet(**authors.structure(path))
        authors.load_authors_checkpoint(network, path)
        return network, None
    if _describes_detector(params):
        detector = load(path).detector
        return detector.parts, detector
    return runs.load(path).network, None


def _describes_detector(params):
    try:
        return "head_stride" in params["task"]["model"]
    except (KeyError, TypeError):
        return False
