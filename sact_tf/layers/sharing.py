"""Functions that differ in their weights only, traced once and called many times.

A block's units, and its halting scores, have weights of the same shapes. Written out
for training, with live batch norm, each of them would be traced, and differentiated,
anew: most of the time of a first step of `fit`. Here one trace, and one trace of its
gradient, serve all. TensorFlow makes them parts of the graph that calls them before it
optimises it, so that what runs is the same.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from sact_tf.geometry.control_flow import is_not_for_xla
from sact_tf.layers.normalization import LiveNorm, NormBySums


class _Shape(NamedTuple):
    """What a (nested) NamedTuple is, but for its tensors; can be hashed."""

    kind: type | str
    parts: tuple


def call(body: Callable, function: NamedTuple, options: tuple, *inputs) -> object:
    """The value of body(function, options, *inputs), by a trace that others share.

    Args:
      body: a function of a module, with structures of tensors for its value.
      function: a (nested) NamedTuple of tensors, variables, None and what can be
        hashed, such as a residual unit's branch; LiveNorms in it are told their
        statistics.
      options: what can be hashed.
      inputs: structures of tensors and None.
    """
    tensors, followers = [], []
    shape = _take_apart(function, tensors, followers)
    value, statistics = _traced(body, shape, options)(tensors, inputs)
    for follow, of_batch in zip(followers, statistics, strict=True):
        if of_batch is not None:  # It normalises something.
            follow(*of_batch)
    return value


def pays(function: NamedTuple) -> bool:
    """Whether to `call` a function: in a step of `fit` without XLA, on one replica.

    What speaks to other replicas must not be in a call.
    """
    if tf.executing_eagerly() or not is_not_for_xla():
        return False
    kinds = set(_kinds(function))
    return LiveNorm in kinds and NormBySums not in kinds


def _kinds(value):
    if isinstance(value, tuple):
        yield type(value)
        for part in value:
            yield from _kinds(part)


@functools.lru_cache(maxsize=256)
def _traced(body, shape, options):
    @tf.function(autograph=False)
    def traced(tensors, inputs):
        statistics = []
        function = _put_together(shape, iter(tensors), statistics)
        value = body(function, options, *inputs)
        return value, statistics

    return traced


def _take_apart(value, tensors, followers):
    """The shape of a value, whose tensors and followers are appended to the lists."""
    if isinstance(value, tuple):
        parts = [_take_apart(part, tensors, followers) for part in value]
        return _Shape(type(value), tuple(parts))
    if isinstance(value, tf.Variable) or tf.is_tensor(value):
        tensors.append(tf.convert_to_tensor(value))
        return _Shape("tensor", ())
    if callable(value):
        followers.append(value)
        return _Shape("follower", ())
    return _Shape("constant", (value,))


def _put_together(shape, tensors, statistics):
    """A value of the shape, with these tensors; statistics are appended to the list."""
    if shape.kind == "tensor":
        return next(tensors)
    if shape.kind == "constant":
        return shape.parts[0]
    if shape.kind == "follower":
        place = len(statistics)
        statistics.append(None)

        def follow(*of_batch):
            statistics[place] = [tf.stop_gradient(value) for value in of_batch]

        return follow
    parts = [_put_together(part, tensors, statistics) for part in shape.parts]
    return shape.kind(*parts)
