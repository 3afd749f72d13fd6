"""Every position is computed, and a mask keeps what has halted as it is."""

from collections.abc import Callable

import tensorflow as tf

from sact_tf.geometry.maps import (
    linear_score,
    mean_over_positions,
    without_padding,
)


class Dense:
    """Every position is computed; a mask keeps halted ones as they are.

    The reference for the other geometries, and the one for training with live batch
    norm, whose statistics cover all positions.
    """

    def __init__(
        self,
        features: tf.Tensor,
        per_image: bool = False,
        real: tf.Tensor | None = None,
    ):
        """Enters with a map of which every position is active.

        Args:
          features: [B, H, W, C], what the block's first unit gave.
          per_image: whether halting decisions are per image ([B], ACT) or per position
            ([B, H, W], SACT).
          real: bool [B, H, W], false where the map is padding, which no convolution and
            no mean sees; None for no padding.
        """
        self._features = features
        self._real = real
        self._per_image = per_image
        self._output = features
        self._active = self._remainder = None  # All: nothing has halted yet.
        self._last = False

    @property
    def decisions_shape(self) -> tf.Tensor:
        """Shape of the halting decisions, [B] or [B, H, W], as an int32 tensor."""
        return tf.shape(self._features)[: 1 if self._per_image else 3]

    def features(self, radius: int) -> tf.Tensor:
        """Features of the active positions and of all up to `radius` away from one."""
        del radius  # Everything is here.
        return self._features

    def convolve(
        self,
        features: tf.Tensor,
        convolution: Callable,
        then: Callable = tf.identity,
        radius: int = 1,
    ) -> tf.Tensor:
        """A 3x3 convolution; the surroundings shrink by one position.

        Args:
          features: features with their surroundings.
          convolution: a sact_tf.layers.convolution.Convolution.
          then: what follows at each position by itself.
          radius: of the surroundings, at least one.

        Returns:
          Features with surroundings smaller by one: the active positions for radius 1.
        """
        del radius
        return then(convolution(without_padding(features, self._real)))

    def add(self, residual: Callable[[], tf.Tensor]) -> None:
        """Adds a residual at the active positions (eqn 2; Algorithm 2, lines 13-17).

        To the block's output it adds the residual times the remainder: the sum of p_l
        x_l (eqn 10) is x_1 plus the sum of r_l f_l, where f_l is the residual of the
        unit after the l-th and r_l = p_(l+1) + ... + p_L what is left for it and those
        that follow. (Packed keeps the sum as it is, where that is cheaper.)

        Args:
          residual: computes it; not called where nothing is active.
        """
        values = residual()
        if self._remainder is None or not self._last:
            # A halted image (ACT) takes no part in any output, so it needs no mask; the
            # authors' networks let it run on, which training's statistics notice.
            if self._active is not None and not self._per_image:
                values *= self._over_channels(self._active, values.dtype)
            self._features += values
        if self._remainder is None:
            self._output = self._features
        else:
            remainder = self._over_channels(self._remainder, values.dtype)
            self._output += remainder * values

    def unless_empty(self, compute: Callable, otherwise: Callable):
        """What `compute` gives; where nothing is active, `otherwise` may be enough."""
        del otherwise
        return compute()

    def global_mean(self) -> tf.Tensor:
        """Mean features of each image over all positions, halted too: [B, C].

        A geometry that leaves images out gives the rows of those that still run.
        """
        return mean_over_positions(self._features, self._real)

    def linear_score(self, kernel: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        """A 3x3 convolution with one output plus a projection of the global mean.

        Every position is projected onto ten numbers: one for each place in the 3x3
        kernel, which its neighbours add up, and one for the mean. So the features are
        read once, and not copied nine-fold.

        Args:
          kernel: float32 [10, C].
          offset: float32 [10], added to the ten numbers; as zero as everything else
            outside of the map.

        Returns:
          float32 [B, H, W]; what it says of halted positions means nothing.
        """
        return linear_score(self._features, kernel, offset, self._real)

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """One value per image, [B, 1], for every active position."""
        return values[:, tf.newaxis, tf.newaxis, :]

    def decisions(self, values: tf.Tensor) -> tf.Tensor:
        """Brings one value per active position, [..., 1], into shape [B, H, W]."""
        return values[..., 0]

    def decisions_per_image(self, values: tf.Tensor) -> tf.Tensor:
        """Brings one value per image that runs into shape [B]."""
        return values

    def halt(
        self,
        active: tf.Tensor,
        remainder: tf.Tensor | None = None,
        left: int | None = None,
    ) -> None:
        """Keeps active only the positions (or images) where the flag is true.

        Args:
          active: bool, of the shape of the decisions; true only where it was before.
          remainder: what the halting scores so far have left, of the same shape; zero
            where nothing is active. None: all of it, as where masks are given; then the
            output is the features.
          left: units that still follow, the next one included; after the last nothing
            but the output matters. None where that is not known.
        """
        self._active, self._remainder, self._last = active, remainder, left == 1

    def leave(self) -> tf.Tensor:
        """The block's output [B, H, W, C], zero where the map is padding (eqn 10)."""
        return without_padding(self._output, self._real)

    def _over_channels(self, decisions: tf.Tensor, dtype) -> tf.Tensor:
        axes = 3 if self._per_image else 1
        shape = tf.concat([tf.shape(decisions), [1] * axes], axis=0)
        return tf.reshape(tf.cast(decisions, dtype), shape)
