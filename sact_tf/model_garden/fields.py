"""Checks that every field of an experiment holds what its class declares.

The Garden's configs take anything: a number in place of a name is noticed wherever it
is used first, if at all.
"""

import collections.abc
import types
import typing
from collections.abc import Iterator
from typing import Any

from official.modeling import hyperparams

_UNIONS = (typing.Union, types.UnionType)
_SEQUENCES = (collections.abc.Sequence, list, tuple)
#: What a type is called, and several of it.
_WORDS = {
    str: ("a string", "strings"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    type(None): ("null", "null"),
}


def check(
    config: hyperparams.Config,
    prefix: str = "",
    like: hyperparams.Config | None = None,
) -> None:
    """Refuses values that are not of the types that their fields declare.

    Args:
      config: an experiment, or a part of one.
      prefix: name of that part, with a dot.
      like: of the same class; what it holds is right, whatever is declared. By default
        what the class holds by default.

    Raises:
      ValueError: there are such values; the message names their fields.
    """
    problems = list(_problems(config, prefix, like))
    if problems:
        raise ValueError("; ".join(problems))


def _problems(config, prefix, like) -> Iterator[str]:
    declared = type(config)._get_annotations()
    if type(like) is not type(config):
        like = type(config)()
    for name, annotation in declared.items():
        if name not in config.__dict__ or typing.get_origin(annotation) is (
            typing.ClassVar
        ):
            continue
        value, usual = config.__dict__[name], like.__dict__.get(name)
        where = f"{prefix}{name}"
        if not _fits(value, annotation):
            # Where an empty string says that there is none, null says the same.
            if repr(value) != repr(usual) and not (value is None and usual == ""):
                described = _described(annotation)
                yield f"{where} must be {described}. Received: {_shown(value)}"
        elif isinstance(config, hyperparams.OneOfConfig) and name == "type":
            choices = sorted(set(declared) - {"type"})
            if value is not None and value not in choices:
                yield f"{where} must be one of {', '.join(choices)}. Received: {value}"
        elif isinstance(value, hyperparams.Config):
            yield from _problems(value, f"{where}.", usual)


def _fits(value, annotation):
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return any(_fits(value, argument) for argument in arguments)
    if origin in _SEQUENCES:
        # Sizes of images may have None in them.
        return isinstance(value, list | tuple) and all(
            part is None or _fits(part, argument)
            for argument in arguments[:1]
            for part in value
        )
    if isinstance(value, bool):
        return annotation in (bool, Any)
    if annotation is float:
        return isinstance(value, int | float)
    if isinstance(annotation, type) and origin is None:
        return isinstance(value, annotation)
    return True  # Any, and what no config of images declares.


def _described(annotation):
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return " or ".join(dict.fromkeys(map(_described, arguments)))
    if origin in _SEQUENCES:
        _, several = _WORDS.get(arguments[0] if arguments else None, ("", "values"))
        return f"a list of {several}, such as [1, 2]".replace(
            "strings, such as [1, 2]", "strings, such as [a, b]"
        )
    if annotation is hyperparams.Config:
        return "a group of fields"
    if isinstance(annotation, type) and issubclass(annotation, hyperparams.Config):
        names = list(annotation._get_annotations())
        more = ", ..." if names[6:] else ""
        return f"a group of fields ({', '.join(names[:6])}{more})"
    word, _ = _WORDS.get(annotation, (str(annotation), ""))
    return word


def _shown(value):
    if isinstance(value, hyperparams.Config):
        return repr(value.as_dict())
    return repr(value)
