"""Stochastic sampling and interpolation: masks drawn by chance (SSIN).

A mask says with which weight every position of a map is computed; where it is (nearly)
zero, features are interpolated from sampled positions around. In training masks are
soft, so that everything can be differentiated; at inference what is below one half is
not sampled at all.
"""

import math
import numbers
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from sact_tf.layers.arguments import made_by
from sact_tf.layers.maker import Made, Maker

#: Of the logarithms, of the division by the temperature, and of the interpolation.
_TINY, _SMALL = 1e-8, 1e-5
#: Logits begin at sigmoid(3) = 0.95: nearly everything is sampled.
INITIAL_LOGIT = 3.0
#: Of the interpolation kernel: the inverse of a standard deviation in positions.
INITIAL_SHARPNESS = 3.0


class Sampling(NamedTuple):
    """What can be chosen about masks, beside what is learnt.

    Attributes:
      grid: positions in lines and columns 0, grid, 2 * grid, ... are always sampled.
      window: side of the interpolation's window, odd.
      temperature: of the relaxed samples at inference, and where training ends.
      seed: of the noise. At inference masks are the same every time, and the noise the
        same for all images; None for no noise: what has a probability of at least one
        half is sampled.
    """

    grid: int = 11
    window: int = 7
    temperature: float = 0.03
    seed: int | None = 0

    @classmethod
    def checked(cls, options: Mapping | None) -> "Sampling":
        """From a user's options by name; defaults for those that are missing.

        Raises:
          ValueError: an option is unknown or out of range; the message says which.
        """
        if not isinstance(options, Mapping | None):
            raise ValueError(
                "masks must be a mapping from options to values. "
                f"Received: masks={options!r}"
            )
        options = dict(options or {})
        unknown = sorted(set(options) - set(cls._fields))
        if unknown:
            raise ValueError(
                f"masks can have the options {', '.join(cls._fields)}. "
                f"Received: {', '.join(map(repr, unknown))}"
            )
        made = cls(**options)
        for name, what, right in (
            ("grid", "an integer of at least 1", _whole(made.grid, 1)),
            (
                "window",
                "an odd integer of at least 1",
                _whole(made.window, 1) and made.window % 2 == 1,
            ),
            (
                "temperature",
                "a number above zero",
                isinstance(made.temperature, numbers.Real)
                and 0 < made.temperature < math.inf,
            ),
            (
                "seed",
                "an integer of at least 0, or None for no noise",
                made.seed is None or _whole(made.seed, 0),
            ),
        ):
            if not right:
                raise ValueError(
                    f"{name} of masks must be {what}. "
                    f"Received: {name}={getattr(made, name)!r}"
                )
        return made


def _whole(value, least):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value >= least


class Mask(NamedTuple):
    """A mask of a map.

    Attributes:
      values: float32 [B, H, W], weights: 0 to 1, and 0 in padding. At inference either
        zero or at least one half.
      kept: bool [B, H, W], what is sampled at inference: values of at least one half.
      probability: float32 [B, H, W], before noise and grid; zero in padding.
    """

    values: tf.Tensor
    kept: tf.Tensor
    probability: tf.Tensor

    def mean_probability(self, positions: tf.Tensor) -> tf.Tensor:
        """Over the positions of each image, int64 [B]: float32 [B]."""
        total = tf.reduce_sum(self.probability, axis=[1, 2])
        return total / tf.cast(positions, tf.float32)

    @property
    def count(self) -> tf.Tensor:
        """Sampled positions of each image: int64 [B]."""
        return tf.math.count_nonzero(self.kept, axis=[1, 2])


def gumbel(uniform: tf.Tensor) -> tf.Tensor:
    """Gumbel noise from uniform numbers in [0, 1)."""
    return -tf.math.log(-tf.math.log(uniform + _TINY) + _TINY)


def relaxed_sample(
    logits: tf.Tensor, temperature, noise: tf.Tensor | None
) -> tf.Tensor:
    """A Gumbel softmax over "sampled" and "not sampled": the weight of the first.

    Values of at least one half come with the probability sigmoid(logit), whatever the
    temperature.

    Args:
      logits: of any shape.
      temperature: above zero; the lower, the closer to zero or one.
      noise: Gumbel noise [..., 2] that can be broadcast, one for each of the two; None
        for none.
    """
    probability = tf.sigmoid(logits)
    odds = tf.math.log(probability + _TINY) - tf.math.log(1.0 - probability + _TINY)
    if noise is not None:
        odds += noise[..., 0] - noise[..., 1]
    return tf.sigmoid(odds / (temperature + _TINY))


def grid_prior(height, width, step: int) -> tf.Tensor:
    """Lines and columns that are multiples of a step, where they meet: bool [H, W]."""
    lines, columns = (tf.range(side) % step == 0 for side in (height, width))
    return lines[:, tf.newaxis] & columns


