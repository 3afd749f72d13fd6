"""Training and evaluation steps of a detector, for `compile` and `fit`."""

import tensorflow as tf
import tf_keras

from sact_tf.detection import losses
from sact_tf.detection.costs import HEAD_COSTS, head_costs
from sact_tf.models.cost_logging import OptimizerFirst
from sact_tf.models.cost_record import per_image


class DetectorTraining(OptimizerFirst):
    """Goes before a detector that says what `losses.detector_losses` needs to know.

    Elements of a data set are pairs of images and a dict: boxes and classes of the
    objects, and, where images are padded, image_shapes (see FasterRCNN.call). The logs
    have `loss`, its parts, and the costs of the feature extractor and of the region
    heads, means over images.
    """

    _log_metrics = ()  # None for the Model Garden's trainer, which has its own.

    def compile(self, optimizer="sgd", **options):
        """Makes the detector ready for `fit` and `evaluate`; the losses are its own.

        Args:
          optimizer: see tf_keras.Model.compile.
          **options: see tf_keras.Model.compile.

        Raises:
          ValueError: there are losses or metrics among the options.
        """
        for name in ("loss", "metrics", "weighted_metrics", "loss_weights"):
            if options.get(name):
                raise ValueError(
                    "A detector has losses and metrics of its own (their weights are "
                    f"arguments of its config). Received: {name}={options[name]!r}"
                )
        super().compile(optimizer=optimizer, **options)
        blocks = [f"units_{block.name}" for block in self.extractor.blocks]
        names = ("loss", *losses.NAMES, "auxiliary_loss", "ponder_cost", *blocks)
        names = (*names, "flops", *HEAD_COSTS)
        with self.distribute_strategy.scope():
            self._log_metrics = [tf_keras.metrics.Mean(name) for name in names]

    def compile_from_config(self, config):
        """Compiles a detector from a file as it was; see tf_keras.Model."""
        options = tf_keras.saving.deserialize_keras_object(config)
        self.compile(**{key: options[key] for key in options if options[key]})
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self):
        """What `fit` logs, once the detector is compiled."""
        return list(self._log_metrics)

    def train_step(self, data):
        """One step of `fit`."""
        images, labels, _ = tf_keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            outputs, found = self._step(images, labels, training=True)
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            loss = found["total_loss"] / replicas
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return self._logs(outputs, found)

    def test_step(self, data):
        """One step of `evaluate`: losses of a sample of regions, and costs."""
        images, labels, _ = tf_keras.utils.unpack_x_y_sample_weight(data)
        return self._logs(*self._step(images, labels, training=False))

    def _step(self, images, labels, training):
        names = ("boxes", "classes")
        if not isinstance(labels, dict) or any(name not in labels for name in names):
            received = sorted(labels) if isinstance(labels, dict) else labels
            raise ValueError(
                "A detector is trained on pairs of images and a dict with boxes and "
                f"classes (and image_shapes). Received: {received}"
            )
        boxes = tf.cast(labels["boxes"], tf.float32)
        outputs = self(
            images,
            image_shapes=labels.get("image_shapes"),
            boxes=boxes,
            classes=labels["classes"],
            training=training,
        )
        return outputs, losses.detector_losses(
            outputs, boxes, self.config, penalties=self.losses
        )

    def _logs(self, outputs, found):
        record = outputs["record"]
        values = {
            **found,
            "loss": found["total_loss"],
            "ponder_cost": record["ponder_cost"],
            "flops": tf.cast(record["flops"], tf.float32),
            **head_costs(record),
        }
        for block, layer in zip(record["blocks"], self.extractor.blocks, strict=True):
            values[f"units_{layer.name}"] = per_image(block["num_units"], block)
        for metric in self._log_metrics:
            metric.update_state(values[metric.name])
        return {metric.name: metric.result() for metric in self._log_metrics}
