"""Training and evaluation steps of a network that log what it costs."""

import contextlib

import tensorflow as tf
import tf_keras

from sact_tf.device_data import DeviceData
from sact_tf.geometry.control_flow import for_xla
from sact_tf.models import cost_record
from sact_tf.models.cost_metrics import CostMetric


class OptimizerFirst:
    """Goes before a model whose steps are traced once, and not twice."""

    def make_train_function(self, force=False):
        """Makes what the optimizer keeps first; see tf_keras.Model.

        A step that makes variables itself is traced twice.
        """
        if self._is_alone and hasattr(self.optimizer, "build"):
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    @property
    def _is_alone(self):
        """Whether no strategy is in charge, which makes variables its own way."""
        with self.distribute_strategy.scope():
            return not tf.distribute.has_strategy()


class CostLogging(OptimizerFirst):
    """Goes before a Backbone with a head, which calls `log_costs` when it is made.

    The logs of `fit` and `evaluate` then have, beside the losses, ponder_cost,
    units_block1, ... and flops: means over images.
    """

    def log_costs(self, num_outputs: int) -> None:
        """Makes the metrics.

        Args:
          num_outputs: of the network, for each image.
        """
        names = [f"units_{block.name}" for block in self.blocks]
        self._cost_metrics = [
            CostMetric(name) for name in ("ponder_cost", *names, "flops")
        ]
        self._num_outputs = num_outputs

    def note_costs(self, record: dict) -> None:
        """Keeps what a call has cost, for whoever's training step asks for it."""
        for metric, values in self._costs(record):
            metric.note(values)

    _device_data = None  # That the last call of `fit` was given, if it was.

    def fit(self, x=None, y=None, *arguments, **options):
        """See tf_keras.Model; makes the compiled metrics' variables before tracing.

        Args:
          x: as for tf_keras.Model; or `sact_tf.device_data.DeviceData`, whose batches
            are made on the device, within the step. An epoch has as many steps as there
            are whole batches, unless steps_per_epoch says otherwise.
          y: as for tf_keras.Model.
          *arguments: as for tf_keras.Model.
          **options: as for tf_keras.Model.

        Raises:
          ValueError: DeviceData with labels beside it, or for several replicas.
        """
        data = x if isinstance(x, DeviceData) else None
        if data is not None:
            self._check_device_data(y, arguments)
            options.setdefault("steps_per_epoch", data.steps_per_epoch)
            x = data.draws()
        if (data or self._device_data) and not (data and data.like(self._device_data)):
            self.train_function = None  # It was traced for other data.
        self._device_data = data
        if data is not None:
            make = tf.function(data.batch, autograph=False)
            made = make.get_concrete_function(*x.element_spec)
            y_spec = made.structured_outputs[1]
        elif isinstance(x, tf.data.Dataset):
            spec = x.element_spec
            y_spec = spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None
        else:
            y_spec = y if hasattr(y, "shape") else None
        metrics = self.compiled_metrics
        needed = metrics is not None and not metrics.built
        if needed and hasattr(y_spec, "shape") and self._is_alone:
            outputs = tf.TensorSpec([None, self._num_outputs])
            metrics.build(outputs, tf.TensorSpec(y_spec.shape))
        return super().fit(x, y, *arguments, **options)

    def _check_device_data(self, y, arguments):
        if y is not None or arguments:
            raise ValueError(
                "fit takes DeviceData alone: they have labels and the size of batches. "
                f"Received: y={type(y).__name__} and {len(arguments)} more arguments"
            )
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas > 1:
            raise ValueError(
                "DeviceData are on one device: give fit a tf.data.Dataset under a "
                f"strategy of several replicas. Received: {replicas} replicas"
            )

    def make_train_function(self, force=False):
        """See tf_keras.Model.

        Raises:
          ValueError: XLA cannot compile the network's execution.
        """
        self._check_compiled()
        return super().make_train_function(force)

    def make_test_function(self, force=False):
        """See `make_train_function`."""
        self._check_compiled()
        return super().make_test_function(force)

    def make_predict_function(self, force=False):
        """See `make_train_function`."""
        self._check_compiled()
        return super().make_predict_function(force)

    # Not in `compile`: Keras would not compile models that it loads any more.
    def _check_compiled(self):
        packs = self.config.execution in ("positions", "tiles")
        if self.jit_compile and packs and self.adaptivity != "none":
            raise ValueError(
                "XLA compiles for fixed shapes, and packed positions have none: make "
                "the network with execution='dense' or 'auto', or compile it with "
                f"jit_compile=False. Received: execution={self.config.execution!r}"
            )

    def _step(self):
        """Where a step is traced: with XLA "auto" is dense."""
        return for_xla() if self.jit_compile else contextlib.nullcontext()

    def predict_step(self, data):
        """One step of model.predict."""
        with self._step():
            return super().predict_step(data)

    def train_step(self, data):
        """One step of model.fit; logs the cost beside the losses."""
        if self._device_data is not None:
            data = self._device_data.batch(*data)
        x, y, weights = tf_keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape, self._step():
            record = self(x, training=True, with_record=True)
            loss = self.compute_loss(x, y, record["logits"], weights)
        self._validate_target_and_loss(y, loss)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        for metric, values in self._costs(record):
            metric.record(values)
        return self.compute_metrics(x, y, record["logits"], weights)

    def test_step(self, data):
        """One step of model.evaluate; logs the cost beside the losses."""
        x, y, weights = tf_keras.utils.unpack_x_y_sample_weight(data)
        with self._step():
            record = self(x, training=False, with_record=True)
        self.compute_loss(x, y, record["logits"], weights)
        for metric, values in self._costs(record):
            metric.record(values)
        return self.compute_metrics(x, y, record["logits"], weights)

    def _costs(self, record):
        """Pairs of a metric and a value for each image."""
        blocks = record["blocks"]
        units = [cost_record.per_image(block["num_units"], block) for block in blocks]
        values = (record["ponder_cost"], *units, record["flops"])
        return zip(self._cost_metrics, values, strict=True)
