"""Draws the choices of schemes at different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_qat.plotting import figure_of_rows

_OTHERS, _CHOSEN = "#4878a8", "#d1603d"
_ROWS = 16  # of text, the height of the picture


def plot_alternatives(
    title: str,
    kind: str,
    sizes: Sequence[float],
    ratios: Sequence[float],
    are_chosen: Sequence[bool],
    limit: float,
) -> Any:
    """Draws each choice as a point, and the limit as a line.

    Args:
        title: The title.
        kind: The meaning of the sizes, the label of their axis.
        sizes: The size of each choice, ascending.
        ratios: Its signal-to-noise ratio in dB.
        are_chosen: Whether the model has it.
        limit: The budget.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingPackageError: If matplotlib is not installed.
    """
    figure = figure_of_rows(_ROWS)
    axes = figure.subplots()
    axes.plot(sizes, ratios, color=_OTHERS, linewidth=0.8, drawstyle="steps-post")
    for is_chosen, colour, label in ((False, _OTHERS, "alternatives"), (True, _CHOSEN, "chosen")):
        points = [
            (size, ratio)
            for size, ratio, own in zip(sizes, ratios, are_chosen, strict=True)
            if own is is_chosen
        ]
        axes.scatter(*zip(*points, strict=True) if points else ((), ()), color=colour, label=label)
    axes.axvline(limit, color="black", linewidth=0.8, label="budget")
    axes.set(title=title, xlabel=kind, ylabel="expected signal to noise of the outputs, dB")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    return figure
