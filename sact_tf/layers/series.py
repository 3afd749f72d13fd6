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

    def __init__(self, whole, count: int, tables: dict | None = None):
        """Takes a function whose tensors have one axis more in front.

        Args:
          whole: the function; its tensors may be tf.TensorArrays or _Part, too.
          count: how many there are.
          tables: pairs of a matrix [count, n] and the sizes of the vectors in its rows,
            by their type: what the _Parts of `whole` are parts of, in their order.
        """
        self.whole, self.tables, self._count = whole, tables or {}, count

    @classmethod
    def of(cls, functions: Sequence) -> "Stack":
        """Brings functions together; what is no tensor must be the same in all.

        Vectors are copied, into one matrix of each type: the fewer tensors go into a
        loop and its conditionals, the sooner TensorFlow has optimised them. Tensors of
        more dimensions are kept as they are, in an array of references: kernels of a
        block are tens of megabytes.
        """
        columns = list(zip(*map(tf.nest.flatten, functions), strict=True))
        together, vectors = [], {}
        for column in columns:
            if tf.is_tensor(column[0]) and column[0].shape.rank == 1:
                together.append(_Part(column[0].dtype))
                vectors.setdefault(column[0].dtype, []).append(column)
            else:
                together.append(_together(column))
        tables = {}
        for dtype, parts in vectors.items():
            rows = [vector for row in zip(*parts, strict=True) for vector in row]
            table = tf.reshape(tf.concat(rows, axis=0), [len(functions), -1])
            tables[dtype] = table, [column[0].shape[0] for column in parts]
        whole = tf.nest.pack_sequence_as(functions[0], together)
        return cls(whole, len(functions), tables)

    def __len__(self):
        """Number of the functions."""
        return self._count

    def __getitem__(self, index: int | tf.Tensor):
        """Function number `index`."""
        vectors = {
            dtype: iter(tf.split(tf.gather(table, index), sizes))
            for dtype, (table, sizes) in self.tables.items()
        }

        def picked(value):
            if isinstance(value, _Part):
                return next(vectors[value.dtype])
            if isinstance(value, tf.TensorArray):
                return value.read(index)
            return tf.gather(value, index) if tf.is_tensor(value) else value

        return tf.nest.map_structure(picked, self.whole)

    def stacked(self) -> "Stack":
        """Itself."""
        return self


class _Part:
    """Stands for a vector of a type that lies in a table."""

    def __init__(self, dtype: tf.DType):
        self.dtype = dtype


def _together(column):
    first = column[0]
    if not tf.is_tensor(first):
        if any(value != first for value in column):
            raise ValueError(f"These must be the same in all units: {column}")
        return first
    if first.shape.rank == 0:
        return tf.stack(column)
    array = tf.TensorArray(
        first.dtype, len(column), clear_after_read=False, element_shape=first.shape
    )
    for index, value in enumerate(column):
        array = array.write(index, value)
    return array
