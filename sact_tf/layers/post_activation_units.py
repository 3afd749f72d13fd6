"""The residual unit of ResNet-D: activated behind the sum (He et al., 2019)."""

from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry.dense import Dense
from sact_tf.geometry.filters import Filter
from sact_tf.geometry.maps import without_padding
from sact_tf.layers.maker import Maker
from sact_tf.layers.normalization import Norm
from sact_tf.layers.residual_units import Bottleneck


class PostActivationBranch(NamedTuple):
    """F of a post-activation unit as a pure function of its weights: 1x1, 3x3, 1x1."""

    conv1: Filter
    conv1_norm: Norm
    conv2: Filter
    conv2_norm: Norm
    conv3: Filter
    conv3_norm: Norm

    def __call__(self, geometry) -> tf.Tensor:
        """What a unit adds to x at the geometry's active positions.

        The unit gives relu(x + f(x)), which is x + max(-x, f(x)): so a geometry adds
        this residual as it adds any other. Where both are equal the gradient is that of
        the first, and so zero in all, as a ReLU's is at zero: features are often zero,
        and f is, too, when training begins.
        """
        residual = self.behind(geometry.features(1), geometry)
        return tf.maximum(-geometry.features(0), residual)

    def behind(self, x: tf.Tensor, geometry) -> tf.Tensor:
        """F of features with their surroundings."""
        x = tf.nn.relu(self.conv1_norm(self.conv1(x)))
        x = geometry.convolve(x, self.conv2, lambda x: tf.nn.relu(self.conv2_norm(x)))
        return self.conv3_norm(self.conv3(x))


class PostActivationUnit(Bottleneck):
    """ResNet-D's unit: relu(shortcut(x) + f(x)), where f is 1x1, 3x3, 1x1.

    Every convolution has a batch norm and no bias. The stride sits in the 3x3
    convolution. Where the number of channels or the size changes, the shortcut is
    average pooling with windows of the stride (none for stride 1), a 1x1 convolution
    and a batch norm; else the input itself. The last batch norm of f begins with a
    scale of zero: then the unit is its shortcut when training begins.
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
            self.shortcut = self.shortcut_norm = None
            if input_channels != wide or stride > 1:
                self.shortcut = make.conv(input_channels, wide, 1, name="shortcut")
                self.shortcut_norm = make.norm(wide, name="shortcut_norm")
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
            self.conv3 = make.conv(narrow, wide, 1, name="conv3")
            self.conv3_norm = make.norm(wide, initial_scale=0.0, name="conv3_norm")
        self.built = True

    def is_live(self, training):
        """See ResidualUnit."""
        return self.conv1_norm.is_live(training)

    def branch(self, training=None, valid=None):
        """See ResidualUnit."""
        behind = self._valid_behind(valid)
        return PostActivationBranch(
            conv1=self.conv1.values(),
            conv1_norm=self.conv1_norm.bound(training, valid),
            # A layer with a stride is called on whole maps only.
            conv2=self.conv2 if self.stride > 1 else self.conv2.values(),
            conv2_norm=self.conv2_norm.bound(training, behind),
            conv3=self.conv3.values(),
            conv3_norm=self.conv3_norm.bound(training, behind),
        )

    def call(self, inputs, training=None, valid=None):
        """See ResidualUnit."""
        branch = self.branch(training, valid)
        residual = branch.behind(inputs, Dense(inputs, valid=valid))
        return tf.nn.relu(self.shortcut_of(inputs, training, valid) + residual)

    def shortcut_of(self, inputs, training=None, valid=None):
        """What f is added to: [B, H, W, C] -> [B, H / stride, W / stride, C'].

        Args:
          inputs: the unit's.
          training: whether the batch norm uses the statistics of the batch.
          valid: bool [B, H, W], false where the map is padding; None for no padding.
        """
        if self.shortcut is None:
            return inputs
        pooled = _pooled(inputs, self.stride, valid)
        norm = self.shortcut_norm.bound(training, self._valid_behind(valid))
        return norm(self.shortcut(pooled))

    def begin_as_identity(self) -> None:
        """Sets the last scale and offset of f to zero, so that f(x) = 0."""
        for values in (self.conv3_norm.gamma, self.conv3_norm.beta):
            values.assign(tf.zeros_like(values))


def _pooled(maps, stride, valid):
    """Means of windows of stride x stride, over what is in the map and no padding."""
    if stride == 1:
        return maps
    if valid is None:
        # "SAME": the windows at the end of an odd side are smaller.
        return tf.nn.avg_pool2d(maps, stride, stride, "SAME")
    share = tf.cast(valid[..., tf.newaxis], maps.dtype)
    totals, shares = (
        tf.nn.avg_pool2d(values, stride, stride, "SAME")
        for values in (without_padding(maps, valid), share)
    )
    return tf.math.divide_no_nan(totals, shares)
