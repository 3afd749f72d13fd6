"""What is measured, how large, and what a section needs."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf
import tf_keras

_EXECUTIONS = ("auto", "dense", "positions", "tiles")


class Way(NamedTuple):
    """A network and how it is run.

    Attributes:
      network: "peer", or adaptivity, execution and precision.
      xla: whether XLA compiles it, which takes long.
      large: whether it is run on large images, too.
    """

    network: str
    xla: bool = False
    large: bool = True


@dataclasses.dataclass(frozen=True)
class Settings:
    """How large everything is."""

    units: Sequence[int] = (3, 4, 23, 3)
    base_channels: int = 64
    size: tuple[int, int] = (224, 224)
    #: The most telling first: time may run out.
    batches: Sequence[int] = (32, 8, 1)
    large: tuple[tuple[int, int], int] = ((600, 848), 8)
    peer: Callable[..., tf_keras.Model] = tf_keras.applications.ResNet101V2
    training_units: Sequence[int] = (3, 4, 6, 3)
    training_batch: int = 32
    #: Adaptivity, frozen batch norm, precision.
    training: Sequence[tuple[str, bool, str]] = tuple(
        (kind, frozen, precision)
        for frozen in (False, True)
        for precision in ("float32", "mixed_bfloat16")
        for kind in ("SACT", "plain")
    )
    cifar_units: Sequence[int] = (5, 5, 5)
    cifar_channels: int = 16
    cifar_batch: int = 128
    #: Adaptivity, whether XLA compiles the step, updates in one call.
    cifar: Sequence[tuple[str, bool, int]] = (
        ("SACT", True, 50),
        ("plain", True, 50),
        ("SACT", False, 50),
        ("SACT", True, 1),
    )
    #: Side of the matrices, and how many products follow one another.
    product: int = 8192
    products: int = 8
    #: Numbers in the vector that is copied.
    copied: int = 2**28
    golden: Sequence[tuple[str, str]] = (
        *(("imagenet_tiny_sact", way) for way in _EXECUTIONS),
        *(("imagenet_tiny_act", way) for way in ("auto", "positions")),
        ("imagenet_tiny_vanilla", "auto"),
        *(("cifar_sact", way) for way in _EXECUTIONS),
        *(("cifar_act", way) for way in ("auto", "positions")),
        ("cifar_vanilla", "auto"),
    )
    #: The most telling first here, too.
    ways: Sequence[Way] = (
        Way("plain"),
        Way("SACT auto"),
        Way("SACT dense", xla=True, large=False),
        Way("plain", xla=True, large=False),
        Way("ACT positions"),
        Way("SACT dense"),
        Way("plain bfloat16"),
        Way("SACT auto bfloat16"),
        Way("peer"),
        Way("ACT auto", large=False),
        Way("peer", xla=True, large=False),
    )
    #: Networks whose operations are counted.
    graphs: Sequence[str] = ("plain", "SACT dense", "ACT positions", "SACT tiles")
    turns: int = 10


FULL = Settings()
TINY = Settings(
    units=(1, 2, 2, 1),
    base_channels=4,
    size=(32, 32),
    batches=(2,),
    large=((64, 96), 1),
    peer=functools.partial(tf_keras.applications.MobileNet, alpha=0.25),
    training_units=(1, 2, 1, 1),
    training_batch=2,
    training=(
        ("plain", False, "float32"),
        ("plain", False, "mixed_bfloat16"),
    ),
    cifar_units=(1, 1, 1),
    cifar_channels=2,
    cifar_batch=2,
    cifar=(("plain", True, 2),),
    product=64,
    products=2,
    copied=2**12,
    golden=(("cifar_sact", "dense"), ("cifar_vanilla", "auto")),
    ways=(
        Way("plain"),
        Way("SACT auto", large=False),
        Way("SACT dense", xla=True, large=False),
        Way("ACT positions", large=False),
        Way("plain bfloat16", large=False),
        Way("peer", large=False),
    ),
    graphs=("SACT dense",),
    turns=2,
)


class Result(NamedTuple):
    """One line of the table.

    Attributes:
      section: it belongs to.
      what: was measured.
      value: of it.
      unit: of the value.
      details: whatever else is known.
    """

    section: str
    what: str
    value: float
    unit: str
    details: dict


class Case(NamedTuple):
    """Something to be timed.

    Attributes:
      name: of the result.
      make: gives a function without arguments that runs it and returns one number.
      images: in one update.
      updates: in one call.
      details: of the result.
    """

    name: str
    make: Callable[[], Callable[[], tf.Tensor]]
    images: int = 0
    updates: int = 1
    details: dict = {}  # noqa: RUF012 (never changed)


class Check(Protocol):
    """What a section needs of the run that it is part of."""

    settings: Settings
    results: list[Result]

    def add(self, what: str, value: float, unit: str, **details) -> None:
        """Keeps a result."""

    def skip(self, what: str = "", why: str = "no time left") -> None:
        """Names what was not run."""

    def say(self, text: str) -> None:
        """Shows progress."""

    def guarded(self, what: str = "") -> contextlib.AbstractContextManager:
        """A context in which what goes wrong becomes a line."""

    def seconds_left(self) -> float:
        """Of the section's time."""

    def compare(
        self, cases: Sequence[Case], seconds: float | None = None
    ) -> dict[str, float]:
        """Milliseconds of cases that take turns."""
