"""Active sets of given shares and shapes."""

import numpy as np
import tensorflow as tf

from sact_tf.geometry.maps import dilate


def masks(
    kind: str, shape: tuple[int, int, int], share: float, count: int
) -> np.ndarray:
    """Masks bool [count, B, H, W], or [1, B, H, W] where all units have the same one.

    Args:
      kind: as for `spread`, or "shrinking", where each unit has fewer than the last.
      shape: [B, H, W].
      share: of the positions that are active, on average.
      count: units.
    """
    level = spread(kind, shape)
    if kind != "shrinking":
        return (level < share)[np.newaxis]
    # From everything to twice the share's complement, so that the mean is the share.
    first, last = min(1.0, 2 * share), max(0.0, 2 * share - 1)
    shares = np.linspace(first, last, count)
    return np.stack([level < value for value in shares])


def spread(kind: str, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """A rank in [0, 1) for every position: the lower, the longer it is active.

    Args:
      kind: "scattered", "blobs", or one blob in the middle for everything else.
      shape: [B, H, W].
      seed: of the random kinds.
    """
    rng = np.random.default_rng(seed)
    batch, height, width = shape
    if kind == "scattered":
        level = rng.uniform(size=shape)
    else:
        count = 5 if kind == "blobs" else 1
        centres = rng.uniform(size=(batch, count, 2)) if count > 1 else [[[0.5, 0.5]]]
        rows = (np.arange(height) + 0.5) / height
        columns = (np.arange(width) + 0.5) / width
        level = np.stack(
            [
                np.min(
                    [
                        np.hypot(*np.meshgrid(rows - y, columns - x, indexing="ij"))
                        for y, x in image
                    ],
                    axis=0,
                )
                for image in np.broadcast_to(centres, (batch, count, 2))
            ]
        )
    order = np.argsort(np.argsort(level.reshape(batch, -1), axis=1), axis=1)
    return (order / (height * width)).reshape(shape)


def flops_left(active: tf.Tensor, narrow: int) -> float:
    """Of bottleneck units: conv1 at the dilated positions, the rest at the active.

    Args:
      active: bool [units, B, H, W].
      narrow: channels of the 3x3 convolutions.

    Returns:
      Share of the FLOPs of all positions.
    """
    outer, inner = 4 * narrow**2, 9 * narrow**2 + 4 * narrow**2
    left = [
        outer * np.mean(dilate(mask, 1)) + inner * np.mean(mask)
        for mask in tf.unstack(active)
    ]
    return float(np.mean(left) / (outer + inner))
