"""Saliency: where people look beside where computation goes."""

import numpy as np
from matplotlib.figure import Figure

from sact_tf.visualization.figures import COLOURS, displayable, new_figure


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
            axis.imshow(values, cmap=COLOURS, extent=extent)
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
    shown = axes.imshow(100 * surface, cmap=COLOURS, aspect="auto")
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
