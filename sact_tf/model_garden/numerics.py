"""Numbers of a training: their precision, and where they stop being finite."""

import contextlib
import re
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from official.modeling import performance

from sact_tf.model_garden import configs
from sact_tf.training import NonFiniteLossError

_PRECISIONS = ("float32", "float16", "bfloat16")
_BEGINNING = "The loss is not finite"
_END = "(See Losses that are not finite in docs/model_garden.md.)"
_SLOWER = (
    "a smaller learning rate or a warm-up (trainer.optimizer_config.learning_rate and "
    ".warmup), clipped gradients (for instance trainer.optimizer_config.optimizer.sgd."
    "global_clipnorm=10)"
)


@contextlib.contextmanager
def precision(runtime: cfg.RuntimeConfig) -> Iterator[None]:
    """Layers made within compute in `runtime.mixed_precision_dtype`.

    Raises:
      ValueError: there is no such precision, or loss scale.
    """
    dtype, scale = runtime.mixed_precision_dtype, runtime.loss_scale
    if dtype and dtype not in _PRECISIONS:
        raise ValueError(
            f"runtime.mixed_precision_dtype must be one of {', '.join(_PRECISIONS)}. "
            f"Received: {dtype!r}"
        )
    if isinstance(scale, str) and scale != "dynamic":
        raise ValueError(
            f"runtime.loss_scale must be 'dynamic' or a number. Received: {scale!r}"
        )
    policy = tf_keras.mixed_precision.global_policy()
    if dtype:
        performance.set_mixed_precision_policy(dtype)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(policy)


def ends_where_not_finite(params: cfg.ExperimentConfig) -> bool:
    """Whether the first loss that is not finite ends a training.

    It does, unless the Garden is told to go back to a checkpoint then, or to go on; or
    unless XLA compiles the steps, which has no strings.
    """
    runtime = params.runtime
    # Other tasks are compiled by the Garden's trainer, where there are GPUs.
    ours = isinstance(params.task, configs.ClassificationTask)
    compiled = runtime.enable_xla and (ours or runtime.num_gpus > 0)
    return params.trainer.recovery_max_trials == 0 and not compiled


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raises NonFiniteLossError for what `checked` has found in a graph."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(f"{_BEGINNING}.*?{re.escape(_END)}", error.message, re.DOTALL)
        if not found:
            raise
        raise NonFiniteLossError(found.group()) from error


def checked(
    loss: tf.Tensor,
    *,
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    images: tf.Tensor,
    parts: Mapping[str, tf.Tensor] | None = None,
) -> tf.Tensor:
    """The loss; computing it fails where it is not finite, and says where it began.

    There is no condition around what finds that out, since conditions that spread over
    the devices of several replicas can wait for each other for ever. So it only looks
    at what is quick to look at: not at the weights.

    Args:
      loss: scalar.
      model: that it is of.
      optimizer: counts the steps. Losses that are infinite are left to one that scales
        them: it leaves such a step out.
      images: of the batch.
      parts: what the loss was computed from, by name, in the order of computation.

    Returns:
      The loss.
    """
    loss = tf.convert_to_tensor(loss)
    value = tf.stop_gradient(loss)
    scaled = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    good = ~tf.math.is_nan(value) if scaled else tf.math.is_finite(value)
    step = tf.strings.as_string(tf.cast(optimizer.iterations, tf.int64) + 1)
    kind = tf.where(tf.math.is_nan(value), "NaN", "infinite")
    parts = {"the images of the batch": images, **(parts or {}), "the loss": loss}
    where = tf.strings.join([_first_part(parts), f". Try {_SLOWER}, or bfloat16."])
    statistics = _statistics(model)
    if statistics:
        name, bad = _first_statistic(statistics)
        advice = (
            ": this batch norm met numbers that are not. Try "
            f"{_SLOWER}, or fixed batch norm (freeze_batch_norm=true)."
        )
        where = tf.where(bad, tf.strings.join([name, advice]), where)
    said = [f"{_BEGINNING} (", kind, ") at step ", step, ". It began in ", where]
    message = tf.strings.join([*said, f" {_END}"])
    with tf.control_dependencies([tf.debugging.Assert(good, [message])]):
        return tf.identity(loss)


def _first_part(parts):
    """Name of the first of some tensors that is not finite; the last if none is."""
    bad = [
        ~tf.reduce_all(tf.math.is_finite(tf.stop_gradient(part)))
        for part in list(parts.values())[:-1]
    ]
    return tf.gather(list(parts), tf.argmax(tf.cast([*bad, True], tf.int32)))


def _statistics(model):
    """Moving statistics of batch norms; none where reading them takes a network."""
    if isinstance(tf.distribute.get_strategy(), tf.distribute.ParameterServerStrategy):
        return []
    return [v for v in model.non_trainable_variables if "moving_" in v.name]


def _first_statistic(statistics):
    """Name of the first that is not finite, and whether there is any."""
    names = [variable.name.partition(":")[0] for variable in statistics]
    ends = np.cumsum([variable.shape.num_elements() for variable in statistics])
    values = tf.concat([tf.reshape(v.read_value(), [-1]) for v in statistics], 0)
    bad = ~tf.math.is_finite(values)
    first = tf.argmax(tf.cast(bad, tf.int32))
    index = tf.searchsorted(tf.constant(ends), first[tf.newaxis], side="right")[0]
    return tf.gather(names, index), tf.reduce_any(bad)