def taps(sharpness: tf.Tensor, window: int) -> tf.Tensor:
    """One axis of the interpolation kernel, float32 [window].

    The kernel is v / (2 pi) exp(-v d^2 / 2) with v = sharpness^2: the product of two of
    these.
    """
    distance = tf.range(window, dtype=tf.float32) - (window - 1) / 2
    scale = tf.abs(sharpness) / math.sqrt(2 * math.pi)
    return scale * tf.exp(-tf.square(sharpness * distance) / 2)


def spread(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves every channel along lines and columns, with zeros beyond the edges.

    Args:
      maps: [B, H, W, C].
      kernel: [window], of one axis.
    """
    kernel = tf.cast(kernel, maps.dtype)
    ones = tf.ones([1, 1, maps.shape[-1], 1], maps.dtype)
    for shape in ([-1, 1, 1, 1], [1, -1, 1, 1]):
        taps_of_axis = tf.reshape(kernel, shape) * ones
        maps = tf.nn.depthwise_conv2d(maps, taps_of_axis, [1, 1, 1, 1], "SAME")
    return maps


def blend(weighted: tf.Tensor, values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Adds to features times mask what is interpolated where the mask is not one.

    m f + (1 - m) G(m f) / (G(m) + 1e-5), G being `spread`.

    Args:
      weighted: [B, H, W, C], m f.
      values: float32 [B, H, W], m.
      kernel: [window], of one axis.
    """
    values = values[..., tf.newaxis]
    share = (1.0 - values) / (spread(values, kernel) + _SMALL)
    return weighted + tf.cast(share, weighted.dtype) * spread(weighted, kernel)


class MaskSampler(Made, tf_keras.layers.Layer):
    """Draws a mask, and interpolates what it leaves out.

    The logits are a 3x3 convolution with one output; its kernel begins at zero and its
    bias at 3. The sharpness of the interpolation is learnt.
    """

    makers = made_by(sampling=Sampling.checked, **Made.makers)

    def __init__(
        self,
        channels: int,
        stride: int,
        number: int,
        sampling: Sampling,
        *,
        make: Maker,
        name: str,
    ):
        """Creates the layer and its variables.

        Args:
          channels: C of the maps that masks depend on.
          stride: of the mask.
          number: of the layer in its network: others have other noise.
          sampling: what can be chosen.
          make: makes the layers in it.
          name: name of the layer.
        """
        super().__init__(name=name, dtype=make.dtype)
        self._number, self._sampling = number, sampling
        with tf.name_scope(name):
            self.logits = make.conv(
                channels,
                1,
                3,
                stride=stride,
                explicit_padding=stride > 1,
                use_bias=True,
                initial_bias=INITIAL_LOGIT,
                initial_kernel=0.0,
                # Paths of variables have no more of a layer than its name.
                name=f"{name}_logits",
            )
            self.sharpness = self.add_weight(
                "sharpness",
                [],
                tf.float32,
                tf_keras.initializers.Constant(INITIAL_SHARPNESS),
                # Mixed precision must not take it for a kernel.
                experimental_autocast=False,
            )
        self.built = True

    def call(self, maps, step=None, temperature=None, valid=None) -> Mask:
        """Draws a mask of maps [B, H, W, C].

        Args:
          maps: the maps.
          step: in training, the number of the step (int64 scalar), for noise that is
            new for every image; None at inference.
          temperature: float32 scalar, in training.
          valid: bool [B, H / stride, W / stride], false where the mask is padding; None
            for no padding.

        Returns:
          The mask, [B, H / stride, W / stride].
        """
        logits = tf.cast(self.logits(maps)[..., 0], tf.float32)
        probability = tf.sigmoid(logits)
        noise = self._noise(tf.shape(logits), step)
        if step is None:
            temperature = self._sampling.temperature
        values = relaxed_sample(logits, temperature, noise)
        if step is None:
            values = tf.where(values >= 0.5, values, 0.0)
        grid = grid_prior(*tf.unstack(tf.shape(logits)[1:]), self._sampling.grid)
        values = tf.where(grid, 1.0, values)
        if valid is not None:
            values, probability = (
                tf.where(valid, x, 0.0) for x in (values, probability)
            )
        return Mask(values, values >= 0.5, probability)

    @property
    def window(self) -> int:
        """Side of the interpolation's window."""
        return self._sampling.window

    @property
    def kernel(self) -> tf.Tensor:
        """Of the interpolation; see `taps`."""
        return taps(self.sharpness, self._sampling.window)

    def _noise(self, shape, step):
        seed = self._sampling.seed
        if step is None:
            if seed is None:
                return None
            # Alike for all images: what is said of one depends on no other.
            shape = tf.concat([[1], shape[1:], [2]], axis=0)
            seeds = [seed, self._number]
        else:
            context = tf.distribute.get_replica_context()
            replica = 0 if context is None else context.replica_id_in_sync_group
            shape = tf.concat([shape, [2]], axis=0)
            first = tf.cast(replica, tf.int64) * 2**32 + (seed or 0)
            seeds = tf.stack([first, step * 2**16 + self._number])
        return gumbel(tf.random.stateless_uniform(shape, seeds))
