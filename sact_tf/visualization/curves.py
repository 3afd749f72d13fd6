"""Curves: what computation buys, what it costs by the clock, and how training goes."""

import numpy as np
from matplotlib.figure import Figure

from sact_tf.visualization.figures import new_figure


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
