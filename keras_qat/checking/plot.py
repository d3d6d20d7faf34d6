"""The ranges of a report as a picture: who takes the steps of 8 bits, and what it costs whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_qat.checking.findings import Finding
from keras_qat.checking.ranges import TensorRange
from keras_qat.errors import MissingPackageError, MissingRangeError

_PLAIN, _FOUND = "#4878a8", "#d1603d"
# In inches: a row of text, what stands around the bars, the picture.
_ROW, _AROUND, _WIDTH = 0.22, 1.4, 9.0


def plot_ranges(title: str, tensors: Sequence[TensorRange], findings: Sequence[Finding]) -> Any:
    """Draws the range of each tensor as a bar, in the order of the model.

    Args:
        title: What stands above.
        tensors: Those with a minimum and a maximum are drawn, each once.
        findings: The bars of tensors that they name are drawn in another colour.

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
    try:
        from matplotlib.figure import Figure  # not pyplot: nothing is shown, no state is kept
    except ImportError as error:
        raise MissingPackageError(
            "Plots are drawn by matplotlib, which is not installed.",
            fix="pip install 'keras-qat[plots]'",
        ) from error
    named = {name for each in findings for name in (each.tensor, each.layer, *each.layers)}
    figure = Figure((_WIDTH, _AROUND + _ROW * len(known)), layout="constrained")
    _draw(figure.subplots(), title, list(known.values()), named)
    return figure


def _draw(axes: Any, title: str, ranges: Sequence[TensorRange], named: set[str | None]) -> None:
    low = [each.minimum or 0.0 for each in ranges]
    widths = [(each.maximum or 0.0) - start for each, start in zip(ranges, low, strict=True)]
    colours = [_FOUND if each.tensor in named else _PLAIN for each in ranges]
    axes.barh(range(len(ranges)), widths, left=low, color=colours)
    axes.set_yticks(range(len(ranges)), [each.tensor for each in ranges], fontsize="small")
    axes.invert_yaxis()  # the first layer on top
    axes.margins(y=0.5 / len(ranges))
    # Ranges span orders of magnitude; three of them are shown, the rest is linear.
    axes.set_xscale("symlog", linthresh=max(widths) * 1e-3 or 1.0)
    axes.axvline(0, color="black", linewidth=0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.set(title=title, xlabel="range of the values, in 8 bits 255 steps")
    if _FOUND in colours:
        axes.plot([], [], color=_FOUND, linewidth=6, label="has findings")
        axes.legend(loc="lower right", fontsize="small")
