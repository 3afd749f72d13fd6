"""What works around defects of TensorFlow 2.20; each one function, each named."""

import tensorflow as tf


def sum_of(rows: tf.Tensor, others: tf.Tensor) -> tf.Tensor:
    """The sum of two tensors of one shape, whose gradient does not ask for shapes.

    The gradient of `+` asks which of the two was broadcast. TensorFlow's constant
    folding takes the shape of what goes into a conditional for that of what comes out
    of it, and so mistakes the number of rows before a packing for that behind it.
    """
    return tf.add_n([others, rows])


def apart_from_convolutions(values: tf.Tensor) -> tf.Tensor:
    """Values of a convolution as rows [n, C], to be added outside of it.

    TensorFlow would otherwise fuse the addition into the convolution. What that cannot
    overwrite, oneDNN's kernel keeps in a member (MklConvOp), and two calls of one graph
    at a time, as a server makes them, then give wrong numbers or crash. A reshape
    between the two prevents it.
    """
    return tf.reshape(values, [-1, values.shape[-1]])


def outlined(signature: list[tf.TensorSpec]):
    """Makes a function one that stays a function in every graph.

    Other functions become parts of the graph that calls them, and TensorFlow optimises
    each copy before the first call. This one is optimised once, if no call has a
    constant as input or does not use an output: for those it is copied all the same.
    """
    return tf.function(
        input_signature=signature,
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def gpu_is_visible() -> bool:
    """Whether operations run on a GPU unless told otherwise."""
    return bool(tf.config.list_physical_devices("GPU"))
