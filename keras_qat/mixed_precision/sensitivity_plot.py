"""Draws the sensitivities of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from keras_qat.plotting import figure_of_rows

_ALONE, _WIDER = "#d1603d", "#4878a8"


def plot_sensitivity(
    title: str,
    names: Sequence[str],
    alone: Sequence[float],
    wider: Sequence[float],
    quantized: float,
) -> Any:
    """Draws two bars for each layer. Infinite ratios have no bar.

    Args:
        title: The title.
        names: Names of the layers, from top to bottom.
        alone: Ratio in dB if only the layer is quantized.
        wider: Ratio in dB if only the layer is left wider.
        quantized: Ratio in dB of the whole quantized model, a line in the right half.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingPackageError: If matplotlib is not installed.
    """
    figure = figure_of_rows(len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    figure.suptitle(title)
    for axes, ratios, colour, heading in (
        (left, alone, _ALONE, "only this layer quantized"),
        (right, wider, _WIDER, "only this layer left wider"),
    ):
        axes.barh(range(len(names)), [_finite(each) for each in ratios], color=colour)
        axes.set(title=heading, xlabel="signal to noise of the outputs, dB")
        axes.grid(axis="x", alpha=0.3)
    left.set_yticks(range(len(names)), names, fontsize="small")
    left.invert_yaxis()  # the first layer is at the top; both halves share the axis
    left.margins(y=0.5 / max(len(names), 1))
    if math.isfinite(quantized):
        right.axvline(quantized, color="black", linewidth=0.8, label="all quantized")
        right.legend(loc="lower right", fontsize="small")
    return figure


def _finite(ratio: float) -> float:
    return ratio if math.isfinite(ratio) else 0.0
