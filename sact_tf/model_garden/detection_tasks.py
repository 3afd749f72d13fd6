"""The detection task: the four losses of Faster R-CNN, ponder cost, COCO's metrics."""

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging
from official.core import base_task, task_factory
from official.vision.evaluation import coco_evaluator

from sact_tf import visualization
from sact_tf.detection import costs, losses
from sact_tf.detection.config import NUM_BLOCKS
from sact_tf.detection.faster_rcnn import FasterRCNN
from sact_tf.model_garden import (
    backbones,
    detection_configs,
    detection_inputs,
    detectors,
    labels,
    numerics,
    runs,
)
from sact_tf.models.cost_record import enlarge, per_image

_IMAGES_SHOWN = 4
_SCORE_SHOWN = 0.5
_LEFT_OUT = "boxes_left_out"
_LOSSES = ("total_loss", *losses.NAMES, "auxiliary_loss")


@task_factory.register_task_cls(detection_configs.DetectionTask)
class DetectionTask(base_task.Task):
    """Trains and evaluates a detector.

    Logs and TensorBoard have every loss, the ponder cost, the mean units of each block
    and the FLOPs of the feature extractor, also as a share of those of a plain one;
    ponder cost (mean over regions) and FLOPs of the region heads; and at every
    evaluation COCO's twelve metrics, and pictures of detections beside ponder cost
    maps.
    """

    #: Whether the first loss that is not finite ends the training, and says why.
    ends_where_not_finite = False
    _evaluator = None

    def build_model(self) -> FasterRCNN:
        """Makes the detector; with `seed`, always the same."""
        config = self.task_config
        if config.seed is not None:
            tf_keras.utils.set_random_seed(config.seed)
        detector = detectors.build(config.model, config.losses.l2_weight_decay)
        backbones.synchronize_batch_norm(detector, config.synchronize_batch_norm)
        return detector

    def initialize(self, model):
        """Takes weights from `init_checkpoint`, when a run begins."""
        path = self.task_config.init_checkpoint
        if not path:
            if self.task_config.model.backbone.sact_resnet.freeze_batch_norm:
                logging.warning(
                    "Batch norm is fixed and there is no task.init_checkpoint: the "
                    "detector starts from random weights and will hardly learn."
                )
            return
        try:
            kept = detectors.initialize(model, path)
        except (OSError, ValueError) as error:
            raise ValueError(f"task.init_checkpoint: {error}") from error
        logging.info("Weights from %s; fresh are %s.", path, ", ".join(kept) or "none")

    def build_inputs(self, params, input_context=None) -> tf.data.Dataset:
        """Batches of images and labels; see `detection_inputs`."""
        training = params.is_training
        return detection_inputs.dataset(
            params,
            num_classes=self.task_config.model.num_classes,
            input_context=input_context,
            first_step=runs.steps_done(self.logging_dir) if training else 0,
            field=f"task.{'train_data' if training else 'validation_data'}",
        )

    def build_losses(self, labels, model_outputs, aux_losses=None) -> dict:
        """The losses by name; "total_loss" is what is minimised."""
        return losses.detector_losses(
            model_outputs, labels["boxes"], self.task_config.losses, aux_losses or ()
        )

    def build_metrics(self, training=True) -> list[tf_keras.metrics.Metric]:
        """A mean for each of the losses, in training, and of the costs.

        In training also how many boxes `max_num_instances` has left out.
        """
        names = [*backbones.cost_names(NUM_BLOCKS), "flops_share", *costs.HEAD_COSTS]
        if training:
            names += _LOSSES
        else:
            self._evaluator = coco_evaluator.COCOEvaluator(
                annotation_file=None, include_mask=False
            )
        metrics = [tf_keras.metrics.Mean(name) for name in names]
        return [*metrics, tf_keras.metrics.Sum(_LEFT_OUT)] if training else metrics

    def train_step(self, inputs, model, optimizer, metrics=None) -> dict:
        """One step of gradient descent."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        size = self.task_config.train_data.global_batch_size // replicas
        # Asynchronous workers' iterators forget it, and sampling must know.
        images, labels = tf.nest.map_structure(
            lambda value: tf.ensure_shape(value, [size, *value.shape[1:]]), inputs
        )
        # With float16: small gradients would be zero.
        scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
        with tf.GradientTape() as tape:
            outputs = model(
                images,
                image_shapes=labels["image_shapes"],
                boxes=labels["boxes"],
                classes=labels["classes"],
                training=True,
            )
            found = self.build_losses(labels, outputs, model.losses)
            if self.ends_where_not_finite:
                found["total_loss"] = numerics.checked(
                    found["total_loss"],
                    model=model,
                    optimizer=optimizer,
                    images=images,
                    parts=_in_order(outputs, found),
                )
            loss = found["total_loss"] / replicas
            if scaled:
                loss = optimizer.get_scaled_loss(loss)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        if scaled:
            gradients = optimizer.get_unscaled_gradients(gradients)
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        values = {**found, **self._costs(model, outputs, labels)}
        self._measure(metrics, {**values, _LEFT_OUT: labels[_LEFT_OUT]})
        return {self.loss: found["total_loss"]}

    def validation_step(self, inputs, model, metrics=None) -> dict:
        """Detects objects, and hands them on to the evaluator."""
        images, labels = inputs
        outputs = model(images, image_shapes=labels["image_shapes"], training=False)
        self._measure(metrics, self._costs(model, outputs, labels))
        detections = {
            key: outputs[key]
            for key in (
                "detection_boxes",
                "detection_scores",
                "detection_classes",
                "num_detections",
            )
        }
        detections["image_info"] = labels["image_info"]
        detections["source_id"] = labels["groundtruths"]["source_id"]
        logs = {"detections": detections, "groundtruths": labels["groundtruths"]}
        replicas = tf.distribute.get_replica_context()
        if replicas.num_replicas_in_sync > 1:
            # COCO's metrics need the images of all replicas, those of other processes
            # too.
            logs["groundtruths"] = _as_wide_as_all(logs["groundtruths"], replicas)
            logs = tf.nest.map_structure(
                lambda values: replicas.all_gather(values, axis=0), logs
            )
        if self.task_config.allow_image_summary:
            costs_of_blocks = [
                enlarge(block["ponder_cost"], tf.shape(images)[1:3])
                for block in outputs["record"]["blocks"]
            ]
            logs["pictures"] = {
                "images": images[:1],
                "maps": tf.add_n(costs_of_blocks)[:1],
            }
        return logs

    def aggregate_logs(self, state=None, step_logs=None) -> dict:
        """Collects detections, and the first few images to draw."""
        if state is None:
            self._evaluator.reset_states()
            state = {"pictures": []}
        # Every replica has those of all.
        self._evaluator.update_state(
            *(
                {key: replicas[:1] for key, replicas in step_logs[part].items()}
                for part in ("groundtruths", "detections")
            )
        )
        if "pictures" in step_logs and len(state["pictures"]) < _IMAGES_SHOWN:
            values = {**step_logs["pictures"], **step_logs["detections"]}
            # The first image of the first replica.
            state["pictures"].append(
                {key: replicas[0].numpy()[0] for key, replicas in values.items()}
            )
        return state

    def reduce_aggregated_logs(self, aggregated_logs, global_step=None) -> dict:
        """COCO's metrics, and a picture for TensorBoard."""
        logs = dict(self._evaluator.result())
        pictures = aggregated_logs["pictures"]
        if pictures:
            figure = visualization.detections(
                [entry["images"] for entry in pictures],
                [_confident(entry) for entry in pictures],
                [entry["maps"][..., 0] for entry in pictures],
                labels.by_class(labels.find(self.task_config, self.logging_dir)),
            )
            logs["image/detections"] = visualization.to_array(figure)[np.newaxis]
        return logs

    def _costs(self, model, outputs, labels) -> dict:
        record = outputs["record"]
        flops = tf.cast(record["flops"], tf.float32)
        reference = costs.plain_flops(
            model.extractor, labels["image_shapes"], self.task_config.reference_units
        )
        units = [per_image(block["num_units"], block) for block in record["blocks"]]
        values = (record["ponder_cost"], *units, flops)
        names = backbones.cost_names(len(units))
        return {
            **dict(zip(names, values, strict=True)),
            "flops_share": flops / tf.cast(reference, tf.float32),
            **costs.head_costs(record),
        }

    def _measure(self, metrics, values):
        for metric in metrics or []:
            metric.update_state(values[metric.name])


def _in_order(outputs, found):
    """What a loss comes from, by name, in the order of computation."""
    blocks = {
        f"the output of block{number}": block["output"]
        for number, block in enumerate(outputs["record"]["blocks"], 1)
    }
    names = ("proposal_logits", "proposal_boxes", "class_logits", "box_outputs")
    losses = {name: value for name, value in found.items() if name != "total_loss"}
    return {**blocks, **{name: outputs[name] for name in names}, **losses}


def _as_wide_as_all(truth, replicas):
    """Objects with room for as many as an image of any replica has."""
    width = tf.shape(truth["classes"])[1]
    widest = tf.reduce_max(replicas.all_gather(width[tf.newaxis], axis=0))
    room = [[0, 0], [0, widest - width]]
    return {
        key: tf.pad(values, [*room, *[[0, 0]] * (values.shape.rank - 2)])
        if values.shape.rank > 1
        else values
        for key, values in truth.items()
    }


def _confident(entry):
    """Detections of an image that are worth drawing, in pixels of the resized image."""
    shown = entry["detection_scores"] > _SCORE_SHOWN
    return {
        name: entry[f"detection_{name}"][shown]
        for name in ("boxes", "scores", "classes")
    }
