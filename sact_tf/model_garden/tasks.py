"""The classification task: cross-entropy, L2 and ponder cost, with the costs logged."""

import contextlib
import threading

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging
from official.core import task_factory
from official.vision.tasks import image_classification as garden

from sact_tf import annealing, visualization
from sact_tf.checkpoints.transfer import initialize_from
from sact_tf.geometry.control_flow import for_xla
from sact_tf.model_garden import (
    backbones,
    configs,
    device_inputs,
    inputs,
    numerics,
    runs,
)

_IMAGES_SHOWN = 4


@task_factory.register_task_cls(configs.ClassificationTask)
class ClassificationTask(garden.ImageClassificationTask):
    """The Garden's classification task with a network that decides how long to run.

    The loss has tau times the ponder cost (eqn 13) and the L2 penalty, both from the
    network's own `losses`. Logs and TensorBoard have, beside the accuracies, the ponder
    cost, the mean units of each block and the FLOPs, all per image; and pictures of
    ponder cost maps at every evaluation.
    """

    #: Whether the first loss that is not finite ends the training, and says why.
    ends_where_not_finite = False
    #: Steps in which the temperature of SSIN's masks goes down to that of inference.
    annealing_steps: int | None = None
    #: Whether XLA compiles the steps of a training.
    under_xla = False
    #: Whether the task sees to that; where there are GPUs, the Garden's trainer does.
    compiles_steps = False
    _network = None  # of the last model built, to draw its maps
    _device_data = None  # what is trained on, if it is on the device

    def __init__(self, params, logging_dir=None, name=None):
        """See the Garden's task."""
        super().__init__(params, logging_dir=logging_dir, name=name)
        # What is being trained on; every replica has a thread.
        self._this_thread = threading.local()

    def build_model(self) -> backbones.ClassificationModel:
        """Makes the network; with `seed`, always the same."""
        config = self.task_config
        if config.model.backbone.type != "sact_resnet":
            raise ValueError(
                "task.model.backbone.type must be 'sact_resnet'; for others there is "
                f"the Garden's own task. Received: {config.model.backbone.type!r}"
            )
        if config.seed is not None:
            tf_keras.utils.set_random_seed(config.seed)
        backbone = config.model.backbone.sact_resnet
        if backbone.num_blocks is not None:
            raise ValueError(
                "task.model.backbone.sact_resnet.num_blocks is for tasks that add "
                f"blocks themselves. Received: {backbone.num_blocks}"
            )
        network = backbones.build_network(
            backbone,
            num_classes=config.model.num_classes,
            weight_decay=config.losses.l2_weight_decay,
        )
        backbones.synchronize_batch_norm(network, config.synchronize_batch_norm)
        model = backbones.ClassificationModel(network)
        if config.freeze_backbone:
            for layer in (network.root_layer, *network.blocks):
                layer.trainable = False
        self._network = network
        return model

    def initialize(self, model):
        """Takes weights from `init_checkpoint`, when a run begins."""
        path = self.task_config.init_checkpoint
        if not path:
            return
        modules = self.task_config.init_checkpoint_modules
        if modules not in ("all", "backbone"):
            raise ValueError(
                "task.init_checkpoint_modules must be 'all' or 'backbone'. Received: "
                f"{modules!r}"
            )
        try:
            source = runs.load(path).network
            kept = initialize_from(model.network, source, head=modules == "all")
        except (OSError, ValueError) as error:
            raise ValueError(f"task.init_checkpoint: {error}") from error
        logging.info("Weights from %s; %d variables are fresh.", path, len(kept))

    def build_inputs(self, params, input_context=None) -> tf.data.Dataset:
        """Batches of images and labels; those of training go on where a run stopped."""
        kind = "train_data" if params.is_training else "validation_data"
        model = self.task_config.model
        height, width, _ = model.input_size
        if height != width:
            raise ValueError(
                "task.model.input_size must be square. Received: "
                f"{list(model.input_size)}"
            )
        first_step = runs.steps_done(self.logging_dir) if params.is_training else 0
        if params.is_training and getattr(params, "on_device", False):
            self._device_data = self._device_data or device_inputs.device_data(
                params,
                num_classes=model.num_classes,
                image_size=height,
                field=f"task.{kind}",
            )
            return self._device_data.from_step(first_step).draws()
        return inputs.dataset(
            params,
            num_classes=model.num_classes,
            image_size=height,
            input_context=input_context,
            first_step=first_step,
            field=f"task.{kind}",
        )

    def build_losses(self, labels, model_outputs, aux_losses=None) -> tf.Tensor:
        """Mean cross-entropy plus the network's own losses (ponder cost and L2)."""
        loss = super().build_losses(labels, model_outputs["logits"], aux_losses)
        step = getattr(self._this_thread, "step", None)
        if step and self.ends_where_not_finite:
            loss = numerics.checked(loss, parts=model_outputs, **step)
        return loss

    def train_step(self, inputs, model, optimizer, metrics=None) -> dict:
        """As the Garden's; a loss that is not finite says where that began.

        Args:
          inputs: images and labels, or what `build_inputs` draws of data that are on
            the device.
          model: what `build_model` has made.
          optimizer: of the trainer.
          metrics: of `build_metrics`.
        """

        def step(inputs):
            with for_xla() if self.under_xla else contextlib.nullcontext():
                return self._train_step(inputs, model, optimizer, metrics)

        if self.compiles_steps:
            step = tf.function(step, jit_compile=True)
        return step(inputs)

    def _train_step(self, inputs, model, optimizer, metrics):
        if self._device_data is not None:
            inputs = self._device_data.batch(*inputs)
        self._anneal(model, optimizer.iterations)
        self._this_thread.step = {
            "images": inputs[0],
            "model": model,
            "optimizer": optimizer,
        }
        try:
            return super().train_step(inputs, model, optimizer, metrics)
        finally:
            self._this_thread.step = None

    def _anneal(self, model, step):
        """Sets the temperature of the step, where there is one."""
        if not self.annealing_steps:
            return
        end = self.task_config.model.backbone.sact_resnet.masks.temperature
        step = tf.cast(step, tf.float32)
        for variable in annealing.temperatures(model):
            value = annealing.temperature(step, self.annealing_steps, end=end)
            variable.assign(value)

    def build_metrics(self, training=True) -> list[tf_keras.metrics.Metric]:
        """Accuracies, and a mean for each of the costs."""
        blocks = len(self.task_config.model.backbone.sact_resnet.units)
        costs = [tf_keras.metrics.Mean(name) for name in backbones.cost_names(blocks)]
        return super().build_metrics(training) + costs

    def process_metrics(self, metrics, labels, model_outputs, **kwargs):
        """Costs are averaged as they are; the others compare logits with labels."""
        for metric in metrics:
            if metric.name in model_outputs:
                metric.update_state(model_outputs[metric.name])
            else:
                metric.update_state(labels, model_outputs["logits"])

    def validation_step(self, inputs, model, metrics=None) -> dict:
        """As the Garden's; hands on some images to draw."""
        logs = super().validation_step(inputs, model, metrics)
        if self._draws_maps:
            logs["images"] = inputs[0][:_IMAGES_SHOWN]
        return logs

    def aggregate_logs(self, state, step_logs):
        """Keeps images of the first batch."""
        if state is None and "images" in step_logs:
            return {"images": step_logs["images"][0]}  # Those of the first replica.
        return state

    def reduce_aggregated_logs(self, aggregated_logs, global_step=None) -> dict:
        """Draws the images beside their ponder cost maps, for TensorBoard."""
        images = aggregated_logs["images"]
        record = self._network.introspect(images)
        figure = visualization.ponder_cost_maps(images.numpy(), record)
        picture = visualization.to_array(figure)
        return {"image/ponder_cost_maps": picture[np.newaxis]}

    @property
    def _draws_maps(self):
        adaptivity = self.task_config.model.backbone.sact_resnet.adaptivity
        return self.task_config.allow_image_summary and adaptivity != "none"
