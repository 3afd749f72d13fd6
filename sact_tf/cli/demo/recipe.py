"""What the demo trains, and where it is kept."""

import pathlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What is trained, and for how long.

    A phase is (size of the scenes, epochs). Training begins on small scenes, which are
    cheap and mostly digit: on large ones alone a network needs many epochs before it
    finds the digits at all.

    The first picture is of a SACT network that takes the plain one's weights after
    `look_after` epochs, and is trained for `look_steps` steps; see `first_look`.
    """

    units: tuple[int, ...] = (3, 4, 5, 2)
    base_channels: int = 16
    root_channels: int = 16
    batch_size: int = 32
    scenes_per_epoch: int = 3200
    validation_scenes: int = 2000
    size: int = 96
    first_phases: tuple[tuple[int, int], ...] = ((64, 8),)
    second_phases: tuple[tuple[int, int], ...] = ((96, 2),)
    first_rate: float = 0.003
    second_rate: float = 0.0015
    tau: float = 0.12
    seed: int = 1
    look_after: int = 2
    look_steps: int = 60

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.scenes_per_epoch // self.batch_size


#: For trying the tool out: seconds instead of minutes, and no useful numbers.
QUICK = Recipe(
    units=(2, 2, 2, 2),
    base_channels=4,
    root_channels=4,
    batch_size=8,
    scenes_per_epoch=16,
    validation_scenes=16,
    first_phases=((64, 1),),
    second_phases=((128, 1),),
    look_after=1,
    look_steps=1,
)

#: Stages of the training: names of their folders.
FIRST, SACT = "1-plain", "2-sact"
LONGER, BASELINE = "3-plain-as-long", "4-plain-same-flops"


def place(output: pathlib.Path, name: str, number: int, size: int) -> pathlib.Path:
    """Where a phase of a stage is kept: the number counts from zero."""
    return output / "training" / name / f"{number + 1}-{size}"
