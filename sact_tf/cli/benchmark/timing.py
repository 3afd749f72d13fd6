"""Clocks, and the table of what they said."""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from sact_tf.evaluation import report
from sact_tf.geometry.control_flow import for_xla

#: Turns before those that count where masks change: every shape is compiled for once.
_WARM_UP = 10


@dataclasses.dataclass
class Result:
    """One line of a table.

    Attributes:
      what: what was run.
      milliseconds: the fastest of all turns.
      flops_left: FLOPs over those of the plain network.
      speed_up: time of the plain network over this one's.
      note: whatever else there is to say.
      flops: that are left, of the whole batch.
      share: of the rate of a large matrix product at which they are computed.
    """

    what: str
    milliseconds: float
    flops_left: float
    speed_up: float
    note: str = ""
    flops: float = 0.0
    share: float = 0.0

    @property
    def efficiency(self) -> float:
        """1 where the time falls exactly as the FLOPs do."""
        return self.speed_up * self.flops_left


def fastest(
    candidates: dict[str, Callable[[], object]],
    turns: int,
    title: str,
    renew: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Seconds of each candidate: the fastest of its turns, taken in rotation.

    With `renew`, which is called before every turn to change the inputs, the median.
    """
    for _ in range(2 if renew is None else _WARM_UP):
        if renew:
            renew()
        for candidate in candidates.values():
            candidate()
    times = {name: [] for name in candidates}
    for _ in tqdm(range(turns), title, unit="turn", leave=False, file=sys.stderr):
        if renew:
            renew()
        for name, candidate in candidates.items():
            began = time.perf_counter()
            candidate()
            times[name].append(time.perf_counter() - began)
    typical = np.median if renew else min
    return {name: float(typical(values)) for name, values in times.items()}


def traced(run: Callable, jit: bool = False) -> Callable:
    """A function as a graph, compiled by XLA if wanted.

    Args:
      run: a function of tensors.
      jit: whether XLA compiles it; it must not pack positions.
    """
    if not jit:
        return tf.function(run, autograph=False)

    @functools.wraps(run)
    def fixed(*inputs):
        with for_xla():
            return run(*inputs)

    return tf.function(fixed, autograph=False, jit_compile=True)


def waited(function: Callable, *inputs) -> float:
    """Calls a function, and waits for the device: the first number of its result."""
    # Fetching one number waits for all of the computation, and copies nothing.
    return tf.reshape(function(*inputs), [-1])[0].numpy()


def table(results: list[Result]) -> str:
    """All results, for people."""
    rows = [
        [
            result.what,
            result.note,
            f"{result.milliseconds:.1f}",
            f"{result.flops_left:.3f}",
            f"{result.speed_up:.2f}",
            f"{result.efficiency:.2f}",
            f"{result.share:.0%}",
        ]
        for result in results
    ]
    head = ["what", "where", "ms", "FLOPs left", "speed-up", "efficiency", "of product"]
    return report.pipe_table([head, *rows])
