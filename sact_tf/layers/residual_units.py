"""Residual units, each written once over a geometry (section 2.1, figures 2 and 5)."""

from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sact_tf.geometry.dense import Dense
from sact_tf.geometry.filters import Filter
from sact_tf.layers.maker import Made, Maker
from sact_tf.layers.normalization import Norm


class BottleneckBranch(NamedTuple):
    """f of a bottleneck unit as a pure function of its weights: 1x1, 3x3, 1x1."""

    preact: Norm
    conv1: Filter
    conv1_norm: Norm
    conv2: Filter
    conv2_norm: Norm
    conv3: Filter

    def __call__(self, geometry) -> tf.Tensor:
        """f(x) at the geometry's active positions."""
        return self.behind(self.preactivated(geometry.features(1)), geometry)

    def preactivated(self, x: tf.Tensor) -> tf.Tensor:
        """What f begins with."""
        return self.preact.activated(x, tf.nn.relu)

    def behind(self, x: tf.Tensor, geometry) -> tf.Tensor:
        """F without its pre-activation."""
        x = tf.nn.relu(self.conv1_norm(self.conv1(x)))
        x = geometry.convolve(x, self.conv2, lambda x: tf.nn.relu(self.conv2_norm(x)))
        return self.conv3(x)


class BasicBranch(NamedTuple):
    """f of a basic unit as a pure function of its weights: two 3x3 convolutions."""

    preact: Norm
    conv1: Filter
    conv1_norm: Norm
    conv2: Filter
    leak: float

    def __call__(self, geometry) -> tf.Tensor:
        """f(x) at the geometry's active positions."""
        return self.behind(self.preactivated(geometry.features(2)), geometry)

    def preactivated(self, x: tf.Tensor) -> tf.Tensor:
        """What f begins with."""
        return self.preact.activated(x, lambda x: tf.nn.leaky_relu(x, self.leak))

    def behind(self, x: tf.Tensor, geometry) -> tf.Tensor:
        """F without its pre-activation."""

        def normalized(x):
            # The published networks activate twice, an effective slope of leak**2.
            return tf.nn.leaky_relu(self.conv1_norm(x), self.leak**2)

        x = geometry.convolve(x, self.conv1, normalized, radius=2)
        return geometry.convolve(x, self.conv2)


class ResidualUnit(Made, tf_keras.layers.Layer):
    """What both units share: x + f(x), on a whole map or wherever a geometry says.

    A subclass provides `branch`, `_shortcut` and `flops`.
    """

    #: How far away from an active position f looks: its number of 3x3 convolutions.
    radius: int

    @property
    def stride(self) -> int:
        """Of the whole unit."""
        raise NotImplementedError

    @property
    def flops_per_position(self) -> int:
        """FLOPs of f at one position; see sact_tf.flops."""
        kernels = [weight.shape for weight in self.weights if weight.shape.rank == 4]
        return 2 * sum(shape.num_elements() for shape in kernels)

    def is_live(self, training) -> bool:
        """Whether batch norms use the statistics of the batch."""
        return self.preact.is_live(training)

    def branch(self, training=None, valid=None) -> BottleneckBranch | BasicBranch:
        """F as a pure function of the values that its variables have now.

        Args:
          training: whether batch norms use the statistics of the batch.
          valid: bool [B, H, W], false where the map that it will be called with is
            padding, which is then no part of these statistics; None for no padding.
        """
        raise NotImplementedError

    def call(self, inputs, training=None, valid=None):
        """Runs the unit on a whole map: [B, H, W, C] -> [B, H / stride, ..., C'].

        Args:
          inputs: the map.
          training: whether batch norms use the statistics of the batch.
          valid: bool [B, H, W], false where the map is padding; see Dense.
        """
        branch = self.branch(training, valid)
        preactivated = branch.preactivated(inputs)
        residual = branch.behind(preactivated, Dense(inputs, valid=valid))
        return self._shortcut(inputs, preactivated) + residual

    def _valid_behind(self, valid):
        """What is no padding behind the convolution with the stride: sizes round up."""
        if valid is None or self.stride == 1:
            return valid
        return valid[:, :: self.stride, :: self.stride]

    def begin_as_identity(self) -> None:
        """Sets the last kernel and bias of f to zero, so that f(x) = 0."""
        last = self._last_convolution
        last.kernel.assign(tf.zeros_like(last.kernel))
        last.bias.assign(tf.zeros_like(last.bias))

    def flops(self, outer, inner) -> tf.Tensor:
        """FLOPs of the unit, from the number of positions that it is computed at.

        Args:
          outer: positions of the first convolution.
          inner: positions of the other convolutions.

        Returns:
          int64 of the shape of the arguments.
        """
        raise NotImplementedError

    def flops_on_map(self, inputs, outputs) -> tf.Tensor:
        """FLOPs of `call`, from the number of positions of its input and its output."""
        raise NotImplementedError


