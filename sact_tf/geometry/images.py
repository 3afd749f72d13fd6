"""Images that have halted are left out of the later units (ACT)."""

from collections.abc import Callable

import tensorflow as tf

from sact_tf.geometry.maps import mean_over_positions, without_padding


class Images:
    """The images of a batch that still run, as one stack of maps; see Dense."""

    def __init__(
        self,
        features: tf.Tensor,
        real: tf.Tensor | None = None,
        conditionals: bool = True,
    ):
        """Enters with maps [B, H, W, C], all images active.

        Args:
          features: what the block's first unit gave.
          real: see Dense.
          conditionals: see Packed.
        """
        self._features = features
        self._real = self._real_of_all = real
        self._conditionals = conditionals
        self._output = features
        self._images = tf.range(tf.shape(features)[0])  # Which image each map is of.
        self._num_images = tf.shape(features)[0]
        self._running = tf.constant(True)  # Whether any image is left.
        self._finished = []

    @property
    def decisions_shape(self) -> tf.Tensor:
        """Shape of the halting decisions, [B], as an int32 tensor."""
        return self._num_images[tf.newaxis]

    def features(self, radius: int) -> tf.Tensor:
        """Maps of the images that run."""
        del radius  # Whole maps.
        return self._features

    def convolve(
        self,
        features: tf.Tensor,
        convolution: Callable,
        then: Callable = tf.identity,
        radius: int = 1,
    ) -> tf.Tensor:
        """See Dense."""
        del radius
        return then(convolution(without_padding(features, self._real)))

    def add(self, residual: Callable[[], tf.Tensor]) -> None:
        """See Dense."""

        def added():
            values = residual()
            weight = tf.cast(tf.gather(self._remainder, self._images), values.dtype)
            weighted = weight[:, tf.newaxis, tf.newaxis, tf.newaxis] * values
            # Not `+`, whose gradient trips over conditionals; see Packed.
            output = tf.add_n([self._output, weighted])
            if self._last:
                return self._features, output
            return tf.add_n([self._features, values]), output

        self._features, self._output = self.unless_empty(
            added, lambda: (self._features, self._output)
        )

    def unless_empty(self, compute: Callable, otherwise: Callable):
        """See Dense."""
        if not self._conditionals:
            return compute()
        return tf.cond(self._running, compute, otherwise)

    def global_mean(self) -> tf.Tensor:
        """Mean features of each image that runs."""
        return mean_over_positions(self._features, self._real)

    def decisions_per_image(self, values: tf.Tensor) -> tf.Tensor:
        """See Dense."""
        where = self._images[:, tf.newaxis]
        return tf.scatter_nd(where, values, self.decisions_shape)

    def halt(
        self,
        active: tf.Tensor,
        remainder: tf.Tensor,
        left: int | None = None,
    ) -> None:
        """See Dense."""
        self._remainder, self._last = remainder, left == 1
        self._running = tf.reduce_any(active)
        active = tf.gather(active, self._images)
        if not self._conditionals:
            # One image is always kept, lest anything be empty; its weights are zero.
            active |= (tf.range(tf.size(active)) == 0) & ~self._running
        state = [self._output, self._images, self._features]
        if self._real is not None:
            state.append(self._real)

        def leave_out():
            kept = [tf.boolean_mask(value, active) for value in state]
            gone = [tf.boolean_mask(value, ~active) for value in state[:2]]
            return (*kept, *gone)

        def go_on():
            return (*state, *(value[:0] for value in state[:2]))

        if self._conditionals:
            parts = tf.cond(tf.reduce_all(active), go_on, leave_out)
        else:
            parts = leave_out()
        *kept, output, images = parts
        self._output, self._images, self._features, *real = kept
        if real:
            (self._real,) = real
        self._finished.append((images, output))

    def leave(self) -> tf.Tensor:
        """See Dense."""
        images, outputs = zip(
            *self._finished, (self._images, self._output), strict=True
        )
        output = tf.dynamic_stitch(list(images), list(outputs))
        return without_padding(output, self._real_of_all)
