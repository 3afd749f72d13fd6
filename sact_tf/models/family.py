"""What a family of residual networks has to say about itself."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tensorflow as tf
import tf_keras

from sact_tf.layers.maker import Made, Maker

if TYPE_CHECKING:
    from sact_tf.models.config import BackboneConfig


@dataclass(frozen=True)
class Family:
    """The choices that make a family of networks.

    Attributes:
      depths: units of each block, by the depth that a network is known by.
      root: layer class of what comes before the blocks.
      unit: layer class of the residual units.
      strides: stride of each block's first unit.
      stride: of the whole network.
      base_channels: width of the first block's 3x3 convolutions, by default.
      root_channels: channels after the root; None for the base channels.
      expansion: output channels of a unit over the width of its 3x3 convolutions.
      leak: slope of the leaky ReLUs after the batch norms of the head and the halting
        scores; None for a ReLU in the head and no activation in the halting scores.
      pool_first: whether the head pools before its batch norm.
      batch_norm: momentum and epsilon.
      weight_decay: weight of the L2 penalty, by default.
      first_unit: further arguments of the network's very first unit.
      head_norm: whether the head has a batch norm and an activation: yes, unless units
        activate behind their sums.
      adaptivities: the kinds of adaptivity that its units can have.
      can_be_sampled: whether its units can compute on sampled maps (SSBNet).

    Families whose layers take other arguments than these say so in `make_root`,
    `make_unit` and `make_head`.
    """

    depths: Mapping[int, tuple[int, ...]]
    root: type
    unit: type
    strides: tuple[int, ...]
    stride: int
    base_channels: int
    root_channels: int | None
    expansion: int
    leak: float | None
    pool_first: bool
    batch_norm: Mapping[str, float]
    weight_decay: float
    first_unit: Mapping[str, object]
    head_norm: bool = True
    adaptivities: tuple[str, ...] = ("none", "act", "sact")
    can_be_sampled: bool = False

    def make_root(self, config: BackboneConfig, make: Maker) -> tf_keras.layers.Layer:
        """What comes before the blocks.

        It is called as root(images, training=, extent=), and has `stride`, and `flops`
        of an Extent of the images.

        Args:
          config: of the network.
          make: makes the layers in it.
        """
        return self.root(config.channels(-1), make=make, name="root")

    def make_unit(
        self,
        config: BackboneConfig,
        block: int,
        unit: int,
        make: Maker,
        stride: int | None = None,
    ) -> tf_keras.layers.Layer:
        """A residual unit.

        Args:
          config: of the network.
          block: index of its block, counted from zero.
          unit: its index in the block, counted from zero.
          make: makes the layers in it.
          stride: of the first unit; the family's own by default.
        """
        options = {}
        if unit == 0:
            options["stride"] = stride or self.strides[block]
        if unit == block == 0:
            options.update(self.first_unit)
        return self.unit(
            config.channels(block - 1 if unit == 0 else block),
            config.width(block),
            make=make,
            name=f"unit{unit + 1}",
            **options,
        )

    def make_head(
        self, config: BackboneConfig, num_classes: int, make: Maker
    ) -> tf_keras.layers.Layer:
        """What turns the last block's output into logits; it has `flops`.

        Args:
          config: of the network.
          num_classes: number of logits.
          make: makes the layers in it.
        """
        return ClassificationHead(
            config.channels(len(self.strides) - 1),
            num_classes,
            pool_first=self.pool_first,
            with_norm=self.head_norm,
            make=make,
            name="head",
        )

    def resolve_units(self, units: int | str | Sequence[int]) -> tuple[int, ...]:
        """Units of each block, from a list of them or the name of a depth.

        Raises:
          ValueError: not a known depth, or not one positive integer per block.
        """
        if isinstance(units, str | numbers.Integral):
            depth = str(units).lower().removeprefix("resnet").lstrip("-_")
            if depth.isdigit() and int(depth) in self.depths:
                return self.depths[int(depth)]
            known = ", ".join(map(str, self.depths))
            raise ValueError(
                f"units must be one of the depths {known}, or a list of residual units "
                f"per block. Received: units={units!r}"
            )
        blocks = len(self.strides)
        counts = list(units) if isinstance(units, Iterable) else []
        if len(counts) != blocks or not all(
            isinstance(count, numbers.Integral) and count > 0 for count in counts
        ):
            raise ValueError(
                f"units must be {blocks} positive integers, the residual units of each "
                f"block, or a depth. Received: units={units!r}"
            )
        return tuple(int(count) for count in counts)


class ClassificationHead(Made, tf_keras.layers.Layer):
    """Batch norm, activation, global mean, and a 1x1 convolution to logits.

    Or the last two alone.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        pool_first: bool,
        with_norm: bool = True,
        make: Maker,
        name: str,
    ):
        """Creates the layer and its variables.

        Args:
          channels: C of the features.
          num_classes: number of logits.
          pool_first: whether the mean comes before the batch norm.
          with_norm: whether there are batch norm and activation.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(name=name, dtype=make.dtype)
        self._leak = make.leak or 0.0
        self._pool_first = pool_first
        with tf.name_scope(name):
            self.postnorm = make.norm(channels, name="postnorm") if with_norm else None
            self.logits = make.conv(
                channels, num_classes, 1, use_bias=True, name="logits"
            )
        self.built = True

    def call(self, inputs, training=None):
        """Maps features [B, h, w, C] to logits [B, num_classes]."""
        if self._pool_first:
            features = self._activated(_pool(inputs), training)
        else:
            features = _pool(self._activated(inputs, training))
        return self.logits(features)

    def _activated(self, features, training):
        if self.postnorm is None:
            return features
        features = self.postnorm(features, training=training)
        return tf.nn.leaky_relu(features, self._leak)

    def flops(self, inputs) -> tf.Tensor:
        """FLOPs for each image: int64 [B]."""
        return self.logits.flops(tf.ones(tf.shape(inputs)[:1], tf.int64))


def _pool(features):
    return tf.reduce_mean(features, axis=[1, 2])
