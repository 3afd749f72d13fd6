"""The clock: how long candidates take, in turns, warmed up."""

import time
from collections.abc import Callable

import numpy as np

_MIN_TURNS, _MAX_TURNS = 3, 15


def medians(
    candidates: dict[str, Callable[[], object]], seconds: float = 1.0
) -> dict[str, float]:
    """Seconds that each candidate takes: the median of its turns.

    They take turns, so that whatever else the machine does meets all of them. The first
    call of each is not counted.

    Args:
      candidates: by name; each returns when it is done.
      seconds: after which no new round begins, once there were three.
    """
    for candidate in candidates.values():
        candidate()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + seconds
    for turn in range(_MAX_TURNS):
        if turn >= _MIN_TURNS and time.perf_counter() > end:
            break
        for name, candidate in candidates.items():
            began = time.perf_counter()
            candidate()
            times[name].append(time.perf_counter() - began)
    return {name: float(np.median(values)) for name, values in times.items()}
