"""Draws the figures of docs/how_it_works.md into docs/images.

    python docs/figures/how_it_works.py

The numbers in them come out of the package's own functions. Halting scores are given by
hand, or are the contrast of a photograph: they show the mechanism, not a network.
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyArrowPatch, Rectangle

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from sact_tf import flops, halting, visualization
from sact_tf.geometry import maps

IMAGES = pathlib.Path(__file__).parents[1] / "images"
EPSILON = 0.01
SUBSCRIPTS = "₀₁₂₃₄"
BLUE, GREEN, GREY, RED = "#31688e", "#35b779", "#c9ccd1", "#c23b22"


def main() -> None:
    """Draws all of them."""
    figures = {
        "how_block": block(),
        "how_halting": scores(),
        "how_positions": positions(),
        "how_convolutions": convolutions(),
    }
    for name, figure in figures.items():
        visualization.save(figure, IMAGES / f"{name}.png")
        print(IMAGES / f"{name}.png")


def run(scores):
    """A block whose halting scores are known.

    Args:
      scores: float32 [L - 1, ...], of all units but the last.

    Returns:
      What it cost, and bool [L - 1, ...], where it goes on after each unit.
    """
    scores = tf.convert_to_tensor(scores, tf.float32)
    state, flags = halting.start(scores.shape[1:]), []
    for score in scores:
        state = halting.step(state, score, EPSILON)
        flags.append(state.active)
    return halting.cost(scores, tf.stack(flags)), np.stack(flags)


def block():
    """The data flow of one block."""
    figure = visualization.new_figure(6.4, 2.9)
    axis = figure.subplots()
    axis.set(xlim=(0, 64), ylim=(0, 29))
    axis.set_axis_off()

    def box(x, y, width, height, text, colour, **options):
        axis.add_patch(Rectangle((x, y), width, height, color=colour))
        options = {"color": "white", "fontsize": 10, **options}
        axis.text(
            x + width / 2, y + height / 2, text, ha="center", va="center", **options
        )

    def arrow(start, end, **options):
        axis.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                color="black",
                mutation_scale=11,
                shrinkA=0,
                shrinkB=0,
                **options,
            )
        )

    for unit in range(4):
        x = 6 + 14 * unit
        box(x, 20, 9, 6, f"unit {unit + 1}", BLUE)
        arrow((x - 5, 23), (x, 23))
        last = unit == 3
        if not last:
            arrow((x + 4.5, 20), (x + 4.5, 15.5))
            box(x, 11, 9, 4.5, f"score {unit + 1}", GREEN)
            arrow((x + 4.5, 11), (x + 4.5, 5.6))
        else:
            arrow((x + 4.5, 20), (x + 4.5, 5.6))
        label = f"p{SUBSCRIPTS[unit + 1]} x{SUBSCRIPTS[unit + 1]}"
        axis.text(x + 5.2, 8, label, fontsize=11, va="center")
    axis.text(1, 25.6, "x₀", fontsize=11, va="center")
    box(6, 1.2, 51, 4.4, "sum: what the block gives", GREY, color="black")
    arrow((57, 3.4), (62.5, 3.4))
    return figure


def scores():
    """Algorithm 2 at three positions."""
    named = {
        "sky": (0.75, 0.6, 0.5, 0.5),
        "edge": (0.3, 0.35, 0.4, 0.5),
        "face": (0.05, 0.1, 0.15, 0.2),
    }
    cost, _ = run(np.transpose(list(named.values())))
    figure = visualization.new_figure(6.4, 2.5)
    axis = figure.subplots()
    for row in range(len(named)):
        shares = cost.halting_distribution[row].numpy()
        units = int(cost.num_units[row])
        left = 0.0
        for unit, share in enumerate(shares[:units]):
            last = unit == units - 1
            axis.barh(
                -row,
                share,
                left=left,
                height=0.62,
                color=RED if last else BLUE,
                alpha=1.0 if last else 0.95 - 0.17 * unit,
                edgecolor="white",
            )
            if share > 0.04:
                axis.text(
                    left + share / 2,
                    -row,
                    f"{share:.2f}",
                    ha="center",
                    va="center",
                    color="white",
                    fontsize=10,
                )
            left += share
        text = (
            f"N = {units}   R = {shares[units - 1]:.2f}   "
            f"cost {float(cost.ponder_cost[row]):.2f}"
        )
        axis.text(1.03, -row, text, va="center", fontsize=10)
    axis.axvline(1 - EPSILON, color="black", linestyle="--", linewidth=1)
    axis.set_yticks([0, -1, -2], named, fontsize=11)
    axis.set(xlim=(0, 1.0), xlabel="sum of the halting scores (red: the remainder)")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def positions():
    """Where a block of six units goes on, in a photograph."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg") / np.float32(127.5) - 1
    small = tf.image.resize(image, (54, 80), antialias=True)
    grey = tf.reduce_mean(small, -1)[tf.newaxis, :, :, tf.newaxis]
    # The standard deviation around each position.
    mean = tf.nn.avg_pool2d(grey, 5, 1, "SAME")
    contrast = tf.sqrt(tf.nn.relu(tf.nn.avg_pool2d(grey**2, 5, 1, "SAME") - mean**2))[
        0, :, :, 0
    ]
    score = tf.clip_by_value(1.0 - 2.3 * contrast, 0.02, 1.0)
    cost, flags = run([score**power for power in (1.2, 1.0, 1.4, 1.8, 2.2)])
    figure = visualization.new_figure(6.4, 3.35)
    axes = figure.subplots(2, 3)
    size = image.shape[:2]
    visualization.show_image(axes[0, 0], image)
    axes[0, 0].set_title("unit 1: everywhere", fontsize=10)
    for axis, unit in zip(axes.flat[1:5], (2, 3, 4, 6), strict=True):
        active = flags[unit - 2]
        shown = np.repeat(np.repeat(active, 8, 0), 8, 1)[: size[0], : size[1]]
        faded = np.where(shown[..., np.newaxis], image, 0.8 + 0.2 * image)
        visualization.show_image(axis, faded)
        axis.set_title(f"unit {unit}: {active.mean():.0%}", fontsize=10)
    values = cost.ponder_cost.numpy()
    scale = visualization.scale_of(values.min(), values.max())
    drawn = visualization.show_map(axes[1, 2], values, scale, size)
    axes[1, 2].set_title("ponder cost", fontsize=10)
    figure.colorbar(drawn, ax=axes, shrink=0.9)
    return figure


