"""Figures without a window system, and what all pictures have in common."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

COLOURS = "viridis"
#: How much of a map's colours is over an image. The image is grey then: all colour is
#: the map's.
OPACITY = 0.65


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches."""
    # Not pyplot: no global state, no window system, nothing to close.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(h_pad=0.1)  # Inches, so that titles are not cut.
    return figure


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


def displayable(image: np.ndarray) -> np.ndarray:
    """An image of any range, brought to [0, 1]; [-1, 1] at least is all of that."""
    image = np.asarray(image, np.float32)
    low, high = min(image.min(), -1.0), max(image.max(), 1.0)
    return (image - low) / (high - low)


def scale_of(low: float, high: float) -> Normalize:
    """A scale of colours; of one value, too."""
    return Normalize(low, high if high > low else low + 1.0)


def show_image(axis: Axes, image: np.ndarray) -> None:
    """An image without axes.

    Args:
      axis: where.
      image: float [H, W, 3], of any range.
    """
    axis.imshow(displayable(image))
    axis.set(xticks=[], yticks=[])


def show_map(
    axis: Axes,
    values: np.ndarray,
    scale: Normalize,
    size: tuple[int, int],
    image: np.ndarray | None = None,
) -> AxesImage:
    """A map at the size of its image, over it if it is given.

    Args:
      axis: where.
      values: [h, w].
      scale: of the colours.
      size: height and width of the image.
      image: float [H, W, 3], of any range.

    Returns:
      What a legend can be made of; see `opaque`.
    """
    extent = (0, size[1], size[0], 0)
    if image is not None:
        grey = displayable(image) @ np.float32([0.299, 0.587, 0.114])
        axis.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=extent)
    shown = axis.imshow(
        values,
        cmap=COLOURS,
        norm=scale,
        extent=extent,
        interpolation="nearest",
        alpha=None if image is None else OPACITY,
    )
    axis.set(xticks=[], yticks=[], xlim=(0, size[1]), ylim=(size[0], 0))
    return shown


def opaque(bar: Colorbar) -> None:
    """Makes a legend of what is over an image show the colours as they are meant."""
    bar.solids.set_alpha(1.0)
