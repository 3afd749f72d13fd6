"""Numbers of a training: their precision, and where they stop being finite."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from official.modeling import performance

from sact_tf.training import NonFiniteLossError

_PRECISIONS = ("float32", "float16", "bfloat16")
_BEGINNING = "The loss is not finite"
_END = "(docs/model_garden.md says more about losses that are not finite.)"
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
    compiled = params.runtime.enable_xla and params.runtime.num_gpus > 0
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
    images: tf.Tensor | None = None,
    parts: Mapping[str, tf.Tensor] | None = None,
) -> tf.Tensor:
    """The loss; computing it fails where it is not finite, and says where it began.

    To be called before the optimizer changes the variables. As long as the loss is
    finite, nothing but the loss is looked at.

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
    parts = {
        name: tf.stop_gradient(part)
        for name, part in {**(parts or {}), "the loss itself": loss}.items()
    }

    # Not within the branch: an optimizer may make the variable when it is asked first.
    step = tf.cast(optimizer.iterations, tf.int64) + 1

    def fail():
        kind = tf.where(tf.math.is_nan(value), "NaN", "infinite")
        number = tf.strings.as_string(step)
        said = [f"{_BEGINNING} (", kind, ") at step ", number, ". It began in "]
        message = tf.strings.join([*said, _where(model, images, parts), f" {_END}"])
        with tf.control_dependencies([tf.debugging.Assert(good, [message])]):
            return tf.identity(value)

    with tf.control_dependencies([tf.cond(good, lambda: value, fail)]):
        return tf.identity(loss)


def _where(model, images, parts):
    """What is the first that is not finite, and what to try."""
    name, _, _ = _first(list(parts), list(parts.values()))
    where = tf.strings.join(
        [name, f", while all variables are finite. Try {_SLOWER}, or bfloat16."]
    )
    for variables, kind, rest in (
        (
            model.non_trainable_variables,
            "fixed variables and moving statistics",
            ", while the weights are finite: batch norm met numbers that are not. Try "
            "fixed batch norm (freeze_batch_norm=true), images of one size or batches "
            f"of one, {_SLOWER}.",
        ),
        (
            model.trainable_variables,
            "weights",
            f", which the step before has spoilt. Try {_SLOWER}.",
        ),
    ):
        floating = [v for v in variables if v.dtype.is_floating]
        if not floating:
            continue
        name, bad, count = _first(
            [variable.name.partition(":")[0] for variable in floating],
            [_value(variable) for variable in floating],
        )
        count = tf.strings.as_string(count)
        several = [" (one of ", count, f" of {len(floating)} {kind})"]
        where = tf.where(bad, tf.strings.join([name, *several, rest]), where)
    if images is None:
        return where
    return tf.where(
        tf.reduce_all(tf.math.is_finite(images)),
        where,
        "the images of the batch, which come from the data so.",
    )


def _first(names: Sequence[str], tensors: Sequence[tf.Tensor]):
    """The first that is not finite, whether there is any, and how many there are."""
    bad = tf.stack([~tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors])
    bad = tf.cast(bad, tf.int32)
    count = tf.reduce_sum(bad)
    return tf.gather(tf.constant(names), tf.argmax(bad)), count > 0, count


def _value(variable):
    """What a variable is now, on this replica.

    Reading it as usual, a cache of asynchronous workers would keep a tensor that only
    exists where this is read.
    """
    if tf.inside_function():
        return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    return variable.read_value()
