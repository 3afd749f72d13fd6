"""Pictures of where computation went, and of what it bought."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

_COLOURS = "viridis"


def ponder_cost_maps(
    images: np.ndarray, record: dict, titles=None, scales=None
) -> Figure:
    """Images beside their ponder cost maps: in total, and for every block.

    Scales are common to all images: one for the totals, one for all the blocks, each
    with a colour bar (figure 8).

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
    rows, columns = len(images), 2 + len(blocks)
    if scales is None:
        scales = ponder_cost_ranges(record)
    total_scale, block_scale = (_scale(*scale) for scale in scales)
    aspect = min(max(images.shape[1] / images.shape[2], 0.3), 3.0)
    figure = new_figure(1.9 * columns + 1.2, (1.9 * aspect + 0.5) * rows + 0.8)
    axes = figure.subplots(rows, columns, squeeze=False)
    names = ["", "total", *(block["name"] for block in record["blocks"])]
    for column, name in enumerate(names):
        axes[0, column].set_title(name, fontsize=10)
    for row in range(rows):
        axes[row, 0].imshow(displayable(images[row]))
        if titles is not None:
            axes[row, 0].set_title(titles[row], fontsize=9)
        shown = axes[row, 1].imshow(total[row], cmap=_COLOURS, norm=total_scale)
        size = images.shape[1:3]
        for axis, block in zip(axes[row, 2:], blocks, strict=True):
            shown_block = axis.imshow(
                block[row],
                cmap=_COLOURS,
                extent=(0, size[1], size[0], 0),
                norm=block_scale,
            )
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    bar = {"shrink": 0.9, "location": "bottom", "aspect": 30, "pad": 0.02}
    figure.colorbar(shown, ax=axes[:, :2], label="ponder cost, all blocks", **bar)
    figure.colorbar(shown_block, ax=axes[:, 2:], label="ponder cost, one block", **bar)
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
    columns: int = 6,
) -> Figure:
    """Images above their total ponder cost maps, in rows (figure 9).

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
    figure = new_figure(1.9 * columns + 1.2, 4.0 * rows)
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, (image, values, title) in enumerate(
        zip(images, maps, titles, strict=True)
    ):
        row, column = divmod(index, columns)
        above, below = axes[2 * row : 2 * row + 2, column]
        above.imshow(displayable(image))
        above.set_title(title, fontsize=8)
        low, high = scale or (values.min(), values.max())
        shown = below.imshow(values, cmap=_COLOURS, norm=_scale(low, high))
        # Landscapes leave room above and below: not between image and map.
        above.set_anchor("S")
        below.set_anchor("N")
    if scale:
        figure.colorbar(shown, ax=axes, label="ponder cost, all blocks", shrink=0.8)
    return figure


def accuracy_against_flops(points: list[dict]) -> Figure:
    """The paper's trade-off curve (figure 7).

    Args:
      points: dicts with `name`, `accuracy` (a share), `flops` and `flops_std` per
        image, and optionally `curve`: points of one curve are joined.
    """
    power, unit = (
        (9, "billions")
        if max(point["flops"] for point in points) >= 1e10
        else (6, "millions")
    )
    figure, axes = _curves(
        points,
        lambda point: point["flops"] / 10**power,
        lambda point: point["flops_std"] / 10**power,
    )
    axes.set_xlabel(f"FLOPs per image, {unit} (bars: one standard deviation)")
    return figure


def accuracy_against_image_size(points: list[dict]) -> Figure:
    """Accuracy at several resolutions (figure 7, supplement's figure 1).

    Args:
      points: as for `accuracy_against_flops`, with `image_size` in pixels.
    """
    figure, axes = _curves(points, lambda point: point["image_size"])
    axes.set_xlabel("side of the images, pixels")
    axes.set_xticks(sorted({point["image_size"] for point in points}))
    return figure


def accuracy_against_time(points: list[dict], batch_size: int) -> Figure:
    """What accuracy costs by the clock.

    Args:
      points: dicts with `name`, `accuracy` (a share), `milliseconds` of a batch, and
        `label`, to be written beside the point; those with one `curve` are joined.
      batch_size: images at once.
    """
    figure, axes = _curves(points, lambda point: point["milliseconds"])
    for point in points:
        axes.annotate(
            point["label"],
            (point["milliseconds"], 100 * point["accuracy"]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
        )
    images = "an image" if batch_size == 1 else f"{batch_size} images at once"
    axes.set_xlabel(f"milliseconds for {images}")
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    return figure


def speed_up_against_flops(points: list[dict]) -> Figure:
    """What is saved in time against what is saved in FLOPs, and the ideal as a line.

    Args:
      points: dicts with `what`, `flops_left` (a share) and `speed_up`; points of one
        `what` are joined. Those with no FLOPs left are not drawn.
    """
    figure = new_figure(6.0, 4.8)
    axes = figure.subplots()
    points = [point for point in points if point["flops_left"] > 0]
    shares = np.linspace(min((p["flops_left"] for p in points), default=0.1), 1, 200)
    axes.plot(shares, 1 / shares, "k--", linewidth=1, label="ideal: 1 / FLOPs left")
    for name in dict.fromkeys(point["what"] for point in points):
        members = sorted(
            (point["flops_left"], point["speed_up"])
            for point in points
            if point["what"] == name
        )
        axes.plot(*zip(*members, strict=True), marker="o", label=name)
    axes.set_xlabel("FLOPs left, share of the plain network's")
    axes.set_ylabel("speed-up over the plain network")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def training_curves(runs: dict[str, dict[str, list[tuple[int, float]]]]) -> Figure:
    """What happened in trainings: a panel for every quantity, a colour for every run.

    Args:
      runs: for every run its curves by name: "accuracy, train" goes, dashed, to the
        panel "accuracy", and "accuracy, validation", solid, too. A curve is a list of
        pairs of step and value.
    """
    panels = list(dict.fromkeys(n.partition(",")[0] for r in runs.values() for n in r))
    figure = new_figure(4.2 * max(len(panels), 1), 3.6)
    axes = figure.subplots(1, max(len(panels), 1), squeeze=False)[0]
    for number, (run, curves) in enumerate(runs.items()):
        for name, curve in curves.items():
            panel, _, part = name.partition(", ")
            axes[panels.index(panel)].plot(
                [step for step, _ in curve],
                [value for _, value in curve],
                color=f"C{number}",
                linestyle="--" if part == "train" else "-",
                marker=None if len(curve) > 1 else "o",
                label=f"{run}, {part}",
            )
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_xlabel("step")
        axis.set_ylabel(panel)
        axis.grid(alpha=0.3)
    if panels:
        axes[0].legend(fontsize=7)
    return figure


def saliency_maps(
    images: list[np.ndarray],
    fixation_maps: list[np.ndarray],
    heat_maps: list[np.ndarray],
    ponder_cost_maps: list[np.ndarray],
    saliency_maps: list[np.ndarray],
    titles: list[str],
    temperature: float = 0.2,
) -> Figure:
    """Where people look beside where computation goes (figure 11).

    Args:
      images: float [h, w, 3] in [-1, 1], of any sizes.
      fixation_maps: [H, W], above zero where people looked; drawn as dots.
      heat_maps: [H, W], human saliency.
      ponder_cost_maps: [h, w], as the network gave them.
      saliency_maps: [h, w], post-processed; shown through a softmax over positions.
      titles: what to write beside the images.
      temperature: of the softmax.

    Returns:
      A matplotlib figure, a row for every image. Every map has its own scale.
    """
    # Rows as high as their images are at the common width.
    heights = [f.shape[0] / f.shape[1] for f in fixation_maps]
    figure = new_figure(9.0, sum(2.2 * height + 0.05 for height in heights) + 0.3)
    ratios = {"height_ratios": heights}
    axes = figure.subplots(len(images), 4, squeeze=False, gridspec_kw=ratios)
    names = ("image and fixations", "human saliency", "ponder cost", "post-processed")
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=10)
    rows = zip(
        axes,
        images,
        fixation_maps,
        heat_maps,
        ponder_cost_maps,
        saliency_maps,
        titles,
        strict=True,
    )
    for row, image, fixations, heat, cost, saliency, title in rows:
        height, width = fixations.shape
        extent = (0, width, height, 0)
        row[0].imshow(displayable(image), extent=extent)
        y, x = np.nonzero(fixations > 0)
        row[0].scatter(x + 0.5, y + 0.5, s=3, c="red", linewidths=0)
        row[0].set_ylabel(title, fontsize=8)
        exponents = np.exp((saliency - saliency.max()) / temperature)
        shown = (heat, cost, exponents / exponents.sum())
        for axis, values in zip(row[1:], shown, strict=True):
            axis.imshow(values, cmap=_COLOURS, extent=extent)
        for axis in row:
            axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    return figure


def grid_search_surface(
    sigmas: list[float], gammas: list[float], surface: np.ndarray, title: str
) -> Figure:
    """AUC-Judd for every pair of post-processing settings, the best one framed.

    Args:
      sigmas: S values.
      gammas: G values.
      surface: [S, G], shares.
      title: of the picture.
    """
    figure = new_figure(1.8 + 0.65 * len(gammas), 1.4 + 0.4 * len(sigmas))
    axes = figure.subplots()
    shown = axes.imshow(100 * surface, cmap=_COLOURS, aspect="auto")
    axes.set_xticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas])
    axes.set_yticks(range(len(sigmas)), [f"{sigma:g}" for sigma in sigmas])
    axes.set(xlabel="γ, weight of the centre map", ylabel="s, blur in pixels")
    axes.set_title(title, fontsize=10)
    middle = 50 * (surface.min() + surface.max())
    best = np.unravel_index(surface.argmax(), surface.shape)
    for (y, x), share in np.ndenumerate(100 * surface):
        axes.text(
            x,
            y,
            f"{share:.1f}",
            ha="center",
            va="center",
            fontsize=7,
            color="black" if share > middle else "white",
            bbox={"fill": False, "edgecolor": "red"} if (y, x) == best else None,
        )
    figure.colorbar(shown, label="AUC-Judd, %")
    return figure


def detections(
    images: Sequence[np.ndarray],
    found: Sequence[dict],
    maps: Sequence[np.ndarray],
    names: dict[int, str] | None = None,
    scale: tuple[float, float] | None = None,
) -> Figure:
    """Detections beside the ponder cost map of the feature extractor (figure 10).

    Args:
      images: float [H, W, 3] in [-1, 1], each of its own size.
      found: for each image a dict with boxes [n, 4], [ymin, xmin, ymax, xmax] in
        pixels, scores [n] and classes [n].
      maps: [H, W], one for each image.
      names: of the classes; their numbers by default.
      scale: lowest and highest value of all maps; by default what these reach.

    Returns:
      A matplotlib figure, a row for every image.
    """
    if scale is None:
        scale = min(m.min() for m in maps), max(m.max() for m in maps)
    heights = [4.0 * image.shape[0] / image.shape[1] + 0.2 for image in images]
    figure = new_figure(9.0, sum(heights) + 0.8)
    axes = figure.subplots(len(images), 2, squeeze=False, height_ratios=heights)
    for (left, right), image, detected, values in zip(
        axes, images, found, maps, strict=True
    ):
        left.imshow(displayable(image))
        shown = right.imshow(values, cmap=_COLOURS, norm=_scale(*scale))
        for box, score, category in zip(
            detected["boxes"], detected["scores"], detected["classes"], strict=True
        ):
            _draw_box(left, box, float(score), int(category), names or {})
        for axis in (left, right):
            axis.set_axis_off()
    figure.colorbar(
        shown,
        ax=axes[:, 1],
        label="ponder cost, feature extractor",
        location="bottom",
        aspect=30,
        pad=0.02,
    )
    return figure


def _draw_box(axis, box, score, category, names):
    ymin, xmin, ymax, xmax = box
    colour = f"C{category % 10}"
    axis.add_patch(
        Rectangle(
            (xmin, ymin),
            xmax - xmin,
            ymax - ymin,
            fill=False,
            edgecolor=colour,
            linewidth=1.5,
        )
    )
    axis.text(
        xmin,
        ymin,
        f"{names.get(category, category)} {score:.2f}",
        fontsize=6,
        color="white",
        verticalalignment="bottom",
        clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.6},
    )


def save(figure: Figure, path) -> None:
    """Writes a figure as PNG."""
    # Names of files and classes may have dollar signs, which would begin a formula;
    # matplotlib's own are those of logarithmic axes.
    for text in figure.findobj(Text):
        if "$" in text.get_text() and r"\mathdefault" not in text.get_text():
            text.set_parse_math(False)
    figure.savefig(path, dpi=110)


def to_array(figure: Figure) -> np.ndarray:
    """Draws a figure into uint8 [H, W, 3]."""
    from PIL import Image

    buffer = io.BytesIO()
    save(figure, buffer)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _curves(points, abscissa, bar=None):
    """Accuracy over something: points of one name are joined."""
    figure = new_figure(6.0, 4.2)
    axes = figure.subplots()
    curves = {}
    for point in points:
        curves.setdefault(point.get("curve", point["name"]), []).append(point)
    for name, members in curves.items():
        members = sorted(members, key=abscissa)
        axes.errorbar(
            [abscissa(point) for point in members],
            [100 * point["accuracy"] for point in members],
            xerr=bar and [bar(point) for point in members],
            marker="o",
            capsize=3,
            label=name,
        )
    axes.set_ylabel("validation accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure, axes


def _maps(record):
    """Total [B, H, W], and of every block [B, h, w]."""
    total = np.asarray(record["ponder_cost_map"])[..., 0]
    blocks = [np.asarray(block["ponder_cost"]) for block in record["blocks"]]
    return total, [b if b.ndim == 3 else b[:, np.newaxis, np.newaxis] for b in blocks]


def _scale(low, high):
    return Normalize(low, high if high > low else low + 1.0)


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches."""
    # Not pyplot: no global state, no window system, nothing to close.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.1)  # Inches, so that titles are not cut.
    return figure


def displayable(image: np.ndarray) -> np.ndarray:
    """An image of any range, brought to [0, 1]; [-1, 1] at least is all of that."""
    image = np.asarray(image, np.float32)
    low, high = min(image.min(), -1.0), max(image.max(), 1.0)
    return (image - low) / (high - low)
