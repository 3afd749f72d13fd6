"""Where the operations of a graph run on a GPU, told without one.

TensorFlow knows of every operation and type whether there is a kernel for a GPU, and
which of its inputs and outputs are in the host's memory all the same: those of int32,
mostly, and whatever decides the shape of an output or the branch of a conditional. So
it can be counted beforehand what a graph costs beside computing:

  kernels    operations that start a kernel on the device
  on_host    operations that compute on the host with more than some numbers
  transfers  values of the device that the host waits for

What is small on the host, as the arithmetic of shapes, is not counted: it goes on while
the device computes.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf
from tensorflow.python.framework import (
    function_def_to_graph,
    kernels,
    op_def_registry,
)

#: Numbers that a tensor on the host may have, to be taken for a shape or an index.
_FEW = 16
#: Neither computes nor copies; what comes from them was there before.
_FREE = {
    *("Placeholder", "_Arg", "_Retval", "NoOp", "Identity", "IdentityN", "Const"),
    *("Reshape", "ExpandDims", "Squeeze", "Shape", "ShapeN", "Size", "Rank"),
    *("StopGradient", "PreventGradient", "ReadVariableOp", "EnsureShape"),
    *("VarHandleOp", "BroadcastGradientArgs"),
}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_BRANCHES = {"If", "StatelessIf", "Case", "StatelessCase"}
_LOOPS = {"While", "StatelessWhile"}
#: Operations that return how much they have found, and wait for the device to know it.
_WAITS = {"Where", "UniqueV2", "Unique", "NonMaxSuppressionV3"}


class Placement(NamedTuple):
    """What a graph does where; each of its functions is counted once.

    Attributes:
      kernels: names of operations that start a kernel on the device.
      on_host: names of operations that compute on the host with more than some numbers.
      transfers: names of the tensors that the host waits for.
    """

    kernels: tuple[str, ...]
    on_host: tuple[str, ...]
    transfers: tuple[str, ...]


def placement(function) -> Placement:
    """Where the operations of a concrete function would run on a GPU."""
    computing, on_host, transfers = [], [], []
    for graph, results_on_host in _graphs(function.graph):
        waited, known = set(), _Known()
        for op in graph.get_operations():
            if op.outputs and known(op):
                continue
            inputs, outputs = _on_host(op)
            if op.type in _WAITS and not all(outputs):
                waited.add(f"{op.name}:size")
            for tensor, here in zip(op.inputs, inputs, strict=True):
                if here and not (known(tensor.op) or _starts_on_host(tensor)):
                    waited.add(tensor.name)
            if op.type in _FREE or not op.outputs:
                continue
            if op.type in _CALLS | _BRANCHES | _LOOPS:
                continue
            if not all(outputs):
                computing.append(_name(graph, op.name))
            elif any(map(_is_large, op.outputs)):
                on_host.append(_name(graph, op.name))
        if results_on_host:
            waited |= {
                tensor.name
                for tensor in graph.outputs
                if not (known(tensor.op) or _starts_on_host(tensor))
            }
        transfers += [_name(graph, name) for name in sorted(waited)]
    return Placement(tuple(computing), tuple(on_host), tuple(transfers))


class _Known:
    """Tells which operations the optimiser replaces by their results.

    Constants, shapes that are known, and whatever is computed from such alone.
    """

    def __init__(self):
        self._found = {}

    def __call__(self, op) -> bool:
        # Not by recursion: graphs are deep. Inputs come before what they go into.
        if op not in self._found:
            self._found[op] = False  # For loops of old, which have none here.
            self._found[op] = self._is_known(op)
        return self._found[op]

    def _is_known(self, op):
        if op.type == "Const":
            return True
        if op.type in ("Shape", "ShapeN", "Size", "Rank"):
            return all(tensor.shape.is_fully_defined() for tensor in op.inputs)
        if not op.inputs or op.op_def is None or op.op_def.is_stateful:
            return False
        if op.type in _CALLS | _BRANCHES | _LOOPS:
            return False
        return all(self._found.get(tensor.op, False) for tensor in op.inputs)


def _name(graph, name):
    return f"{graph.name}/{name}"


def _graphs(graph: tf.Graph) -> Iterator[tuple[tf.Graph, bool]]:
    """A graph and those of its functions; and whether the host waits for its results.

    It does for the conditions of loops.
    """
    conditions = set()
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    waiting, seen = [(graph, False)], set()
    while waiting:
        here, results_on_host = waiting.pop()
        yield here, results_on_host
        for op in here.get_operations():
            for name, is_condition in _functions_of(op):
                if is_condition:
                    conditions.add(name)
                if name in library and name not in seen:
                    seen.add(name)
                    body = function_def_to_graph.function_def_to_graph(library[name])
                    waiting.append((body, name in conditions))


def _functions_of(op):
    """Names of functions that an operation calls, and whether each is a condition."""
    for key, value in op.node_def.attr.items():
        called = [value.func.name] if value.HasField("func") else []
        called += [function.name for function in value.list.func]
        for name in filter(None, called):
            yield name, op.type in _LOOPS and key == "cond"


def _on_host(op) -> tuple[list[bool], list[bool]]:
    """Of each input and output of an operation, whether it is in the host's memory."""
    if op.type in _CALLS | _LOOPS | {"Placeholder", "_Arg", "Identity", "IdentityN"}:
        # Functions keep what they are given where its type puts it.
        return [_type_on_host(t) for t in op.inputs], [
            _type_on_host(t) for t in op.outputs
        ]
    if op.type in _BRANCHES:
        first, *others = op.inputs
        del first
        return [True, *map(_type_on_host, others)], [*map(_type_on_host, op.outputs)]
    kernel = None if "CPU" in op.device.upper() else _kernel(op)
    if kernel is None:
        return [True] * len(op.inputs), [True] * len(op.outputs)
    definition = op_def_registry.get(op.type)
    on_host = set(kernel.host_memory_arg)
    return (
        _expanded(op, definition.input_arg, on_host),
        _expanded(op, definition.output_arg, on_host),
    )


def _expanded(op, arguments, on_host):
    places = []
    for argument in arguments:
        count = 1
        if argument.number_attr:
            count = op.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        places += [argument.name in on_host] * count
    return places


def _kernel(op):
    """The kernel for a GPU that fits the types of an operation; None if none does."""
    attributes = op.node_def.attr
    for kernel in _gpu_kernels(op.type):
        if all(
            _types(attributes[constraint.name])
            <= set(constraint.allowed_values.list.type)
            for constraint in kernel.constraint
        ):
            return kernel
    return None


@functools.cache
def _gpu_kernels(op_type):
    found = kernels.get_registered_kernels_for_op(op_type).kernel
    own = [k for k in found if k.device_type in ("GPU", "DEFAULT") and not k.label]
    # Those made for it before those for whatever device.
    return sorted(own, key=lambda kernel: kernel.device_type != "GPU")


def _types(value):
    return {value.type} if value.type else set(value.list.type)


def _type_on_host(tensor):
    kinds = (tf.int32, tf.string, tf.resource)
    return tensor.dtype.base_dtype in kinds


def _starts_on_host(tensor):
    """Whether a value is on the host to begin with, or known before the graph runs."""
    op = tensor.op
    while op.type in ("Identity", "StopGradient"):  # They will be no more.
        tensor = op.inputs[0]
        op = tensor.op
    return _on_host(op)[1][tensor.value_index]


def _is_large(tensor):
    count = tensor.shape.num_elements()
    return count is None or count > _FEW
