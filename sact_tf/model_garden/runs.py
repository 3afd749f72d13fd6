"""Runs of the Model Garden, and what they leave behind: the network and the data."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf
import tf_keras
import yaml
from official.core import base_task, task_factory, train_lib, train_utils
from official.core import config_definitions as cfg
from official.vision.utils import summary_manager

from sact_tf import errors
from sact_tf.checkpoints import patterns
from sact_tf.model_garden import (
    backbones,
    configs,
    fields,
    inputs,
    labels,
    numerics,
)
from sact_tf.models.resnet import ResNet

_PARAMS = "params.yaml"
_GLOBAL_STEP = "global_step/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True)
class Run:
    """A classification run of sact_tf.

    Attributes:
      folder: of the run (`--model_dir`).
      checkpoint: prefix of the checkpoint.
      model: config of the network.
      weight_decay: of the L2 penalty.
      validation_data: config of the data to evaluate on.
    """

    folder: str
    checkpoint: str
    model: configs.ClassificationModel
    weight_decay: float
    validation_data: cfg.DataConfig

    @functools.cached_property
    def network(self) -> ResNet:
        """The network with its trained weights.

        Raises:
          ValueError: the checkpoint does not fit, or is not whole.
        """
        network = backbones.build_network(
            self.model.backbone.sact_resnet,
            num_classes=self.model.num_classes,
            weight_decay=self.weight_decay,
        )
        restore(backbones.ClassificationModel(network), self.checkpoint, self.folder)
        return network

    def validation_batches(self) -> tf.data.Dataset:
        """Images and labels to evaluate on; see `inputs.dataset`."""
        return inputs.dataset(
            self.validation_data,
            num_classes=self.model.num_classes,
            image_size=self.model.input_size[0],
            field="task.validation_data",
        )


def train(
    params: cfg.ExperimentConfig,
    folder: str | os.PathLike,
    mode: str = "train",
    *,
    strategy: tf.distribute.Strategy | None = None,
    actions: Sequence[Callable[[dict], None]] = (),
    save_aside: bool = False,
) -> tf_keras.Model:
    """What `sact-tf train` does, within a process: a run that was stopped goes on.

    Args:
      params: the experiment.
      folder: of the run.
      mode: "train", "train_and_eval" or another one of the Garden's.
      strategy: where to train; on the first CPU by default.
      actions: called with the losses and metrics after every `steps_per_loop` steps.
      save_aside: whether training goes on while a checkpoint is written.

    Returns:
      The trained model.

    Raises:
      ValueError: the experiment cannot be run (the message names the field), or the
        folder's name is one that TensorFlow takes for a pattern.
      NonFiniteLossError: the message says where it began, and what to try.
    """
    folder = os.fspath(folder)
    patterns.refuse(folder, "A run")
    for part in ("task", "runtime"):
        fields.check(getattr(params, part), f"{part}.")
    # The Garden leaves there the variable of the last run of this process.
    tf.summary.experimental.set_step(None)
    if "train" in mode:
        train_utils.serialize_config(params, folder)
        labels.keep(params.task, folder)
    strategy = strategy or tf.distribute.OneDeviceStrategy("cpu:0")
    _check_device_data(params, mode, strategy)
    with numerics.precision(params.runtime), numerics.explained():
        model, _ = train_lib.run_experiment(
            strategy,
            make_task(params, folder, strategy),
            mode,
            params,
            folder,
            train_actions=list(actions),
            eval_summary_manager=summary_manager.maybe_build_eval_summary_manager(
                params, folder
            ),
            enable_async_checkpointing=save_aside,
        )
    return model


def _check_device_data(params, mode, strategy):
    data = params.task.train_data
    replicas = strategy.num_replicas_in_sync
    if "train" in mode and getattr(data, "on_device", False) and replicas > 1:
        raise ValueError(
            "task.train_data.on_device keeps the data on one device: set it to false, "
            f"or runtime.num_gpus to 1. Received: {replicas} replicas"
        )


def make_task(
    params: cfg.ExperimentConfig, folder: str, strategy: tf.distribute.Strategy
) -> base_task.Task:
    """The task of a run.

    Args:
      params: the experiment.
      folder: of the run.
      strategy: where to train.
    """
    with strategy.scope():
        task = task_factory.get_task(params.task, logging_dir=folder)
    # Tasks of the Garden's own do not ask.
    task.ends_where_not_finite = numerics.ends_where_not_finite(params)
    task.annealing_steps = params.trainer.train_steps
    task.under_xla = params.runtime.enable_xla
    task.compiles_steps = task.under_xla and not params.runtime.num_gpus
    return task


def load(path: str | os.PathLike) -> Run:
    """Opens a run.

    Args:
      path: the run's folder (`--model_dir`), for its last checkpoint; or the prefix of
        one of its checkpoints, `folder/ckpt-500`.

    Raises:
      FileNotFoundError: there is no checkpoint, or no params.yaml beside it or in the
        folder above.
      ValueError: these are not of a classification run of sact_tf.
    """
    folder, prefix, params = locate(path)
    model = configs.ClassificationModel()
    try:
        task = params["task"]
        model.override(task["model"])
        scenes = "num_scenes" in task["validation_data"]
        data = configs.DigitScenes() if scenes else configs.ImageData()
        data.override(task["validation_data"])
        weight_decay = float(task["losses"]["l2_weight_decay"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder}/{_PARAMS} is not of a classification run of sact_tf. ({error})"
        ) from error
    return Run(folder, prefix, model, weight_decay, data)


def locate(path: str | os.PathLike) -> tuple[str, str, dict]:
    """Finds what a run left: folder, prefix of the checkpoint, and its parameters.

    Args:
      path: as for `load`.

    Raises:
      FileNotFoundError: there is no checkpoint, or no params.yaml beside it or in the
        folder above.
      ValueError: the params.yaml is no YAML.
    """
    path = os.fspath(path)
    prefix = patterns.latest_checkpoint(path) if tf.io.gfile.isdir(path) else path
    if not prefix or not tf.io.gfile.exists(f"{prefix}.index"):
        raise FileNotFoundError(
            f"{path} has no checkpoint; give the folder of a run (its --model_dir) or "
            "the prefix of one of its checkpoints, such as folder/ckpt-500"
        )
    folder = os.path.dirname(prefix)
    # The best checkpoint is exported to a folder below that of the run.
    places = [folder, os.path.dirname(folder)]
    found = [p for p in places if tf.io.gfile.exists(os.path.join(p, _PARAMS))]
    if not found:
        raise FileNotFoundError(
            f"There is no {_PARAMS} beside {prefix}, which says what network it is"
        )
    try:
        with tf.io.gfile.GFile(os.path.join(found[0], _PARAMS)) as file:
            return found[0], prefix, yaml.safe_load(file)
    except yaml.YAMLError as error:
        raise ValueError(f"{found[0]}/{_PARAMS} is no YAML file. ({error})") from error


def restore(model: tf.Module, checkpoint: str, folder: str) -> None:
    """Reads a run's weights into its model.

    Raises:
      ValueError: the checkpoint does not fit, or is not whole.
    """
    try:
        with patterns.literal_prefix(checkpoint) as prefix:
            status = tf.train.Checkpoint(model=model).read(prefix)
            status.expect_partial().assert_existing_objects_matched()
    except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
        raise ValueError(
            f"{checkpoint} does not fit the network of {folder}/{_PARAMS}, or is not "
            f"whole. ({errors.cause(error)})"
        ) from error


def steps_done(folder: str | None) -> int:
    """Steps that a run has taken, according to its last checkpoint; zero if new."""
    latest = folder and patterns.latest_checkpoint(folder)
    if not latest:
        return 0
    # Not with the Garden's function, which makes a variable: in data sets of parameter
    # servers' workers there may be none.
    return int(patterns.load_variable(latest, _GLOBAL_STEP))
