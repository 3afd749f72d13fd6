"""Ponder cost maps: of all blocks, of each, over the images and beside them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from sact_tf.visualization.figures import (
    new_figure,
    opaque,
    scale_of,
    show_image,
    show_map,
)

_CELL = 1.75  # inches
_ACROSS = 2  # blocks beside each other in a cell


def ponder_cost_maps(
    images: np.ndarray, record: dict, titles=None, scales=None
) -> Figure:
    """Images beside their ponder cost maps: in total, and for every block.

    A row has the image, the map of all blocks over it, the same map alone, and the
    maps of the blocks, smaller. Scales are common to all images: one for the totals,
    one for all the blocks, each with a colour bar (figure 8).

    Args:
      images: float [B, H, W, 3], in [-1, 1]; other ranges are stretched to be shown.
      record: what `ResNet.introspect` gave for these images.
      titles: B strings to write above the images.
      scales: two pairs (lowest, highest), for the totals and for the blocks; by default
        what these images reach.

    Returns:
      A matplotlib figure, a row for every image.
    """
    total, blocks = _maps(record)
    if scales is None:
        scales = ponder_cost_ranges(record)
    total_scale, block_scale = (scale_of(*scale) for scale in scales)
    size = images.shape[1:3]
    aspect = min(max(size[0] / size[1], 0.3), 3.0)
    high = -(-len(blocks) // _ACROSS)
    room = 0.3 if titles is None else 0.5
    figure = new_figure(4 * _CELL, (_CELL * aspect + room) * len(images) + 0.9)
    grid = figure.add_gridspec(high * len(images), 4 * _ACROSS)
    wholes, parts = [], []
    for row in range(len(images)):
        lines = slice(row * high, (row + 1) * high)
        image, over, alone = (
            figure.add_subplot(grid[lines, cell * _ACROSS : (cell + 1) * _ACROSS])
            for cell in range(3)
        )
        show_image(image, images[row])
        show_map(over, total[row], total_scale, size, images[row])
        shown = show_map(alone, total[row], total_scale, size)
        wholes += [image, over, alone]
        for index, (block, values) in enumerate(
            zip(record["blocks"], blocks, strict=True)
        ):
            line, column = divmod(index, _ACROSS)
            axis = figure.add_subplot(grid[row * high + line, 3 * _ACROSS + column])
            shown_block = show_map(axis, values[row], block_scale, size)
            axis.set_title(block["name"], fontsize=8, pad=2)
            parts.append(axis)
        if titles is not None:
            image.set_title(titles[row], fontsize=9, loc="left")
        if row == 0:
            over.set_title("over the image", fontsize=10)
            alone.set_title("all blocks", fontsize=10)
    bar = {"location": "bottom", "shrink": 0.9, "pad": 0.02}
    figure.colorbar(shown, ax=wholes, label="ponder cost, all blocks", aspect=40, **bar)
    figure.colorbar(shown_block, ax=parts, label="one block", aspect=14, **bar)
    return figure


def ponder_cost_ranges(record: dict) -> tuple[tuple[float, float], ...]:
    """Lowest and highest ponder cost: of all blocks together, and of single blocks."""
    total, blocks = _maps(record)
    lows, highs = [b.min() for b in blocks], [b.max() for b in blocks]
    return (float(total.min()), float(total.max())), (
        float(min(lows)),
        float(max(highs)),
    )


def ponder_cost_overview(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    titles: Sequence[str],
    scale: tuple[float, float] | None,
    columns: int = 4,
) -> Figure:
    """Images above their total ponder cost maps, in rows (figure 9).

    The maps are drawn over the images, which are grey there.

    Args:
      images: float [H, W, 3] in [-1, 1], each of its own size.
      maps: [H, W], one for each image.
      titles: one for each image.
      scale: lowest and highest value of all maps, with a colour bar; None gives every
        map its own.
      columns: images in a row.
    """
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    shapes = [np.shape(image)[:2] for image in images]
    # As high as the highest in each row needs.
    heights = [
        _CELL * min(max(h / w for h, w in shapes[row * columns :][:columns]), 1.5)
        for row in range(rows)
    ]
    ratios = [height for height in heights for _ in range(2)]
    figure = new_figure(_CELL * columns, 2 * sum(heights) + 0.35 * rows + 0.7)
    axes = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=ratios)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, (image, values, title) in enumerate(
        zip(images, maps, titles, strict=True)
    ):
        row, column = divmod(index, columns)
        above, below = axes[2 * row : 2 * row + 2, column]
        show_image(above, image)
        above.set_title(title, fontsize=9)
        low, high = scale or (values.min(), values.max())
        shown = show_map(below, values, scale_of(low, high), shapes[index], image)
        # Landscapes leave room above and below: not between image and map.
        above.set_anchor("S")
        below.set_anchor("N")
    if scale:
        label = "ponder cost, all blocks"
        bar = {"location": "bottom", "aspect": 40, "pad": 0.02}
        opaque(figure.colorbar(shown, ax=axes, label=label, **bar))
    return figure


def _maps(record):
    """Total [B, H, W], and of every block [B, h, w]."""
    total = np.asarray(record["ponder_cost_map"])[..., 0]
    blocks = [np.asarray(block["ponder_cost"]) for block in record["blocks"]]
    return total, [b if b.ndim == 3 else b[:, np.newaxis, np.newaxis] for b in blocks]
