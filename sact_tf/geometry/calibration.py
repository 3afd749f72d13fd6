"""When packing pays: the constants of the "auto" execution.

Packing makes a unit's time fall with its active positions, and costs something itself:
rows are gathered, and find their neighbours by a table. "auto" lets units run in vain
on positions that have halted until that has cost as much as packing. So it never takes
more than about twice the time of one who knows the masks beforehand.

`sact-tf benchmark calibrate` measures the constants on a machine and saves them
where this module looks. A network takes them as an argument and keeps them in its
config; that file is only the default.
"""

import dataclasses
import functools
import json
import logging
import math
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

CPU, GPU = "CPU", "GPU"

_TABLES = ("thresholds", "basic_thresholds")

#: Where a calibration is kept, unless the variable SACT_TF_CALIBRATION says otherwise.
DEFAULT_PATH = pathlib.Path("~/.config/sact_tf/calibration.json")


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was measured on a machine; by default on two cores with AVX-512.

    Attributes:
      thresholds: active share below which bottleneck units on packed positions are
        faster than on the map, by the width of their 3x3 convolutions.
      basic_thresholds: the same for units of two 3x3 convolutions.
      flops_per_second: of convolutions.
      seconds: that packing takes in any case.
      seconds_per_value: and for each value of the features that there were.
      device: what was measured, CPU or GPU. On a GPU "auto" only packs by what was
        measured on one.
    """

    thresholds: dict[int, float] = dataclasses.field(
        default_factory=lambda: {
            16: 0.56,
            32: 0.74,
            64: 0.84,
            128: 0.89,
            256: 0.93,
            512: 0.93,
        }
    )
    basic_thresholds: dict[int, float] = dataclasses.field(
        default_factory=lambda: {16: 0.15, 32: 0.29, 64: 0.42, 128: 0.65, 256: 0.73}
    )
    flops_per_second: float = 1.9e11
    seconds: float = 4e-4
    seconds_per_value: float = 1.5e-9
    device: str = CPU

    def packing_cost(
        self, radius: int, width: int, channels: int, flops_per_row: int
    ) -> "PackingCost":
        """What it costs to pack positions of a block.

        Args:
          radius: number of the units' 3x3 convolutions: 1 (bottleneck) or 2 (basic).
          width: their channels.
          channels: of the features.
          flops_per_row: of a unit at one position.
        """
        thresholds = self.thresholds if radius == 1 else self.basic_thresholds
        widths = sorted(thresholds)
        threshold = np.interp(
            math.log2(width),
            [math.log2(value) for value in widths],
            [thresholds[value] for value in widths],
        )
        rows_per_second = self.flops_per_second / flops_per_row
        return PackingCost(
            fixed=self.seconds * rows_per_second,
            per_row=self.seconds_per_value * channels * rows_per_second,
            slower=float(1 / threshold),
        )


class PackingCost(NamedTuple):
    """What packing costs in all, in rows that one unit runs on in the same time.

    Attributes:
      fixed: in any case.
      per_row: for each row that there was.
      slower: times that a packed row takes as long as a position of the map.
    """

    fixed: float
    per_row: float
    slower: float

    def pays(self, units: int, rows: int | None) -> bool:
        """Whether packing can pay.

        Args:
          units: that are still to run.
          rows: positions in all, as far as that is known; None if it is not.
        """
        # What halts before the last unit of two saves less than a graph that can pack
        # takes longer to begin with.
        if units < 3:
            return False
        # On the average perhaps two fifths of the positions will have halted, and about
        # one unit runs before that is known.
        saved = (units - 1) * (1 - 0.6 * self.slower)
        return saved > self.per_row + (self.fixed / rows if rows else 0.0)

    def pays_with_mask(self, units: int, rows: int | None) -> bool:
        """Whether packing can pay where a mask is given: it is known from the start.

        Args:
          units: that the mask leaves positions out of.
          rows: positions in all, as far as that is known; None if it is not.
        """
        # A mask that leaves out less than two thirds may gain, too.
        saved = units * (1 - 0.3 * self.slower)
        return saved > self.per_row + (self.fixed / rows if rows else 0.0)

    def repays(self, have, need, idle, left) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether to pack now, by the rule of ski rental.

        Rows that have halted are computed in vain until that has cost as much as
        packing them; so a block never takes more than about twice the time of one that
        knows its masks beforehand. And only if the units to come repay it.

        Args:
          have: rows that there are.
          need: rows that would be left.
          idle: float32 scalar, rows that units ran on in vain so far.
          left: units to come.

        Returns:
          Whether to pack; and `idle` after one more unit.
        """
        have = tf.cast(have, tf.float32)
        fewer = have - self.slower * tf.cast(need, tf.float32)
        idle += tf.maximum(fewer, 0.0)
        price = self.fixed + self.per_row * have
        return (idle >= price) & (fewer * tf.cast(left, tf.float32) > price), idle


def path() -> pathlib.Path:
    """The file of this machine's calibration, whether it exists or not."""
    return pathlib.Path(
        os.environ.get("SACT_TF_CALIBRATION", DEFAULT_PATH)
    ).expanduser()


def resolved(given: Calibration | Mapping | None) -> Calibration | None:
    """What a network packs by: what it is given, or else the file of this machine.

    The file is named when it is used, once in a process: it decides what is computed,
    and is recorded in the network's config.

    Args:
      given: a calibration, the same as a dict (see `as_dict`), or None.

    Returns:
      A calibration; None for the defaults, where there is no file either.

    Raises:
      ValueError: the dict or the file is no calibration.
    """
    if isinstance(given, Calibration):
        return given
    if given is not None:
        return from_dict(given, f"calibration={given!r}")
    where = path()
    known = _load(where)
    if known is not None:
        _name(where, known.device)
    return known


def as_dict(calibration: Calibration) -> dict:
    """A calibration as plain values, for JSON."""
    values = dataclasses.asdict(calibration)
    for name in _TABLES:
        values[name] = {str(width): share for width, share in values[name].items()}
    return values


def from_dict(values: Mapping, what: str) -> Calibration:
    """A calibration from what `as_dict` gave.

    Args:
      values: plain values.
      what: where they are from, for errors.

    Raises:
      ValueError: they are no calibration.
    """
    try:
        values = dict(values)
        device = values.pop("device", CPU)
        tables = {
            name: {
                int(width): float(share) for width, share in values.pop(name).items()
            }
            for name in _TABLES
        }
        numbers = {name: float(value) for name, value in values.items()}
        calibration = Calibration(**tables, **numbers, device=device)
        if device not in (CPU, GPU):
            raise ValueError
        for table in tables.values():
            if not table or not all(
                width > 0 and 0 < share <= 1 for width, share in table.items()
            ):
                raise ValueError
        if not all(value > 0 and math.isfinite(value) for value in numbers.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{what} must hold a calibration as `sact-tf benchmark calibrate` "
            "writes it; repeat that, or remove it"
        ) from error
    return calibration


def save(calibration: Calibration) -> pathlib.Path:
    """Keeps a calibration for all networks that this user builds from now on."""
    where = path()
    where.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(as_dict(calibration), indent=1)
    where.write_text(content + "\n", encoding="utf-8")
    _load.cache_clear()
    return where


@functools.cache
def _load(where: pathlib.Path) -> Calibration | None:
    if not where.exists():
        return None
    try:
        values = json.loads(where.read_text(encoding="utf-8"))
    except ValueError:
        values = None
    return from_dict(values, str(where))


@functools.cache
def _name(where, device):
    logging.getLogger("sact_tf").warning(
        "execution='auto' packs by the calibration in %s (measured on a %s).",
        where,
        device,
    )
