"""Where a residual unit is computed.

A geometry holds the features of a block while its units run. It is entered with a map,
offers the few verbs that a unit and a halting score need, and is left with a map. Units
do not know which geometry they run on, and all geometries give the same numbers.

Features travel between the verbs as a list of *pieces*, tensors whose last axis are the
channels. What a unit does at each position by itself (batch norm, activation, 1x1
convolution) it applies to every piece; for what needs the neighbours it asks the
geometry. `Dense` has one piece, the whole map; a geometry that packs active positions
into rows may have one for those and one for the halted positions around them.
"""

from collections.abc import Callable

import tensorflow as tf

Pieces = list[tf.Tensor]


class Dense:
    """Every position is computed; a mask keeps halted ones as they are.

    The reference for the other geometries, and the one for training with live batch
    norm, whose statistics cover all positions.
    """

    def __init__(self, features: tf.Tensor, per_image: bool = False):
        """Enters with a map of which every position is active.

        Args:
          features: [B, H, W, C], what the block's first unit gave.
          per_image: whether halting decisions are per image ([B], ACT) or per position
            ([B, H, W], SACT).
        """
        self._features = features
        self._per_image = per_image
        self._active = None  # All: nothing has halted yet.
        self._output = None

    @property
    def decisions_shape(self) -> tf.Tensor:
        """Shape of the halting decisions, [B] or [B, H, W], as an int32 tensor."""
        return tf.shape(self._features)[: 1 if self._per_image else 3]

    def features(self, radius: int) -> Pieces:
        """Features of the active positions and of all up to `radius` away from one."""
        del radius  # Everything is here.
        return [self._features]

    def convolve(self, pieces: Pieces, convolution: Callable) -> Pieces:
        """A 3x3 convolution; the surroundings shrink by one position.

        Args:
          pieces: features with surroundings of some radius r >= 1.
          convolution: a layer that maps [B, H, W, C] to [B, H, W, C'] and has `kernel`
            and `bias`.

        Returns:
          Features with surroundings of radius r - 1: the active positions for r = 1.
        """
        (features,) = pieces
        return [convolution(features)]

    def add(self, residual: Pieces) -> None:
        """Adds a residual at the active positions (eqn 2; Algorithm 2, lines 13-17)."""
        (residual,) = residual
        # A halted image (ACT) takes no part in any output, so it needs no mask; the
        # authors' networks let it run on, which batch statistics in training notice.
        if self._active is not None and not self._per_image:
            residual *= self._over_channels(self._active, residual.dtype)
        self._features += residual

    def global_mean(self) -> tf.Tensor:
        """Mean features of each image over all positions, halted too: [B, C]."""
        return tf.reduce_mean(self._features, axis=[1, 2])

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """One value per image and channel, for every position: [B, 1, 1, C]."""
        return values[:, tf.newaxis, tf.newaxis, :]

    def decisions(self, values: tf.Tensor) -> tf.Tensor:
        """Brings one value per active position, [..., 1], into shape [B, H, W]."""
        return values[..., 0]

    def accumulate(self, probability: tf.Tensor) -> None:
        """Adds the features, weighted, to the block's output (eqn 10).

        Args:
          probability: the unit's halting probability, of the shape of the decisions.
        """
        weight = self._over_channels(probability, self._features.dtype)
        weighted = weight * self._features
        self._output = weighted if self._output is None else self._output + weighted

    def halt(self, active: tf.Tensor) -> None:
        """Keeps active only the positions (or images) where the flag is true."""
        self._active = active

    def count(self, dilation: int = 0) -> tf.Tensor:
        """Active positions of each image, or those within `dilation` of one: [B]."""
        shape = tf.shape(self._features, out_type=tf.int64)
        if self._active is None:
            return tf.fill(shape[:1], shape[1] * shape[2])
        if self._per_image:
            return tf.cast(self._active, tf.int64) * shape[1] * shape[2]
        mask = tf.cast(self._active, tf.float32)[..., tf.newaxis]
        if dilation:
            mask = tf.nn.max_pool2d(mask, 2 * dilation + 1, 1, "SAME")
        # Summed as integers: a float32 sum is exact only up to 2**24 positions.
        return tf.reduce_sum(tf.cast(mask, tf.int64), axis=[1, 2, 3])

    def running(self) -> tf.Tensor:
        """Which images are computed at all: int64 [B], one or zero."""
        if self._active is None or not self._per_image:
            return tf.ones(tf.shape(self._features)[:1], tf.int64)
        return tf.cast(self._active, tf.int64)

    def leave(self) -> tf.Tensor:
        """The block's output [B, H, W, C]: the sum of what was accumulated."""
        return self._output

    def _over_channels(self, decisions: tf.Tensor, dtype) -> tf.Tensor:
        axes = 3 if self._per_image else 1
        shape = tf.concat([tf.shape(decisions), [1] * axes], axis=0)
        return tf.reshape(tf.cast(decisions, dtype), shape)