def convolutions():
    """Where the three convolutions of a unit are evaluated."""
    active = np.zeros((9, 12), bool)
    active[3:6, 3:6] = active[2:4, 7:10] = True
    active[5, 6] = True
    dilated = maps.dilate(tf.constant(active[np.newaxis]), 1)[0].numpy()
    figure = visualization.new_figure(6.4, 2.1)
    axes = figure.subplots(1, 3)
    widths = {
        "1 x 1, 256 to 64": (active + 1.0 * (dilated & ~active) * 0.5, (1, 1, 256, 64)),
        "3 x 3, 64 to 64": (1.0 * active, (3, 3, 64, 64)),
        "1 x 1, 64 to 256": (1.0 * active, (1, 1, 64, 256)),
    }
    colours = ListedColormap(["#f1f2f4", GREEN, BLUE])
    for axis, (name, (shown, kernel)) in zip(axes, widths.items(), strict=True):
        axis.imshow(shown, cmap=colours, vmin=0, vmax=1)
        axis.set_xticks(np.arange(-0.5, 12), labels=[])
        axis.set_yticks(np.arange(-0.5, 9), labels=[])
        axis.grid(color="white", linewidth=1)
        axis.tick_params(length=0)
        count = int((shown > 0).sum())
        share = count / shown.size
        cost = int(flops.convolution(kernel, count)) / 1e6
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(f"{count} positions ({share:.0%})\n{cost:.2f} MFLOPs")
    return figure


if __name__ == "__main__":
    main()
