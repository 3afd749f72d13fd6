"""Halting scores: how good the features are already (eqns 6 and 14, figure 6)."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sact_tf.geometry.filters import Filter
from sact_tf.layers.maker import Made, Maker
from sact_tf.layers.normalization import FixedNorm, Norm
from sact_tf.layers.series import Series, Stack

#: A first score of sigmoid(-3) lets all units run when training begins (section 4.1).
INITIAL_BIAS = -3.0


class GlobalScore(NamedTuple):
    """One logit per image as a pure function of its weights (eqn 6)."""

    norm: Norm
    conv: Filter
    leak: float | None

    def __call__(self, geometry) -> tf.Tensor:
        """Logits of the shape of the decisions, [B]."""
        return geometry.decisions_per_image(tf.squeeze(self.of_running(geometry), 1))

    def of_running(self, geometry) -> tf.Tensor:
        """Logits [b, 1] of the images that the geometry computes."""
        pooled = _activated(self.norm(geometry.global_mean()), self.leak)
        outputs = tf.matmul(pooled, tf.reshape(self.conv.kernel, [-1, 1]))
        return outputs if self.conv.bias is None else outputs + self.conv.bias


class SpatialScore(NamedTuple):
    """One logit per position as a pure function of its weights (eqn 14)."""

    norm: Norm
    conv: Filter
    pooled: GlobalScore

    def __call__(self, geometry) -> tf.Tensor:
        """Logits of the shape of the decisions, [B, H, W]."""
        features = self.norm(geometry.features(radius=1))
        features = _activated(features, self.pooled.leak)
        local = geometry.convolve(features, self.conv)
        everywhere = geometry.spread(self.pooled.of_running(geometry))
        return geometry.decisions(local + everywhere)


class LinearScore(NamedTuple):
    """The same where nothing stands between batch norm and convolution.

    With moving statistics, the whole logit is then one linear map of the features.

    Attributes:
      kernel: float32 [10, C]; see Geometry.linear_score.
      offset: float32 [10].
    """

    kernel: tf.Tensor
    offset: tf.Tensor

    def __call__(self, geometry) -> tf.Tensor:
        """Logits of the shape of the decisions, [B, H, W]."""
        return geometry.linear_score(self.kernel, self.offset)


def _activated(features, leak):
    return features if leak is None else tf.nn.leaky_relu(features, leak)


class GlobalHaltingScore(Made, tf_keras.layers.Layer):
    """One score per image, H = sigmoid(W pool(x) + b) (eqn 6); b starts at -3.

    The pooled features are batch-normalised first, as in the authors' networks.
    """

    def __init__(
        self,
        channels: int,
        *,
        make: Maker,
        name: str,
    ):
        """Creates the layer and its variables.

        Args:
          channels: C of the features.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(name=name, dtype=make.dtype)
        self._leak = make.leak
        with tf.name_scope(name):
            self.global_norm = make.norm(channels, name="global_norm")
            self.global_conv = make.conv(
                channels,
                1,
                1,
                use_bias=self._bias_is_global,
                initial_bias=INITIAL_BIAS,
                name="global_conv",
            )
        self.built = True

    _bias_is_global = True

    def call(self, geometry, training=None, halting_bias=None):
        """Scores the geometry's features.

        Args:
          geometry: see sact_tf.geometry.
          training: whether batch norm uses the statistics of the batch.
          halting_bias: see `score`.

        Returns:
          float32 scores of the shape of the decisions.
        """
        return score(self.logit(training)(geometry), halting_bias)

    def logit(self, training=None, valid=None):
        """The logit as a pure function of the values that the variables have now.

        Args:
          training: whether batch norm uses the statistics of the batch.
          valid: bool [B, H, W], false where the features are padding, which is then no
            part of these statistics; None for no padding.
        """
        del valid  # The mean over positions has left it out already.
        return GlobalScore(
            self.global_norm.bound(training), self.global_conv.values(), self._leak
        )

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
        make: Maker,
        name: str,
    ):
        """Creates the layer and its variables; see GlobalHaltingScore."""
        super().__init__(channels, make=make, name=name)
        with tf.name_scope(name):
            self.local_norm = make.norm(channels, name="local_norm")
            self.local_conv = make.conv(
                channels,
                1,
                3,
                use_bias=True,
                initial_bias=INITIAL_BIAS,
                name="local_conv",
            )

    def logit(self, training=None, valid=None):
        """See GlobalHaltingScore."""
        if self.is_linear(training):
            return logits([self], training)[0]
        return SpatialScore(
            self.local_norm.bound(training, valid),
            self.local_conv.values(),
            super().logit(training),
        )

    def is_linear(self, training) -> bool:
        """Whether the logit is a linear map of the features."""
        return self._leak is None and not self.local_norm.is_live(training)

    def flops(self, images, positions):
        """FLOPs of the score for each image: int64 [B]."""
        return super().flops(images, positions) + self.local_conv.flops(positions)


def score(logit: tf.Tensor, halting_bias: tf.Tensor | None = None) -> tf.Tensor:
    """The sigmoid of logits of the shape of the decisions: float32.

    Args:
      logit: [B] or [B, H, W].
      halting_bias: optional number, or one for each image [B], added to every logit:
        above zero the network stops sooner, below zero later.
    """
    logit = tf.cast(logit, tf.float32)
    if halting_bias is not None:
        one_per_image = [-1] + [1] * (logit.shape.rank - 1)
        logit += tf.reshape(tf.cast(halting_bias, tf.float32), one_per_image)
    return tf.sigmoid(logit)


def logits(scores: Sequence, training=None, valid=None) -> Series:
    """The logits of a block's scores as pure functions, folded all at once.

    Args:
      scores: halting scores of units with features of the same size.
      training: whether batch norm uses the statistics of the batch.
      valid: see GlobalHaltingScore.logit.
    """
    linear = scores and all(
        isinstance(score, SpatialHaltingScore) and score.is_linear(training)
        for score in scores
    )
    if not linear:
        return Series([score.logit(training, valid) for score in scores])

    def stacked(values):
        return tf.stack([tf.cast(value, tf.float32) for value in values])

    def folded(norms):
        norms = [norm.bound(training) for norm in norms]
        fields = [stacked([norm[i] for norm in norms]) for i in range(4)]
        return FixedNorm(*fields, norms[0].epsilon).folded()

    scale, offset = folded([score.local_norm for score in scores])  # [L - 1, C]
    taps = stacked([score.local_conv.kernel for score in scores])
    taps = tf.reshape(taps, [len(scores), 9, -1])
    pooled_scale, pooled_offset = folded([score.global_norm for score in scores])
    pooled = stacked([score.global_conv.kernel for score in scores])
    pooled = tf.reshape(pooled, [len(scores), 1, -1])
    kernel = tf.concat(
        [scale[:, tf.newaxis] * taps, pooled_scale[:, tf.newaxis] * pooled], axis=1
    )
    constant = tf.matmul(pooled, pooled_offset[..., tf.newaxis])[..., 0]
    constant += stacked([score.local_conv.bias for score in scores])
    constants = tf.matmul(taps, offset[..., tf.newaxis])[..., 0]
    return Stack(
        LinearScore(kernel, tf.concat([constants, constant], axis=1)), len(scores)
    )
