"""Values of Python objects as data: taken, compared, kept in a file, given back.

What is kept are numbers, text, members of enumerations, arrays, tensors, variables,
random generators, and lists, tuples, sets, deques, dicts and simple objects of them.
Files, functions, data sets and the like belong to a process, and are not. Nothing is
pickled: what was kept runs no code when it is read.
"""

import collections
import dataclasses
import enum
import io
import json
import random
import types
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras

_SEQUENCES = {
    kind.__name__: kind for kind in (list, tuple, set, frozenset, collections.deque)
}
#: Rich objects of which the variables are kept.
_OF_VARIABLES = (tf_keras.layers.Layer, tf.Module, tf_keras.optimizers.Optimizer)


class NotPlainError(TypeError):
    """A value that cannot be kept."""


@dataclasses.dataclass(frozen=True, eq=False)
class Snapshot:
    """A value as JSON in which arrays are numbered, and the arrays."""

    tree: object
    arrays: tuple[np.ndarray, ...] = ()

    def __eq__(self, other):
        return (
            isinstance(other, Snapshot)
            and json.dumps(self.tree) == json.dumps(other.tree)
            and len(self.arrays) == len(other.arrays)
            and all(map(_same, self.arrays, other.arrays))
        )


#: The value of what is not there.
ABSENT = Snapshot({"absent": True})


def take(value, simple: Callable[[object], bool] = dataclasses.is_dataclass):
    """A snapshot of a value.

    Args:
      value: any.
      simple: whether an object is no more than its attributes.

    Raises:
      NotPlainError: the value, or something in it, cannot be kept.
    """
    arrays = []
    tree = _Taking(arrays, simple).tree(value)
    return Snapshot(tree, tuple(arrays))


def give(snapshot: Snapshot, current=None):
    """The value of a snapshot; in the current one where that is possible.

    So others who hold the current list, dict, variable or object see the value, too.

    Raises:
      NotPlainError: it is the value of an object or variables that are not there.
    """
    return _give(snapshot.tree, snapshot.arrays, current)


def pack(content) -> bytes:
    """Nested dicts and lists of JSON and snapshots, as bytes."""
    arrays = []

    def number(snapshot):
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"No JSON: {snapshot!r}")
        first = len(arrays)
        arrays.extend(snapshot.arrays)
        return {
            "snapshot": snapshot.tree,
            "arrays": [first, first + len(snapshot.arrays)],
        }

    text = json.dumps(content, default=number)
    buffer = io.BytesIO()
    named = {f"a{index}": array for index, array in enumerate(arrays)}
    np.savez(buffer, text=np.frombuffer(text.encode(), np.uint8), **named)
    return buffer.getvalue()


