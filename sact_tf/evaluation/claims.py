"""Whether one network is better than another: differences and their standard errors.

The rules are those of docs/protocol.md, "Common to all".
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HELD, NOT_HELD, NOT_DECIDABLE = "held", "not held", "not decidable"


class Difference(NamedTuple):
    """A difference between two networks.

    Attributes:
      mean: of one less the other.
      error: standard error of the mean.
    """

    mean: float
    error: float

    @property
    def verdict(self) -> str:
        """On the claim that it is above zero: by two standard errors."""
        if abs(self.mean) <= 2 * self.error:
            return NOT_DECIDABLE
        return HELD if self.mean > 0 else NOT_HELD

    def __str__(self):
        return f"{100 * self.mean:+.2f} ± {100 * self.error:.2f}"


def paired(ours: np.ndarray, theirs: np.ndarray) -> Difference:
    """Of the shares of images that two networks have right, on the same images.

    Args:
      ours: bool [N], the images that one has right.
      theirs: bool [N], those of the other.

    Raises:
      ValueError: there are no images, or not the same ones.
    """
    ours, theirs = np.asarray(ours, bool), np.asarray(theirs, bool)
    if ours.shape != theirs.shape or ours.ndim != 1 or not ours.size:
        raise ValueError(
            "Both networks must have answered the same images, at least one. Received: "
            f"shapes {list(ours.shape)} and {list(theirs.shape)}"
        )
    each = ours.astype(float) - theirs
    return Difference(float(each.mean()), float(each.std() / math.sqrt(each.size)))


def over_seeds(differences: Sequence[Difference]) -> Difference:
    """The mean of one difference, measured with several seeds.

    Its error is that of the images, which are the same for all seeds, or that of the
    mean over seeds, whichever is larger.

    Raises:
      ValueError: there are none.
    """
    if not differences:
        raise ValueError("There must be at least one difference.")
    means = [difference.mean for difference in differences]
    error = max(difference.error for difference in differences)
    if len(means) > 1:
        error = max(error, np.std(means, ddof=1) / math.sqrt(len(means)))
    return Difference(float(np.mean(means)), float(error))


def at_flops(flops: float, curve: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    """What a family of networks has right at a number of FLOPs: shares, image by image.

    Linear in the logarithm of the FLOPs, between the two networks around it.

    Args:
      flops: of an image.
      curve: FLOPs and bool [N], the images it has right, of each network.

    Returns:
      float [N], from 0 to 1.

    Raises:
      ValueError: no two networks are around it: nothing is extrapolated.
    """
    curve = sorted(curve, key=lambda point: point[0])
    for (low, worse), (high, better) in itertools.pairwise(curve):
        if low <= flops <= high:
            share = math.log(flops / low) / math.log(high / low) if high > low else 0.0
            return (1 - share) * np.asarray(worse, float) + share * np.asarray(
                better, float
            )
    raise ValueError(
        f"No two networks are around {flops:.4g} FLOPs. Received: "
        f"{[f'{point[0]:.4g}' for point in curve]}"
    )
