"""Layers whose config is what they were made with."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping

import tensorflow as tf
import tf_keras


def made_by(**makers: Callable) -> Mapping[str, Callable]:
    """See FromArguments.makers."""
    return types.MappingProxyType(makers)


class FromArguments:
    """Goes before a layer: its config is the arguments of its constructor.

    Layers among them, such as the units of a block, are configs in it, and what was
    left out is there with its default. Variables are not: `from_config` makes a layer
    with fresh weights.
    """

    #: What makes an argument from its plain values, by its name, where it has none.
    makers: Mapping[str, Callable] = made_by()

    def __new__(cls, *args, **kwargs):
        """Keeps the arguments."""
        layer = super().__new__(cls, *args, **kwargs)
        # No attribute that Keras knows of: it would look for variables in it, and find
        # those of a block's units under another name.
        object.__setattr__(layer, "_made_with", _MadeWith(args, kwargs))
        return layer

    def get_config(self) -> dict:
        """The constructor's arguments as plain values."""
        made = self._made_with
        signature = inspect.signature(type(self).__init__)
        bound = signature.bind(self, *made.args, **made.kwargs)
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        if "dtype" in arguments:
            # By default that is the global policy, when the layer was made.
            arguments["dtype"] = self.dtype_policy.name
        return {name: _plain(value) for name, value in arguments.items()}

    @classmethod
    def from_config(cls, config: dict):
        """A layer with fresh weights from what `get_config` gave."""
        with tf.name_scope(config["name"]):
            made = {name: _made(value) for name, value in config.items()}
        for name, make in cls.makers.items():
            if made.get(name) is not None:
                made[name] = make(made[name])
        return cls(**made)


class _MadeWith:
    """Arguments of a constructor."""

    def __init__(self, args: tuple, kwargs: dict):
        self.args, self.kwargs = args, kwargs


def _plain(value):
    if isinstance(value, tf_keras.layers.Layer):
        return tf_keras.saving.serialize_keras_object(value)
    if isinstance(value, tf_keras.mixed_precision.Policy):
        return value.name
    if hasattr(value, "arguments"):  # A config.
        return value.arguments()
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _made(value):
    if isinstance(value, Mapping) and "class_name" in value:
        return tf_keras.saving.deserialize_keras_object(value)
    if isinstance(value, list):
        return [_made(each) for each in value]
    return value
