"""What works around defects of TensorFlow 2.20; each one function, each named."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.saved_model import save_context

# Whether graphs are made that may run on another machine: not empty then.
_portable = []
# Whether graphs are made that XLA compiles: not empty then.
_compiled = []
# Whether graphs are made as for a GPU, be there one or not: not empty then.
_for_gpu = []


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Graphs traced inside run on any device, a GPU, too, wherever they are traced."""
    _portable.append(True)
    try:
        yield
    finally:
        _portable.pop()


@contextlib.contextmanager
def for_xla() -> Iterator[None]:
    """Graphs traced inside are compiled by XLA, for fixed shapes."""
    _compiled.append(True)
    try:
        yield
    finally:
        _compiled.pop()


def is_for_xla() -> bool:
    """Whether what is traced now is said to be compiled by XLA."""
    return bool(_compiled)


@contextlib.contextmanager
def for_gpu() -> Iterator[None]:
    """Graphs traced inside are those for a GPU, though there may be none: to look at.

    They give the same numbers on a CPU.
    """
    _for_gpu.append(True)
    try:
        yield
    finally:
        _for_gpu.pop()


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


def conditional(condition: tf.Tensor, if_true: Callable, if_false: Callable) -> object:
    """tf.cond whose branches stay functions in the graph; see `_as_functions`."""
    return _as_functions(tf.cond(condition, if_true, if_false))


def loop(condition: Callable, body: Callable, variables: tuple, shapes: tuple) -> tuple:
    """tf.while_loop whose body stays a function in the graph; see `_as_functions`.

    Args:
      condition: takes the variables.
      body: takes and gives the variables.
      variables: a structure of tensors.
      shapes: of the same structure, shapes that hold for every turn.
    """
    return _as_functions(
        tf.while_loop(condition, body, variables, shape_invariants=shapes)
    )


def _as_functions(outputs):
    """Keeps a loop or a conditional a call of functions.

    TensorFlow makes switches and merges of one graph of them otherwise. Its optimiser
    then infers the shapes of that graph again and again, loops inside of loops, which
    doubles the time of a first call; and its constant folding mistakes shapes across
    merges. A call is no slower.
    """
    # On a GPU (2.20) such calls end in a segmentation fault: their kernels expect int32
    # values elsewhere than the functions do.
    anywhere = _portable or save_context.in_save_context()
    if tf.executing_eagerly() or gpu_is_visible() or anywhere:
        return outputs
    for tensor in tf.nest.flatten(outputs):
        op = tensor.op
        while op.type == "Identity":
            op = op.inputs[0].op
        if op.type in ("If", "StatelessIf", "While", "StatelessWhile"):
            lowered = attr_value_pb2.AttrValue(b=False)
            op._set_attr("_lower_using_switch_merge", lowered)
            break
    return outputs


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
    return bool(_for_gpu) or bool(tf.config.list_physical_devices("GPU"))
