"""Halting scores: how good the features are already (eqns 6 and 14, figure 6)."""

import tensorflow as tf
import tf_keras

from sact_tf.layers.convolution import Convolution
from sact_tf.layers.normalization import BatchNormalization

#: A first score of sigmoid(-3) lets all units run when training begins (section 4.1).
INITIAL_BIAS = -3.0


class GlobalHaltingScore(tf_keras.layers.Layer):
    """One score per image, H = sigmoid(W pool(x) + b) (eqn 6); b starts at -3.

    The pooled features are batch-normalised first, as in the authors' networks.
    """

    def __init__(
        self,
        channels: int,
        *,
        weight_decay: float = 0.0,
        batch_norm: dict,
        leak: float | None = None,
        name: str,
        dtype=None,
    ):
        """Creates the layer and its variables.

        Args:
          channels: C of the features.
          weight_decay: see Convolution.
          batch_norm: arguments of BatchNormalization.
          leak: slope of a leaky ReLU after the batch norm; None for no activation.
          name: name of the layer.
          dtype: dtype or policy.
        """
        super().__init__(name=name, dtype=dtype)
        self._leak = leak
        with tf.name_scope(name):
            self.global_norm = BatchNormalization(
                channels, name="global_norm", dtype=dtype, **batch_norm
            )
            self.global_conv = Convolution(
                channels,
                1,
                1,
                use_bias=self._bias_is_global,
                initial_bias=INITIAL_BIAS,
                weight_decay=weight_decay,
                name="global_conv",
                dtype=dtype,
            )
        self.built = True

    _bias_is_global = True

    def call(self, geometry, training=None, halting_bias=None):
        """Scores the geometry's features.

        Args:
          geometry: see sact_tf.geometry.
          training: whether batch norm uses the statistics of the batch.
          halting_bias: optional number, or one for each image [B], added to every
            logit: above zero the network stops sooner, below zero later.

        Returns:
          float32 scores of the shape of the decisions.
        """
        logit = tf.cast(self._logit(geometry, training), tf.float32)
        if halting_bias is not None:
            one_per_image = [-1] + [1] * (logit.shape.rank - 1)
            logit += tf.reshape(tf.cast(halting_bias, tf.float32), one_per_image)
        return tf.sigmoid(logit)

    def _logit(self, geometry, training):
        return geometry.decisions_per_image(
            self._global_logit(geometry, training)[:, 0]
        )

    def _global_logit(self, geometry, training):
        return self.global_conv(
            self._normalized(self.global_norm, geometry.global_mean(), training)
        )

    def _normalized(self, norm, x, training):
        x = norm(x, training=training)
        return x if self._leak is None else tf.nn.leaky_relu(x, self._leak)

    def flops(self, images: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """FLOPs of the score for each image: int64 [B].

        Args:
          images: int64 [B], one for images that run and zero for others.
          positions: int64 [B], active positions of each image.
        """
        del positions
        return self.global_conv.flops(images)


class SpatialHaltingScore(GlobalHaltingScore):
    """One score per position, H = sigmoid(W~ * x + W pool(x) + b) (eqn 14).

    W~ is a 3x3 convolution with one output channel, and carries the bias.
    """

    _bias_is_global = False

    def __init__(
        self,
        channels: int,
        *,
        weight_decay: float = 0.0,
        batch_norm: dict,
        leak: float | None = None,
        name: str,
        dtype=None,
    ):
        """Creates the layer and its variables; see GlobalHaltingScore."""
        super().__init__(
            channels,
            weight_decay=weight_decay,
            batch_norm=batch_norm,
            leak=leak,
            name=name,
            dtype=dtype,
        )
        with tf.name_scope(name):
            self.local_norm = BatchNormalization(
                channels, name="local_norm", dtype=dtype, **batch_norm
            )
            self.local_conv = Convolution(
                channels,
                1,
                3,
                use_bias=True,
                initial_bias=INITIAL_BIAS,
                weight_decay=weight_decay,
                name="local_conv",
                dtype=dtype,
            )

    def _logit(self, geometry, training):
        if self._leak is None and not self.local_norm.is_live(training):
            return geometry.linear_score(*self._linear())
        features = self._normalized(
            self.local_norm, geometry.features(radius=1), training
        )
        local = geometry.convolve(features, self.local_conv)
        everywhere = geometry.spread(self._global_logit(geometry, training))
        return geometry.decisions(local + everywhere)

    def _linear(self):
        """The whole score but its sigmoid as one projection: [10, C] and [10].

        Without an activation between them, batch norm (with moving statistics) and
        convolution are one linear map.
        """
        scale, offset = self.local_norm.folded()
        taps = tf.reshape(self.local_conv.kernel, [9, -1])
        taps = tf.cast(taps, tf.float32)
        global_scale, global_offset = self.global_norm.folded()
        pooled = tf.reshape(self.global_conv.kernel, [1, -1])
        pooled = tf.cast(pooled, tf.float32)
        kernel = tf.concat([scale * taps, global_scale * pooled], axis=0)
        constants = [
            tf.linalg.matvec(taps, offset),
            tf.linalg.matvec(pooled, global_offset)
            + tf.cast(self.local_conv.bias, tf.float32),
        ]
        return kernel, tf.concat(constants, axis=0)

    def flops(self, images, positions):
        """FLOPs of the score for each image: int64 [B]."""
        return super().flops(images, positions) + self.local_conv.flops(positions)