def unpack(content: bytes):
    """What `pack` was given."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:

        def snapshot(entry):
            if set(entry) != {"snapshot", "arrays"}:
                return entry
            names = [f"a{index}" for index in range(*entry["arrays"])]
            return Snapshot(entry["snapshot"], tuple(stored[name] for name in names))

        return json.loads(stored["text"].tobytes().decode(), object_hook=snapshot)


def _same(one, other):
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return one.tobytes() == other.tobytes() or bool(np.array_equal(one, other))


class _Taking:
    """Makes the tree of a value and collects its arrays."""

    def __init__(self, arrays, simple):
        self._arrays, self._simple = arrays, simple
        self._within = []  # Objects around the one at hand, against circles.

    def tree(self, value):
        if value is None or type(value) in (bool, int, float, str):
            return value
        if any(value is outer for outer in self._within):
            raise NotPlainError("A circle of objects")
        self._within.append(value)
        tree = self._of(value)
        self._within.pop()
        return tree

    def _of(self, value):
        kind = type(value).__name__
        if isinstance(value, enum.Enum):
            return {"enum": kind, "name": value.name}
        if isinstance(value, bytes):
            return {"bytes": value.hex()}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, (np.ndarray, np.generic)):
            return {"scalar" if isinstance(value, np.generic) else "array": self(value)}
        if isinstance(value, tf.Variable):
            return {"variables": [self(value.numpy())]}
        if isinstance(value, tf.Tensor) and hasattr(value, "numpy"):
            return {"tensor": self(value.numpy())}
        if isinstance(value, dict):
            pairs = [[self.tree(key), self.tree(item)] for key, item in value.items()]
            return {"dict": pairs}
        if isinstance(value, (list, set, frozenset, collections.deque)) or (
            type(value) is tuple
        ):
            base = next(k for k, v in _SEQUENCES.items() if isinstance(value, v))
            items = [self.tree(item) for item in value]
            if "set" in base:
                items.sort(key=json.dumps)  # Sets have no order; snapshots do.
            return {base: items, "maxlen": getattr(value, "maxlen", None)}
        if isinstance(value, np.random.Generator):
            return {"generator": self.tree(value.bit_generator.state)}
        if isinstance(value, np.random.RandomState):
            return {"generator": self.tree(value.get_state(legacy=False))}
        if isinstance(value, random.Random):
            return {"random": self.tree(value.getstate())}
        if isinstance(value, _OF_VARIABLES):
            return {"variables": [self(v.numpy()) for v in _variables(value)]}
        if self._simple(value) and not isinstance(value, type):
            named = sorted(vars(value).items())
            return {"object": kind, "has": [[n, self.tree(v)] for n, v in named]}
        raise NotPlainError(f"A {kind} cannot be kept")

    def __call__(self, value):
        array = np.array(value)
        if array.dtype.hasobject:
            raise NotPlainError("An array of objects cannot be kept")
        self._arrays.append(array)
        return len(self._arrays) - 1


def _variables(value):
    found = value.variables
    return found() if callable(found) else found  # Those of legacy optimizers.


def _give(tree, arrays, current):
    if not isinstance(tree, dict):
        return tree
    kind, content = next(iter(tree.items()))
    if kind in _SEQUENCES:
        items = [_give(item, arrays, None) for item in content]
        return _sequence(kind, items, tree["maxlen"], current)
    give = {
        "enum": lambda: _member(content, tree["name"], current),
        "bytes": lambda: bytes.fromhex(content),
        "complex": lambda: complex(*content),
        "array": lambda: arrays[content].copy(),
        "scalar": lambda: arrays[content][()],
        "tensor": lambda: tf.constant(arrays[content]),
        "dict": lambda: _dict(content, arrays, current),
        "variables": lambda: _assigned([arrays[i] for i in content], current),
        "generator": lambda: _generator(_give(content, arrays, None), current),
        "random": lambda: _random(_give(content, arrays, None), current),
        "object": lambda: _object(tree, arrays, current),
    }
    return give[kind]()


def _sequence(kind, items, maxlen, current):
    if isinstance(current, list) and kind == "list":
        current[:] = items
        return current
    if isinstance(current, (set, collections.deque)) and kind == _name(current):
        current.clear()
        (current.update if kind == "set" else current.extend)(items)
        return current
    if kind == "deque":
        return collections.deque(items, maxlen)
    return _SEQUENCES[kind](items)


def _name(value):
    return "set" if isinstance(value, set) else "deque"


def _dict(pairs, arrays, current):
    before = current if isinstance(current, dict) else {}
    values = {}
    for key, item in pairs:
        key = _give(key, arrays, None)
        values[key] = _give(item, arrays, before.get(key))
    if not isinstance(current, dict):
        return values
    current.clear()
    current.update(values)
    return current


def _assigned(values, current):
    variables = [current] if isinstance(current, tf.Variable) else []
    if isinstance(current, _OF_VARIABLES):
        variables = _variables(current)
    shapes = [tuple(variable.shape) for variable in variables]
    if not variables or shapes != [value.shape for value in values]:
        raise NotPlainError("Other variables than those that were kept")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return current


def _member(kind, name, current):
    if type(current).__name__ != kind or name not in type(current).__members__:
        raise NotPlainError(f"No {kind} to take up")
    return type(current)[name]


def _generator(state, current):
    if isinstance(current, np.random.RandomState):
        current.set_state(state)
    elif isinstance(current, np.random.Generator):
        current.bit_generator.state = state
    else:
        raise NotPlainError("No random generator to take up")
    return current


def _random(state, current):
    current = current if isinstance(current, random.Random) else random.Random()
    current.setstate(state)
    return current


def _object(tree, arrays, current):
    if type(current).__name__ != tree["object"]:
        raise NotPlainError(f"No {tree['object']} to take up")
    before = types.MappingProxyType(dict(vars(current)))
    for name, item in tree["has"]:
        # Around the setters of frozen dataclasses.
        object.__setattr__(current, name, _give(item, arrays, before.get(name)))
    return current
