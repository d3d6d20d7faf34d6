"""Draws the ranges of a report, to show which tensors and values use the steps of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_qat.checking.findings import Finding
from keras_qat.checking.ranges import TensorRange
from keras_qat.errors import MissingRangeError
from keras_qat.plotting import figure_of_rows

_PLAIN, _FOUND = "#4878a8", "#d1603d"


def plot_ranges(title: str, tensors: Sequence[TensorRange], findings: Sequence[Finding]) -> Any:
    """Draws the range of each tensor as a bar, in the order of the model.

    Args:
        title: The title.
        tensors: The tensors. Those with a minimum and a maximum are drawn, each once.
        findings: The bars of tensors that a finding names have another colour.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingPackageError: If matplotlib is not installed.
        MissingRangeError: If no tensor has a range.
    """
    known = {each.tensor: each for each in tensors if each.minimum is not None}
    if not known:
        raise MissingRangeError(
            "There are no ranges to draw.",
            fix="Give `check` the argument `calibration_data`, or check a calibrated model.",
        )
    named = {name for each in findings for name in (each.tensor, each.layer, *each.layers)}
    figure = figure_of_rows(len(known))
    _draw(figure.subplots(), title, list(known.values()), named)
    return figure


def _draw(axes: Any, title: str, ranges: Sequence[TensorRange], named: set[str | None]) -> None:
    low = [each.minimum or 0.0 for each in ranges]
    widths = [(each.maximum or 0.0) - start for each, start in zip(ranges, low, strict=True)]
    colours = [_FOUND if each.tensor in named else _PLAIN for each in ranges]
    axes.barh(range(len(ranges)), widths, left=low, color=colours)
    axes.set_yticks(range(len(ranges)), [each.tensor for each in ranges], fontsize="small")
    axes.invert_yaxis()  # the first layer is at the top
    axes.margins(y=0.5 / len(ranges))
    # Ranges span orders of magnitude. Three of them are shown, smaller values are linear.
    axes.set_xscale("symlog", linthresh=max(widths) * 1e-3 or 1.0)
    axes.axvline(0, color="black", linewidth=0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.set(title=title, xlabel="range of the values, in 8 bits 255 steps")
    if _FOUND in colours:
        axes.plot([], [], color=_FOUND, linewidth=6, label="has findings")
        axes.legend(loc="lower right", fontsize="small")
