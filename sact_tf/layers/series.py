"""Pure functions that differ in their weights only, of which a loop picks one.

A function here is a (nested) NamedTuple of tensors that can be called, such as a
residual unit's branch. The units of a block have weights of the same shapes; a loop
around one unit is traced, and optimised by TensorFlow, once.
"""

from collections.abc import Sequence

import tensorflow as tf


class Series:
    """Functions one after the other, as they are."""

    def __init__(self, functions: Sequence):
        """Takes functions of one kind."""
        self._functions = list(functions)

    def __len__(self):
        """Number of the functions."""
        return len(self._functions)

    def __getitem__(self, index: int):
        """Function number `index`, an integer."""
        return self._functions[index]

    def stacked(self) -> "Stack":
        """The same for loops."""
        return Stack.of(self._functions)


class Stack:
    """Functions whose tensors lie together, picked by a number known at run time."""

    def __init__(self, stacked, count: int):
        """Takes a function whose tensors have one axis more in front.

        Args:
          stacked: the function; its tensors may be tf.TensorArrays, too.
          count: how many there are.
        """
        self.whole, self._count = stacked, count

    @classmethod
    def of(cls, functions: Sequence) -> "Stack":
        """Brings functions together; what is no tensor must be the same in all.

        Vectors are copied. Tensors of more dimensions are kept as they are, in an array
        of references: kernels of a block are tens of megabytes.
        """
        first, *_ = functions
        columns = zip(*map(tf.nest.flatten, functions), strict=True)
        values = [_together(column) for column in columns]
        return cls(tf.nest.pack_sequence_as(first, values), len(functions))

    def __len__(self):
        """Number of the functions."""
        return self._count

    def __getitem__(self, index: int | tf.Tensor):
        """Function number `index`."""
        return tf.nest.map_structure(lambda value: _picked(value, index), self.whole)

    def stacked(self) -> "Stack":
        """Itself."""
        return self


def _together(column):
    first = column[0]
    if not tf.is_tensor(first):
        if any(value != first for value in column):
            raise ValueError(f"These must be the same in all units: {column}")
        return first
    if first.shape.rank < 2:
        return tf.stack(column)
    array = tf.TensorArray(
        first.dtype, len(column), clear_after_read=False, element_shape=first.shape
    )
    for index, value in enumerate(column):
        array = array.write(index, value)
    return array


def _picked(value, index):
    if isinstance(value, tf.TensorArray):
        return value.read(index)
    return tf.gather(value, index) if tf.is_tensor(value) else value
