"""The convolution that all networks here are made of."""

import tensorflow as tf
import tf_keras

from sact_tf import flops
from sact_tf.geometry.filters import Filter
from sact_tf.layers.arguments import FromArguments


class Convolution(FromArguments, tf_keras.layers.Conv2D):
    """A square convolution, built at once, with the paddings that the paper's nets use.

    Input and output are [B, H, W, C]; a 1x1 convolution of stride one takes [B, C] as
    well. Kernels start from a variance-scaling initialiser (supplement A.1) and carry
    the L2 penalty weight_decay / 2 * sum(kernel ** 2); biases carry none.
    """

    def __init__(
        self,
        input_channels: int,
        filters: int,
        kernel_size: int,
        *,
        stride: int = 1,
        explicit_padding: bool = False,
        use_bias: bool = False,
        initial_bias: float = 0.0,
        initial_kernel: float | None = None,
        weight_decay: float = 0.0,
        name: str,
        dtype=None,
    ):
        """Creates the layer and its variables.

        Args:
          input_channels: C of the input.
          filters: C of the output.
          kernel_size: side of the kernel.
          stride: stride in both directions.
          explicit_padding: pad by (kernel_size - 1) / 2 on every side whatever the
            stride. Otherwise TensorFlow's "SAME", which pads less on the left and top
            where the stride is two.
          use_bias: whether to add a bias.
          initial_bias: its initial value.
          initial_kernel: standard deviation of a normal distribution that the kernel
            starts from (zero: all zeros); None for the variance-scaling initialiser.
          weight_decay: weight of the L2 penalty, halved.
          name: name of the layer.
          dtype: dtype or policy; the global policy by default.
        """
        super().__init__(
            filters,
            kernel_size,
            strides=stride,
            padding="valid" if explicit_padding else "same",
            use_bias=use_bias,
            kernel_initializer=(
                tf_keras.initializers.VarianceScaling(2.0, "fan_in")
                if initial_kernel is None
                else tf_keras.initializers.RandomNormal(stddev=initial_kernel)
            ),
            bias_initializer=tf_keras.initializers.Constant(initial_bias),
            kernel_regularizer=(
                tf_keras.regularizers.L2(weight_decay / 2) if weight_decay else None
            ),
            name=name,
            dtype=dtype,
        )
        self._margin = (kernel_size - 1) // 2 if explicit_padding else 0
        with tf.name_scope(name):
            self.build((None, None, None, input_channels))
        # Also [B, C].
        self.input_spec = None

    def values(self) -> Filter:
        """Kernel and bias in the type of the features, for stride one."""
        bias = self.bias
        return Filter(
            tf.cast(self.kernel, self.compute_dtype),
            None if bias is None else tf.cast(bias, self.compute_dtype),
        )

    def call(self, inputs):
        """Convolves [B, H, W, C], or [B, C] (1x1 only)."""
        filters = self.values()
        if inputs.shape.rank == 2:
            outputs = tf.matmul(inputs, filters.kernel[0, 0])
            return outputs if filters.bias is None else outputs + filters.bias
        if self.strides == (1, 1) and not self._margin:
            return filters(inputs)
        padding = "SAME"
        if self._margin:
            sides, padding = [self._margin] * 2, "VALID"
            inputs = tf.pad(inputs, [[0, 0], sides, sides, [0, 0]])
        outputs = tf.nn.conv2d(inputs, filters.kernel, self.strides[0], padding)
        if filters.bias is None:
            return outputs
        return tf.nn.bias_add(outputs, filters.bias)

    def flops(self, positions) -> tf.Tensor:
        """FLOPs at a number of output positions: int64 of the shape of `positions`."""
        return flops.convolution(self.kernel.shape, positions)
