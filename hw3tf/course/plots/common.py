"""Pictures that more than one tutorial draws, and how figures become files."""

import pathlib
import sys
from typing import TYPE_CHECKING

import numpy as np

from hw3tf.course.tutorial import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(
    rows: int, columns: int, size: tuple[float, float]
) -> "tuple[Figure, np.ndarray]":
    """Returns a figure of `size` (width, height) inches and its array of axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save_figure(figure: "Figure", path: str | pathlib.Path) -> None:
    """Writes a figure as PNG and, beside it, as SVG; in a notebook, shows it too.

    The files are written under another name and renamed when they are whole. Equal
    figures give equal files.

    Args:
        figure: A matplotlib figure.
        path: The PNG file; the SVG file has the same name but for its suffix.
    """
    import matplotlib

    path = pathlib.Path(path)
    for kind, options in (("png", {"dpi": 120}), ("svg", {"metadata": {"Date": None}})):
        with (
            whole_file(path.with_suffix(f".{kind}")) as beside,
            matplotlib.rc_context({"svg.hashsalt": "hw3tf"}),
        ):
            figure.savefig(beside, format=kind, **options)
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(filename=path))
