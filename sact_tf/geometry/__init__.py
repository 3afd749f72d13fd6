"""Where a residual unit is computed.

A geometry holds the features of a block while its units run. It is entered with a map,
offers the verbs that a unit and a halting score need, and is left with a map. Units do
not know which one they run on, and all give the same numbers:

  Dense: everywhere, masked. The reference; and the one for training with live batch
    norm, whose statistics cover all positions.
  Packed: at active positions (the perforated convolution) or in active tiles.
  Images: in images that have not halted (ACT).

What a unit does at each position by itself (batch norm, activation, 1x1 convolution) it
applies to the features that a geometry gives; for what needs neighbours it asks the
geometry. So a unit is, with 3x3 convolutions where the geometry says:

    x = geometry.features(radius)              active positions and their surroundings
    x = geometry.convolve(x, filters, ...)     the surroundings shrink by one
    geometry.halt(active, remainder); geometry.add(x)

Terms and shapes:

  position: a place of a map; a number in the grid of the batch (grid.Grid)
  cell: a tile of k x k positions, or one position
  active: bool, computed in the next unit; valid: bool, no padding of the batch
  rows [n, C]: features of computed positions; halo [h, C]: of halted ones around them
  inverse index: the row of each position; kernel map: rows under a kernel (kernel_map)
  active set: which positions have rows, and these tables (active_set.ActiveSet)
  gather, scatter: from a map to rows, from rows to a map
  bucket: one of the few sizes that matrices of rows are filled up to (buckets)
  epilogue: what follows a convolution at each position by itself
  remainder: what the halting scores so far have left (halting.HaltingState)
  B, H, W, C: images, height and width of a block's map, channels
"""

from collections.abc import Callable
from typing import Protocol

import tensorflow as tf

from sact_tf.geometry.dense import Dense
from sact_tf.geometry.extent import Extent
from sact_tf.geometry.filters import Filter
from sact_tf.geometry.images import Images
from sact_tf.geometry.maps import without_padding
from sact_tf.geometry.packed import Packed

__all__ = ["Dense", "Extent", "Geometry", "Images", "Packed", "without_padding"]


class Geometry(Protocol):
    """The verbs. Decisions are per position, or per image for Images and for ACT."""

    @property
    def decisions_shape(self) -> tuple:
        """Shape of the halting decisions, (B,) or (B, H, W): integers and scalars."""

    def features(self, radius: int) -> tf.Tensor:
        """Features of the active positions and of all up to `radius` away from one.

        Returns:
          [B, H, W, C], or rows as a map one position wide, [1, n', 1, C].
        """

    def convolve(
        self,
        features: tf.Tensor,
        filters: Filter,
        epilogue: Callable = tf.identity,
        radius: int = 1,
    ) -> tf.Tensor:
        """A 3x3 convolution; the surroundings shrink by one position.

        Args:
          features: features with their surroundings.
          filters: kernel and bias.
          epilogue: what follows at each position by itself.
          radius: of the surroundings, at least one.

        Returns:
          Features with surroundings smaller by one: the active positions for radius 1.
        """

    def add(self, residual: tf.Tensor) -> None:
        """Adds a residual at the active positions (eqn 2; Algorithm 2, lines 13-17)."""

    def global_mean(self) -> tf.Tensor:
        """Mean features of each image over all positions, halted too: [B, C].

        A geometry that leaves images out gives the rows of those that still run.
        """

    def linear_score(self, kernel: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        """A 3x3 convolution with one output plus a projection of the global mean.

        Args:
          kernel: float32 [10, C]; see maps.linear_score.
          offset: float32 [10].

        Returns:
          float32 [B, H, W]; what it says of halted positions means nothing.
        """

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """One value per image, [B, 1], for every active position."""

    def decisions(self, values: tf.Tensor) -> tf.Tensor:
        """Brings one value per active position, [..., 1], into shape [B, H, W]."""

    def decisions_per_image(self, values: tf.Tensor) -> tf.Tensor:
        """Brings one value per image that runs into shape [B]."""

    def halt(
        self,
        active: tf.Tensor,
        remainder: tf.Tensor | None = None,
        last: bool = False,
    ) -> None:
        """Keeps active only the positions (or images) where the flag is true.

        Args:
          active: bool, of the shape of the decisions; true only where it was before.
          remainder: what the halting scores so far have left, of the same shape; zero
            where nothing is active. None: all of it, as where masks are given; then the
            output is the features.
          last: whether the next unit is the last, after which nothing but the output
            matters.
        """

    def leave(self) -> tf.Tensor:
        """The block's output [B, H, W, C], zero where the map is padding (eqn 10)."""
