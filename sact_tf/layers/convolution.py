"""The convolution that all networks here are made of."""

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf import flops
from sact_tf.geometry.maps import nine_to_one

# Winograd's F(2 x 2, 3 x 3) (Lavin and Gray, 2016): four outputs of a 3x3 convolution
# from 16 products instead of 36. By numbers, in order: of the 4x4 inputs, of the
# kernel, and of the products; both dimensions of a map at once.
_INPUTS, _KERNEL, _OUTPUTS = (
    np.kron(matrix, matrix).astype(np.float32)
    for matrix in (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    )
)


class Convolution(tf_keras.layers.Conv2D):
    """A square convolution, built at once, with the paddings that the paper's nets use.

    Input and output are [B, H, W, C]; a 1x1 convolution of stride one takes [B, C] as
    well, and a 3x3 convolution of stride one takes positions that come with all their
    neighbours, or tiles with a halo. Kernels start from a
    variance-scaling initialiser (supplement A.1) and carry the L2 penalty
    weight_decay / 2 * sum(kernel ** 2); biases carry none.
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
            kernel_initializer=tf_keras.initializers.VarianceScaling(2.0, "fan_in"),
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
        # Also [B, C], and nine times the channels.
        self.input_spec = None

    def call(self, inputs, surroundings: str = "padding"):
        """Convolves maps.

        Args:
          inputs: [B, H, W, C], or [B, C] (1x1 only).
          surroundings: what a kernel meets beyond the edges: "padding"; "halo": the
            maps are tiles with a margin of one, and the output is smaller by two;
            "channels": the inputs are [B, H, W, 9 * C], each position with all its
            neighbours in the order of the kernel's places; "squares": the inputs are
            [16, Q, C], squares of 2x2 positions with their neighbours, all 4x4 places
            one after the other, and so are the outputs' four places.

        Returns:
          [B, H', W', C'], or [B, C'], or [4, Q, C'].
        """
        if inputs.shape.rank == 2:
            outputs = tf.matmul(inputs, self.kernel[0, 0])
            return outputs if self.bias is None else outputs + self.bias
        if surroundings == "squares":
            outputs = self._on_squares(inputs)
            return outputs if self.bias is None else outputs + self.bias
        if surroundings != "padding":
            kernel, padding = self.kernel, "VALID"
            if surroundings == "channels":
                kernel = tf.reshape(kernel, [1, 1, -1, self.filters])
                padding = "SAME"
            outputs = tf.nn.conv2d(inputs, kernel, 1, padding)
            return outputs if self.bias is None else tf.nn.bias_add(outputs, self.bias)
        if self.kernel_size == (3, 3) and self.filters == 1 and self.strides == (1, 1):
            return self._single_output(inputs)
        if self._margin:
            side = [self._margin] * 2
            inputs = tf.pad(inputs, [[0, 0], side, side, [0, 0]])
        return super().call(inputs)

    def _on_squares(self, squares):
        """Four outputs from 16 products each, by Winograd's algorithm."""
        channels, filters = self.kernel.shape[2:]
        kernel = tf.reshape(self.kernel, [9, channels * filters])
        kernel = tf.reshape(tf.matmul(_KERNEL, kernel), [16, channels, filters])
        inputs = tf.matmul(_INPUTS, tf.reshape(squares, [16, -1]))
        products = tf.matmul(tf.reshape(inputs, [16, -1, channels]), kernel)
        outputs = tf.matmul(_OUTPUTS, tf.reshape(products, [16, -1]))
        return tf.reshape(outputs, [4, -1, filters])

    def _single_output(self, inputs):
        """The 3x3 convolution with one output channel, without nine-fold copies of C.

        Every position is projected onto nine numbers, one for each place in the kernel;
        then each position adds up nine neighbours' numbers. Several times faster than
        the general convolution, whose matrix product would have one column.
        """
        kernel = tf.reshape(self.kernel, [1, 1, 9, self.kernel.shape[2]])
        projections = tf.nn.conv2d(
            inputs, tf.transpose(kernel, [0, 1, 3, 2]), 1, "VALID"
        )
        gather = nine_to_one(inputs.dtype)
        outputs = tf.nn.conv2d(projections, gather, 1, "SAME")
        return outputs if self.bias is None else outputs + self.bias

    def flops(self, positions) -> tf.Tensor:
        """FLOPs at a number of output positions: int64 of the shape of `positions`."""
        return flops.convolution(self.kernel.shape, positions)
