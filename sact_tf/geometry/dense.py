"""Every position is computed, and a mask keeps what has halted as it is."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry import winograd
from sact_tf.geometry.control_flow import conditional, sum_of
from sact_tf.geometry.filters import Filter
from sact_tf.geometry.grid import Grid
from sact_tf.geometry.maps import linear_score, mean_over_positions, without_padding


class DenseState(NamedTuple):
    """What changes from unit to unit; both [B, H, W, C].

    Attributes:
      features: x_l.
      output: x_1 plus the residuals so far, each times what the scores before it have
        left. (Packed keeps the sum of p_l x_l, eqn 10, as it is; on a map this form
        takes fewer passes.)
    """

    features: tf.Tensor
    output: tf.Tensor


class Dense:
    """Everywhere, masked: the reference for the other geometries."""

    def __init__(
        self,
        features: tf.Tensor,
        per_image: bool = False,
        valid: tf.Tensor | None = None,
        tiles: winograd.WinogradTiles | None = None,
        mask: tf.Tensor | None = None,
    ):
        """Enters with a map of which every position is active.

        Args:
          features: [B, H, W, C], what the block's first unit gave.
          per_image: whether halting decisions are per image ([B], ACT) or per position
            ([B, H, W], SACT).
          valid: bool [B, H, W], false where the map is padding, which no convolution
            and no mean sees; None for no padding.
          tiles: of all positions, where 3x3 convolutions may go by Winograd's
            algorithm; see `all_tiles`.
          mask: bool [B, H, W], a given mask: where it is false nothing is ever added;
            None for everywhere.
        """
        self.state = DenseState(features, features)
        self._per_image, self._valid, self._tiles = per_image, valid, tiles
        self._mask = mask
        self._active = self._remainder = None  # All: nothing has halted yet.
        self._last = False

    def with_state(self, state: DenseState) -> "Dense":
        """The same geometry somewhere else in its block."""
        other = Dense(
            state.features, self._per_image, self._valid, self._tiles, self._mask
        )
        other.state = state
        return other

    @property
    def decisions_shape(self) -> tuple:
        """See Geometry."""
        grid = Grid.of(self.state.features)
        return grid.shape[:1] if self._per_image else grid.shape

    def features(self, radius: int) -> tf.Tensor:
        """See Geometry. Everything is here."""
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
        features = without_padding(features, self._valid)
        if self._tiles is None:
            return epilogue(filters(features))

        def by_tiles():
            rows = tf.reshape(features, [-1, features.shape[-1]])
            outputs = winograd.convolve(rows, filters, self._tiles)
            # As many images: batch norm shares them out to the cores.
            outputs = epilogue(outputs[:, tf.newaxis, tf.newaxis])
            rows = tf.reshape(outputs, [-1, outputs.shape[-1]])
            return Grid.of(features).with_channels(rows)

        return conditional(
            self._tiles.pay, by_tiles, lambda: epilogue(filters(features))
        )

    def add(self, residual: tf.Tensor) -> None:
        """See Geometry.

        The output gets the residual times the remainder: the sum of p_l x_l (eqn 10) is
        x_1 plus the sum of r_l f_l, where f_l is the residual of the unit after the
        l-th and r_l = p_(l+1) + ... + p_L what is left for it and those that follow.
        """
        features, output = self.state
        if self._mask is not None:
            residual = without_padding(residual, self._mask)
        if self._remainder is None or not self._last:
            # A halted image (ACT) takes no part in any output, so it needs no mask; the
            # authors' networks let it run on, which training's statistics notice.
            if self._active is None or self._per_image:
                features += residual
            else:
                mask = self._over_channels(self._active, residual.dtype)
                features = sum_of(features, residual * mask)
        if self._remainder is None:
            output = features
        else:
            weight = self._over_channels(self._remainder, residual.dtype)
            output = sum_of(output, weight * residual)
        self.state = DenseState(features, output)

    def global_mean(self) -> tf.Tensor:
        """See Geometry."""
        return mean_over_positions(self.state.features, self._valid)

    def linear_score(self, kernel: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        """See Geometry."""
        return linear_score(self.state.features, kernel, offset, self._valid)

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """See Geometry."""
        return tf.reshape(values, [-1, 1, 1, values.shape[-1]])

    def decisions(self, values: tf.Tensor) -> tf.Tensor:
        """See Geometry."""
        return tf.squeeze(values, -1)

    def decisions_per_image(self, values: tf.Tensor) -> tf.Tensor:
        """See Geometry."""
        return values

    def halt(
        self,
        active: tf.Tensor,
        remainder: tf.Tensor | None = None,
        last: bool = False,
    ) -> None:
        """See Geometry."""
        self._active, self._remainder, self._last = active, remainder, last

    def leave(self) -> tf.Tensor:
        """See Geometry."""
        return without_padding(self.state.output, self._valid)

    def _over_channels(self, decisions, dtype):
        decisions = tf.cast(decisions, dtype)
        if self._per_image:
            return tf.reshape(decisions, [-1, 1, 1, 1])
        return tf.expand_dims(decisions, -1)


def all_tiles(features: tf.Tensor) -> winograd.WinogradTiles | None:
    """Winograd's tiles of a whole map [B, H, W, C]; None where they cannot pay."""
    grid = Grid.of(features)
    known = all(isinstance(size, int) for size in grid)
    if known and not winograd.whole_map_pays(*grid.shape):
        return None
    positions = tf.range(grid.positions)
    inverse = tf.reshape(positions + 1, tf.stack(grid.shape))
    return winograd.tiles(grid, inverse, positions)
