"""Batch normalisation with the moving statistics of the authors' networks."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sact_tf.geometry.control_flow import gpu_is_visible
from sact_tf.geometry.maps import without_padding
from sact_tf.layers.arguments import FromArguments


class FixedNorm(NamedTuple):
    """Batch norm with given statistics, as a pure function: gamma * x^ + beta.

    Attributes:
      gamma, beta, mean, variance: float32 [C].
      epsilon: a number, added to the variance.
    """

    gamma: tf.Tensor
    beta: tf.Tensor
    mean: tf.Tensor
    variance: tf.Tensor
    epsilon: float

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalises [B, H, W, C] or [B, C]."""
        if _takes_arithmetic(inputs):
            scale, offset = self.folded()
            return tf.cast(tf.cast(inputs, tf.float32) * scale + offset, inputs.dtype)
        maps = _as_maps(inputs)
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=maps,
            scale=self.gamma,
            offset=self.beta,
            mean=self.mean,
            variance=self.variance,
            epsilon=self.epsilon,
            is_training=False,
        ).y
        return outputs if maps is inputs else tf.squeeze(outputs, [1, 2])

    def activated(self, inputs: tf.Tensor, activation: Callable) -> tf.Tensor:
        """Normalises [B, H, W, C] and activates; not for what a convolution gives.

        On CPUs every position goes in as an image of its own: oneDNN's batch norm
        shares out whole images to the cores, and one image would keep a single core
        busy. Behind a convolution TensorFlow fuses batch norms, which this would
        prevent.
        """
        if gpu_is_visible():
            return activation(self(inputs))
        positions = tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]])
        return tf.reshape(activation(self(positions)), tf.shape(inputs))

    def folded(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The same as x * scale + offset: two [C]."""
        scale = self.gamma * tf.math.rsqrt(self.variance + self.epsilon)
        return scale, self.beta - self.mean * scale


class LiveNorm(NamedTuple):
    """Batch norm with the statistics of the batch, which its layer follows.

    Attributes:
      gamma, beta: float32 [C].
      epsilon: a number, added to the variance.
      follow: is told mean and biased variance of the batch, [C], and the number of its
        positions, [].
    """

    gamma: tf.Tensor
    beta: tf.Tensor
    epsilon: float
    follow: Callable

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalises [B, H, W, C] or [B, C]."""
        if _takes_arithmetic(inputs):
            return self._by_arithmetic(inputs)
        maps = _as_maps(inputs)
        no_statistics = tf.constant([], tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=maps,
            scale=self.gamma,
            offset=self.beta,
            mean=no_statistics,
            variance=no_statistics,
            epsilon=self.epsilon,
            is_training=True,
        )
        # The operation returns the unbiased variance; the statistics are biased.
        count = tf.cast(tf.size(maps) // maps.shape[-1], tf.float32)
        self.follow(mean, variance * (1.0 - 1.0 / count), count)
        return outputs if maps is inputs else tf.squeeze(outputs, [1, 2])

    def _by_arithmetic(self, inputs):
        values = tf.cast(inputs, tf.float32)
        mean, variance = tf.nn.moments(values, list(range(values.shape.rank - 1)))
        count = tf.cast(tf.size(values) // values.shape[-1], tf.float32)
        self.follow(mean, variance, count)
        outputs = tf.nn.batch_normalization(
            values, mean, variance, self.beta, self.gamma, self.epsilon
        )
        return tf.cast(outputs, inputs.dtype)

    def activated(self, inputs: tf.Tensor, activation: Callable) -> tf.Tensor:
        """Normalises and activates."""
        return activation(self(inputs))


class NormBySums(NamedTuple):
    """The same over replicas, or without padding.

    Attributes:
      layer: the layer.
      valid: see BatchNormalization.call.
    """

    layer: tf_keras.layers.Layer
    valid: tf.Tensor | None = None

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalises [B, H, W, C] or [B, C]."""
        maps = _as_maps(inputs)
        outputs = self.layer.normalize_by_sums(maps, self.valid)
        return outputs if maps is inputs else tf.squeeze(outputs, [1, 2])

    def activated(self, inputs: tf.Tensor, activation: Callable) -> tf.Tensor:
        """Normalises and activates."""
        return activation(self(inputs))


#: Batch norm as a pure function of its weights, or nearly so.
Norm = FixedNorm | LiveNorm | NormBySums


class BatchNormalization(FromArguments, tf_keras.layers.BatchNormalization):
    """Batch norm over all axes but the last, built at once.

    Differs from tf_keras' layer in one point, which a loaded checkpoint would notice
    when training goes on: the moving variance follows the *biased* variance of the
    batch, as TF-Slim's does. It runs as one fused operation on maps and on rows alike.

    With `trainable = False` it uses its moving statistics in training, too.

    Under a synchronous tf.distribute strategy the statistics are those of the whole
    batch, over all replicas, so that a step does not depend on their number. Where maps
    are padded, they are those of the positions that are not.

    Attributes:
      synchronized: set it to false for statistics of each replica's part, which costs
        no communication.
    """

    def __init__(
        self,
        channels: int,
        *,
        momentum: float,
        epsilon: float,
        trainable: bool = True,
        initial_scale: float = 1.0,
        name: str,
        dtype=None,
    ):
        """Creates the layer and its variables.

        Args:
          channels: C of the input.
          momentum: decay of the moving statistics.
          epsilon: added to the variance.
          trainable: false freezes scale, offset and statistics.
          initial_scale: of all channels; zero for a residual that begins as nothing.
          name: name of the layer.
          dtype: dtype or policy; the global policy by default. Variables are float32.
        """
        super().__init__(
            momentum=momentum,
            epsilon=epsilon,
            gamma_initializer=tf_keras.initializers.Constant(initial_scale),
            trainable=trainable,
            name=name,
            dtype=dtype,
        )
        self.synchronized = True
        with tf.name_scope(name):
            self.build((None, None, None, channels))
        # Pooled features [B, C] as well as maps.
        self.input_spec = tf_keras.layers.InputSpec(axes={-1: channels})

    def call(self, inputs, training=None, valid=None):
        """Normalises [B, H, W, C] or [B, C].

        Args:
          inputs: maps or rows.
          training: whether to use the statistics of the batch.
          valid: optional bool [B, H, W], false where the maps are padding, which these
            statistics leave out, whatever is there; what comes out there is finite.
        """
        return self.bound(training, valid)(inputs)

    def bound(self, training=None, valid=None) -> Norm:
        """The layer as it normalises in training or at inference, to be called.

        Args:
          training: see `call`.
          valid: see `call`; of the maps that it will be called with.
        """
        if not self.is_live(training):
            return FixedNorm(
                *(self.gamma, self.beta, self.moving_mean, self.moving_variance),
                epsilon=self.epsilon,
            )
        if valid is not None or self._replicas() is not None:
            return NormBySums(self, valid)
        return LiveNorm(self.gamma, self.beta, self.epsilon, self._follow)

    def get_config(self):
        """See FromArguments; whether it is trained may have been set since."""
        return {**super().get_config(), "trainable": self.trainable}

    def _replicas(self):
        """The replicas that share their statistics, if there are several."""
        replicas = tf.distribute.get_replica_context()  # None outside of replicas.
        several = replicas is not None and replicas.num_replicas_in_sync > 1
        return replicas if several and self.synchronized else None

    def normalize_by_sums(self, maps: tf.Tensor, valid=None) -> tf.Tensor:
        """Normalises with the statistics of valid positions, of all replicas.

        Padding is taken for zeros from the start: nothing of what is there goes on.

        Args:
          maps: [B, H, W, C].
          valid: see `call`.
        """
        replicas = self._replicas()
        values = without_padding(tf.cast(maps, tf.float32), valid)
        if valid is None:
            count = tf.cast(tf.size(maps) // tf.shape(maps)[-1], tf.float32)
        else:
            count = tf.math.count_nonzero(valid, dtype=tf.int32)
            count = tf.cast(count, tf.float32)
        # Sums are taken around a mean: the difference of two large numbers would lose
        # the variance. The moving one is the same on all replicas.
        shift = self.moving_mean
        if replicas is None:
            sums = tf.reduce_sum(values, axis=[0, 1, 2])
            shift = tf.math.divide_no_nan(sums, count)
        shift = tf.stop_gradient(shift)
        shifted = without_padding(values - shift, valid)
        sums = tf.reduce_sum(shifted, axis=[0, 1, 2])
        squares = tf.reduce_sum(tf.square(shifted), axis=[0, 1, 2])
        if replicas is not None:
            sums, squares, count = tf.split(
                replicas.all_reduce(
                    tf.distribute.ReduceOp.SUM,
                    tf.concat([sums, squares, count[tf.newaxis]], axis=0),
                ),
                [maps.shape[-1], maps.shape[-1], 1],
            )
        offset = tf.math.divide_no_nan(sums, count)
        variance = tf.math.divide_no_nan(squares, count) - tf.square(offset)
        variance = tf.maximum(variance, 0.0)
        mean = shift + offset
        self._follow(mean, variance, count)
        outputs = tf.nn.batch_normalization(
            values, mean, variance, self.beta, self.gamma, self.epsilon
        )
        return tf.cast(outputs, maps.dtype)

    def is_live(self, training) -> bool:
        """Whether it uses the statistics of the batch."""
        return bool(training) and self.trainable

    def _follow(self, mean, variance, count):
        """Moves the moving statistics towards those of a batch of some positions."""
        # A replica of a distributed batch may get no image at all.
        rate = (1.0 - self.momentum) * tf.minimum(count, 1.0)
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign_sub(tf.math.multiply_no_nan(moving - value, rate))


def _takes_arithmetic(inputs):
    """Whether to do without the fused operation: for rows of 16 bits on a GPU.

    cuDNN takes ten times as long there as for maps of as many positions. Rows are
    [n, C], or maps one position wide (see geometry.Packed).
    """
    narrow = inputs.shape.rank == 2 or inputs.shape[2] == 1
    return narrow and inputs.dtype.size == 2 and gpu_is_visible()


def _as_maps(inputs):
    """[B, C] as [B, 1, 1, C]; maps as they are."""
    if inputs.shape.rank == 4:
        return inputs
    return tf.reshape(inputs, [-1, 1, 1, inputs.shape[-1]])
