"""Detections on images, and where the detector computed."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from sact_tf.visualization.figures import (
    new_figure,
    opaque,
    scale_of,
    show_image,
    show_map,
)

_WIDTH = 6.4  # inches
#: Boxes of an image that have names and scores beside them: more would hide it.
_CAPTIONED = 8
_NUM_COLOURS = 10


def detections(
    images: Sequence[np.ndarray],
    found: Sequence[dict],
    maps: Sequence[np.ndarray],
    names: Mapping[int, str] | None = None,
    scale: tuple[float, float] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Detections beside the ponder cost map of the feature extractor (figure 10).

    Boxes have the colour of their class, which the legend names with how many there
    are; where they are few, name and score are beside each. The map is drawn over the
    image, in grey. A single landscape is above its map, all others beside theirs.

    Args:
      images: float [H, W, 3] in [-1, 1], each of its own size.
      found: for each image a dict with boxes [n, 4], [ymin, xmin, ymax, xmax] in
        pixels, scores [n] and classes [n].
      maps: [h, w], one for each image.
      names: of the classes; their numbers by default.
      scale: lowest and highest value of all maps; by default what these reach.
      titles: to write above the images.

    Returns:
      A matplotlib figure, a row for every image.
    """
    names = names or {}
    if scale is None:
        scale = min(m.min() for m in maps), max(m.max() for m in maps)
    sizes = [np.shape(image)[:2] for image in images]
    stacked = len(images) == 1 and sizes[0][0] < sizes[0][1]
    columns = 1 if stacked else 2
    cells = [_WIDTH / columns * height / width + 0.1 for height, width in sizes]
    if stacked:
        cells *= 2
    room = 0.25 * len(images) * (titles is not None)
    counts = Counter(int(c) for each in found for c in each["classes"])
    legend_rows = -(-len(counts) // 3)
    figure = new_figure(_WIDTH, sum(cells) + room + 0.8 + 0.25 * legend_rows)
    shape = (2, 1) if stacked else (len(images), 2)
    axes = figure.subplots(*shape, squeeze=False, height_ratios=cells)
    if stacked:
        axes = axes.T
    colours = _colours(counts)
    for number, (left, right) in enumerate(axes):
        show_image(left, images[number])
        shown = show_map(
            right, maps[number], scale_of(*scale), sizes[number], images[number]
        )
        _draw_boxes(left, found[number], colours, names)
        if titles is not None:
            left.set_title(titles[number], fontsize=9, loc="left")
        for axis in (left, right):
            axis.set_axis_off()
    bar = {"location": "bottom", "aspect": 40, "pad": 0.02}
    label = "ponder cost, feature extractor"
    opaque(figure.colorbar(shown, ax=axes, label=label, **bar))
    if counts:
        patches = [
            Patch(color=colours[c], label=f"{names.get(c, c)} ({counts[c]})")
            for c in sorted(counts)
        ]
        # Below everything: constrained layout keeps room for it.
        figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=10)
    return figure


def _colours(classes):
    """Of each class the same in all pictures, unless there are too many classes."""
    ordered = sorted(classes)
    by_number = not ordered or ordered[-1] <= _NUM_COLOURS
    return {
        category: f"C{(category if by_number else index) % _NUM_COLOURS}"
        for index, category in enumerate(ordered)
    }


def _draw_boxes(axis, detected, colours, names):
    rows = zip(detected["boxes"], detected["scores"], detected["classes"], strict=True)
    captioned = len(detected["classes"]) <= _CAPTIONED
    for (ymin, xmin, ymax, xmax), score, category in rows:
        category = int(category)
        colour = colours[category]
        axis.add_patch(
            Rectangle(
                (xmin, ymin),
                xmax - xmin,
                ymax - ymin,
                fill=False,
                edgecolor=colour,
                linewidth=2,
            )
        )
        if captioned:
            axis.text(
                xmin,
                max(ymin, 0),
                f"{names.get(category, category)} {float(score):.2f}",
                fontsize=9,
                color="white",
                verticalalignment="bottom" if ymin > 0 else "top",
                clip_on=True,
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.0},
            )