class Bottleneck(ResidualUnit):
    """What units of three convolutions share: conv1 (1x1), conv2 (3x3), conv3 (1x1).

    The stride sits in the 3x3 convolution; a shortcut, where there is one, has a
    convolution.
    """

    radius = 1

    @property
    def stride(self):
        """See ResidualUnit."""
        return self.conv2.strides[0]

    def flops(self, outer, inner):
        """See ResidualUnit."""
        return (
            self.conv1.flops(outer) + self.conv2.flops(inner) + self.conv3.flops(inner)
        )

    def flops_on_map(self, inputs, outputs):
        """See ResidualUnit."""
        total = self.flops(inputs, outputs)
        if self.shortcut is not None:
            total += self.shortcut.flops(outputs)
        return total


class BottleneckUnit(Bottleneck):
    """The ImageNet network's pre-activation unit: 1x1, 3x3, 1x1.

    The stride sits in the 3x3 convolution. The shortcut is the input itself if the
    number of channels does not change, else a 1x1 convolution of the pre-activation.
    """

    def __init__(
        self,
        input_channels: int,
        bottleneck_channels: int,
        *,
        stride: int = 1,
        make: Maker,
        name: str,
    ):
        """Creates the unit and its variables.

        Args:
          input_channels: C of the input.
          bottleneck_channels: channels of the 3x3 convolution; the unit's output has
            four times as many.
          stride: of the whole unit.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(name=name, dtype=make.dtype)
        wide, narrow = 4 * bottleneck_channels, bottleneck_channels
        with tf.name_scope(name):
            self.preact = make.norm(input_channels, name="preact")
            self.shortcut = None
            if input_channels != wide or stride > 1:
                self.shortcut = make.conv(
                    input_channels,
                    wide,
                    1,
                    stride=stride,
                    use_bias=True,
                    name="shortcut",
                )
            self.conv1 = make.conv(input_channels, narrow, 1, name="conv1")
            self.conv1_norm = make.norm(narrow, name="conv1_norm")
            self.conv2 = make.conv(
                narrow,
                narrow,
                3,
                stride=stride,
                explicit_padding=stride > 1,
                name="conv2",
            )
            self.conv2_norm = make.norm(narrow, name="conv2_norm")
            self.conv3 = make.conv(narrow, wide, 1, use_bias=True, name="conv3")
        self.built = True

    @property
    def _last_convolution(self):
        return self.conv3

    def branch(self, training=None, valid=None):
        """See ResidualUnit."""
        return BottleneckBranch(
            preact=self.preact.bound(training, valid),
            conv1=self.conv1.values(),
            conv1_norm=self.conv1_norm.bound(training, valid),
            # A layer with a stride is called on whole maps only.
            conv2=self.conv2 if self.stride > 1 else self.conv2.values(),
            conv2_norm=self.conv2_norm.bound(training, self._valid_behind(valid)),
            conv3=self.conv3.values(),
        )

    def _shortcut(self, inputs, preactivated):
        return inputs if self.shortcut is None else self.shortcut(preactivated)


class BasicUnit(ResidualUnit):
    """The CIFAR network's pre-activation unit: two 3x3 convolutions, leaky ReLUs.

    The stride sits in the first convolution. Where the number of channels grows, the
    shortcut is average pooling and zero padding of the channels, without parameters.
    """

    radius = 2
    leak = 0.1

    def __init__(
        self,
        input_channels: int,
        channels: int,
        *,
        stride: int = 1,
        activate_shortcut: bool = False,
        make: Maker,
        name: str,
    ):
        """Creates the unit and its variables.

        Args:
          input_channels: C of the input.
          channels: C of the output, at least as large.
          stride: of the whole unit.
          activate_shortcut: whether the shortcut starts from the pre-activation (the
            network's first unit) and not from the input.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(name=name, dtype=make.dtype)
        self._grow = channels - input_channels
        self._activate_shortcut = activate_shortcut
        with tf.name_scope(name):
            self.preact = make.norm(input_channels, name="preact")
            self.conv1 = make.conv(
                input_channels, channels, 3, stride=stride, name="conv1"
            )
            self.conv1_norm = make.norm(channels, name="conv1_norm")
            self.conv2 = make.conv(channels, channels, 3, use_bias=True, name="conv2")
        self.built = True

    @property
    def stride(self):
        """See ResidualUnit."""
        return self.conv1.strides[0]

    @property
    def _last_convolution(self):
        return self.conv2

    def branch(self, training=None, valid=None):
        """See ResidualUnit."""
        return BasicBranch(
            preact=self.preact.bound(training, valid),
            conv1=self.conv1 if self.stride > 1 else self.conv1.values(),
            conv1_norm=self.conv1_norm.bound(training, self._valid_behind(valid)),
            conv2=self.conv2.values(),
            leak=self.leak,
        )

    def _shortcut(self, inputs, preactivated):
        x = preactivated if self._activate_shortcut else inputs
        if self.stride > 1:
            # SAME, so that odd sides agree with those of the strided convolution.
            x = tf.nn.avg_pool2d(x, self.stride, self.stride, "SAME")
        if self._grow:
            before = self._grow // 2
            x = tf.pad(x, [[0, 0], [0, 0], [0, 0], [before, self._grow - before]])
        return x

    def flops(self, outer, inner):
        """See ResidualUnit."""
        return self.conv1.flops(outer) + self.conv2.flops(inner)

    def flops_on_map(self, inputs, outputs):
        """See ResidualUnit."""
        return self.flops(outputs, outputs)
