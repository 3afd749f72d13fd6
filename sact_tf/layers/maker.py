"""What the layers of a network have in common."""

from typing import NamedTuple

import tf_keras

from sact_tf.layers.arguments import FromArguments, made_by
from sact_tf.layers.convolution import Convolution
from sact_tf.layers.normalization import BatchNormalization


class Maker(NamedTuple):
    """Makes the convolutions and batch norms of a network.

    Attributes:
      weight_decay: of the convolutions; see Convolution.
      momentum, epsilon, trainable: of the batch norms; see BatchNormalization.
      leak: slope of the leaky ReLUs behind the batch norms of head and halting scores;
        None for a ReLU in the head and no activation in the scores.
      dtype: dtype or policy of all layers; the global policy by default.
    """

    weight_decay: float = 0.0
    momentum: float = 0.997
    epsilon: float = 1e-5
    trainable: bool = True
    leak: float | None = None
    dtype: str | tf_keras.mixed_precision.Policy | None = None

    def conv(
        self, input_channels: int, filters: int, kernel_size: int, *, name: str, **more
    ) -> Convolution:
        """A convolution; for the arguments see there."""
        return Convolution(
            *(input_channels, filters, kernel_size),
            weight_decay=self.weight_decay,
            name=name,
            dtype=self.dtype,
            **more,
        )

    def norm(self, channels: int, *, name: str, **more) -> BatchNormalization:
        """A batch norm; for the arguments see there."""
        return BatchNormalization(
            channels,
            momentum=self.momentum,
            epsilon=self.epsilon,
            trainable=self.trainable,
            name=name,
            dtype=self.dtype,
            **more,
        )


class Made(FromArguments):
    """Goes before a layer that is made with a Maker, as the argument `make`."""

    makers = made_by(make=lambda values: Maker(**values))

    def get_config(self) -> dict:
        """See FromArguments."""
        config = super().get_config()
        # By default that is the global policy, when the layer was made.
        config["make"]["dtype"] = self.dtype_policy.name
        return config
