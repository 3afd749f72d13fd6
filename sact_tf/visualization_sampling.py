"""Pictures of what sampled networks look at (SSBNet, supplement's figures 1 to 10)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sact_tf.visualization import displayable, new_figure


def sampling_points(
    images: np.ndarray,
    record: dict,
    layers: Sequence[tuple[int, int]] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """The positions that units sample, as points on the images, uniform ones above.

    A point is the mean position of what a sample is made of. Where points are close to
    one another a unit looks closely; there is one for each sample, so that both rows
    have as many.

    Args:
      images: float [B, H, W, 3], in [-1, 1]; other ranges are stretched to be shown.
      record: what `ResNet.introspect` of a network with `sampling` gave for these
        images.
      layers: pairs of a block and a unit, both counted from one as in the names of
        layers: (3, 10) is unit 10 of block 3. By default the second and the last unit
        of each block that samples.
      titles: B strings to write beside the images.

    Returns:
      A matplotlib figure, two rows for every image: uniform samples, and the network's.

    Raises:
      ValueError: the network does not sample, or has no such unit.
    """
    blocks = {
        index + 1: block
        for index, block in enumerate(record["blocks"])
        if "sample_lines" in block
    }
    if not blocks:
        raise ValueError(
            "No unit of this network samples. It must be made with sampling='adaptive' "
            "or the like, with two units in some block but the first"
        )
    if layers is None:
        counts = {b: block["sample_lines"].shape[1] + 1 for b, block in blocks.items()}
        layers = [(b, unit) for b, last in counts.items() for unit in sorted({2, last})]
    for block, unit in layers:
        last = blocks[block]["sample_lines"].shape[1] + 1 if block in blocks else 0
        if not 2 <= unit <= last:
            raise ValueError(
                f"Sampled units are those from the second on of the blocks "
                f"{', '.join(map(str, blocks))}. Received: block {block}, unit {unit}"
            )
    rows = 2 * len(images)
    aspect = min(max(images.shape[1] / images.shape[2], 0.3), 3.0)
    figure = new_figure(2.2 * len(layers) + 0.4, (2.2 * aspect + 0.3) * rows + 0.3)
    axes = figure.subplots(rows, len(layers), squeeze=False)
    height, width = images.shape[1:3]
    for column, (block, unit) in enumerate(layers):
        axes[0, column].set_title(f"block {block}, unit {unit}", fontsize=10)
        lines, columns = (
            np.asarray(blocks[block][f"sample_{name}"])[:, unit - 2]
            for name in ("lines", "columns")
        )
        for image in range(len(images)):
            for row, (ys, xs) in enumerate(
                ((_even(lines), _even(columns)), (lines[image], columns[image]))
            ):
                axis = axes[2 * image + row, column]
                shown = 0.5 + 0.5 * displayable(images[image])  # Pale.
                axis.imshow(shown, extent=(0, width, height, 0))
                x, y = np.meshgrid(xs * width, ys * height)
                axis.scatter(x, y, s=600 / len(xs) ** 2 + 2, c="crimson", linewidths=0)
                axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
                if column == 0:
                    name = ("uniform", "sampled")[row]
                    given = "" if titles is None else f"{titles[image]}\n"
                    axis.set_ylabel(f"{given}{name}", fontsize=9)
    return figure


def _even(points):
    count = points.shape[1]
    return (np.arange(count) + 0.5) / count
