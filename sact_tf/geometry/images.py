"""Images that have halted are left out of the later units (ACT)."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry import compaction
from sact_tf.geometry.control_flow import gpu_is_visible, sum_of
from sact_tf.geometry.filters import Filter
from sact_tf.geometry.maps import mean_over_positions, without_padding


class ImagesState(NamedTuple):
    """What changes from unit to unit; b images of the batch still run.

    Attributes:
      features: [b, H, W, C].
      output: [b, H, W, C], in the form of DenseState.
      images: int32 [b] (on a GPU int64), which image of the batch each map is of.
      valid: bool [b, H, W], false where a map is padding; () for no padding.
      finished: [B, H, W, C], the block's output of the images that have halted.
    """

    features: tf.Tensor
    output: tf.Tensor
    images: tf.Tensor
    valid: tf.Tensor | tuple[()]
    finished: tf.Tensor


class Images:
    """The images of a batch that still run, as one stack of maps."""

    def __init__(
        self,
        features: tf.Tensor,
        valid: tf.Tensor | None = None,
        conditionals: bool = True,
    ):
        """Enters with maps [B, H, W, C], all images active.

        Args:
          features: what the block's first unit gave.
          valid: see Dense.
          conditionals: see active_set.Layout. Without, one image is always kept.
        """
        self._valid_of_all = valid
        self._conditionals = conditionals
        images = tf.range(tf.shape(features)[0])
        # int32 would be in the host's memory.
        self._on_gpu = conditionals and gpu_is_visible()
        if self._on_gpu:
            images = tf.cast(images, compaction.INDEX)
        of_some = () if valid is None else valid
        self.state = ImagesState(features, features, images, of_some, features)
        self._remainder = self._active = None
        self._last = False

    def with_state(self, state: ImagesState) -> "Images":
        """The same geometry somewhere else in its block."""
        other = Images.__new__(Images)
        other.__dict__.update(self.__dict__)
        other.state = state
        return other

    def shapes(self) -> ImagesState:
        """Shapes that hold for every number of images."""

        def of_any_length(value):
            return tf.TensorShape([None, *value.shape[1:]])

        shapes = tf.nest.map_structure(of_any_length, self.state)
        return shapes._replace(finished=self.state.finished.shape)

    @property
    def decisions_shape(self) -> tuple:
        """See Geometry."""
        finished = self.state.finished
        return (finished.shape[0] or tf.shape(finished)[0],)

    def features(self, radius: int) -> tf.Tensor:
        """See Geometry. Whole maps."""
        del radius
        return self.state.features

    def convolve(
        self,
        features: tf.Tensor,
        filters: Filter,
        epilogue: Callable = tf.identity,
        radius: int = 1,
    ) -> tf.Tensor:
        """See Geometry."""
        del radius
        return epilogue(filters(without_padding(features, self._valid())))

    def add(self, residual: tf.Tensor) -> None:
        """See Geometry."""
        features, output = self.state.features, self.state.output
        weight = tf.cast(tf.gather(self._remainder, self.state.images), residual.dtype)
        weighted = weight[:, tf.newaxis, tf.newaxis, tf.newaxis] * residual
        output = sum_of(output, weighted)
        if not self._last:
            features = sum_of(features, residual)
        self.state = self.state._replace(features=features, output=output)

    def global_mean(self) -> tf.Tensor:
        """See Geometry: of each image that runs."""
        return mean_over_positions(self.state.features, self._valid())

    def decisions_per_image(self, values: tf.Tensor) -> tf.Tensor:
        """See Geometry."""
        where = self.state.images[:, tf.newaxis]
        shape = tf.cast(tf.stack(self.decisions_shape), where.dtype)
        return tf.scatter_nd(where, values, shape)

    def halt(
        self,
        active: tf.Tensor,
        remainder: tf.Tensor,
        last: bool = False,
    ) -> None:
        """See Geometry. `shrink` leaves images out."""
        self._active, self._remainder, self._last = active, remainder, last

    def shrink(self, running: tf.Tensor | None = None) -> None:
        """Leaves out images that have halted; they leave behind their output.

        Args:
          running: int32 scalar, images that go on, if the host knows that already: a
            GPU is then not waited for.
        """
        state = self.state
        active = tf.gather(self._active, state.images)
        if self._on_gpu and running is not None:
            self._shrink_on_gpu(active, running)
            return
        if not self._conditionals:
            # One image is always kept, lest anything be empty; its weights are zero.
            first = tf.range(tf.size(active)) == 0
            active |= first & ~tf.reduce_any(active)
        gone = tf.boolean_mask(state.images, ~active)
        finished = tf.tensor_scatter_nd_update(
            state.finished,
            gone[:, tf.newaxis],
            tf.boolean_mask(state.output, ~active),
        )
        kept = tf.nest.map_structure(
            lambda value: tf.boolean_mask(value, active), state._replace(finished=())
        )
        self.state = kept._replace(finished=finished)

    def _shrink_on_gpu(self, active, running):
        state = self.state
        stays = compaction.numbers(compaction.running_sum(active), running)
        gone = compaction.numbers(
            compaction.running_sum(~active), tf.size(active) - running
        )
        finished = tf.tensor_scatter_nd_update(
            state.finished,
            tf.gather(state.images, gone)[:, tf.newaxis],
            tf.gather(state.output, gone),
        )
        kept = tf.nest.map_structure(
            lambda value: tf.gather(value, stays), state._replace(finished=())
        )
        self.state = kept._replace(finished=finished)

    def leave(self) -> tf.Tensor:
        """See Geometry."""
        output = tf.tensor_scatter_nd_update(
            self.state.finished, self.state.images[:, tf.newaxis], self.state.output
        )
        return without_padding(output, self._valid_of_all)

    def _valid(self):
        valid = self.state.valid
        return None if isinstance(valid, tuple) else valid
