"""The results of `sensitivity`: a row for each layer, as a table, a CSV file and a picture."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
from collections.abc import Sequence
from typing import Any

from keras_qat.errors import InvalidFileError
from keras_qat.mixed_precision.sensitivity_plot import plot_sensitivity

_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class LayerSensitivity:
    """The cost of one layer's quantization.

    Attributes:
        layer: Name of the layer, a key of `overrides`.
        origins: Names of all layers that are computed together with it, such as its batch
            normalization.
        alone: Signal-to-noise ratio of the outputs in dB, if only this layer is quantized.
        wider: The same in dB, if all layers but this one are quantized, which is left wider.
        alone_metric: The metric, if only this layer is quantized. None without a metric.
        wider_metric: The metric, if this layer is left wider. None without a metric.
    """

    layer: str
    origins: tuple[str, ...]
    alone: float
    wider: float
    alone_metric: float | None = None
    wider_metric: float | None = None


@dataclasses.dataclass(frozen=True)
class SensitivityReport:
    """The results of `sensitivity`.

    Attributes:
        model: Name of the model.
        scheme: Name of the scheme; `"mixed"` for a quantized model with several.
        wider: Name of the scheme of a layer that is left wider; None for float.
        rows: The layers, the most sensitive one first.
        quantized: Signal-to-noise ratio of the outputs in dB, if all layers are quantized.
        samples: Number of samples.
        metric: Name of the metric; None without one.
        float_metric: The metric of the float model.
        quantized_metric: The metric, if all layers are quantized.
    """

    model: str
    scheme: str
    wider: str | None
    rows: tuple[LayerSensitivity, ...]
    quantized: float
    samples: int
    metric: str | None = None
    float_metric: float | None = None
    quantized_metric: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, for programs."""
        return dataclasses.asdict(self)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a CSV file with one row for each layer, the most sensitive one first.

        Args:
            path: The file.

        Raises:
            InvalidFileError: If it cannot be written.
        """
        names = [field.name for field in dataclasses.fields(LayerSensitivity)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        for row in self.rows:
            origins = " ".join(row.origins)
            values = dataclasses.replace(row, origins=(origins,))
            writer.writerow([origins if n == "origins" else getattr(values, n) for n in names])
        try:
            with open(path, "w", encoding="utf-8", newline="") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise InvalidFileError(
                f"The table cannot be written: {error.strerror}.",
                path=path,
                fix="Name a file in a folder that exists.",
            ) from error

    def plot(self) -> Any:
        """Draws both signal-to-noise ratios of each layer as bars, the most sensitive one on top.

        The extra `[plots]` installs Matplotlib, which is required.

        Returns:
            A `matplotlib.figure.Figure`: `figure.savefig("sensitivity.png")` writes it.

        Raises:
            MissingPackageError: If matplotlib is not installed.
        """
        title = f"{self.model} in {self.scheme}"
        names = [row.layer for row in self.rows]
        alone, wider = [row.alone for row in self.rows], [row.wider for row in self.rows]
        return plot_sensitivity(title, names, alone, wider, self.quantized)

    def __str__(self):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(file=io.StringIO(), width=_WIDTH)
        table = Table(title=Text(f"{self.model} in {self.scheme}"))
        table.add_column("layer", overflow="fold")
        left = f"left in {self.wider or 'float'}"
        measures = ("dB",) if self.metric is None else ("dB", self.metric)
        for heading in (f"{kind}, {unit}" for kind in ("alone", left) for unit in measures):
            table.add_column(Text(heading), justify="right")
        for row in self.rows:
            both = ((row.alone, row.alone_metric), (row.wider, row.wider_metric))
            cells = (cell for db, metric in both for cell in _cells(db, metric))
            table.add_row(Text(row.layer), *cells)
        console.print(table)
        assert isinstance(console.file, io.StringIO)
        return f"{console.file.getvalue()}{self._total()}"

    def _total(self) -> str:
        """Returns the line about the whole model."""
        text = f"All layers quantized: {_decibels(self.quantized)} dB on {self.samples} samples"
        if self.metric is None:
            return f"{text}."
        return (
            f"{text}, {self.metric} {self.quantized_metric:.4f} (in float {self.float_metric:.4f})."
        )


def ranked(rows: Sequence[LayerSensitivity], *, is_larger_better: bool) -> list[LayerSensitivity]:
    """Returns the rows, the layer first that costs most when it alone is quantized.

    Args:
        rows: The rows. If they have a metric, it counts first, and the ratio second.
        is_larger_better: Whether a larger metric is better.
    """
    sign = 1 if is_larger_better else -1

    def cost(row: LayerSensitivity) -> tuple[float, float]:
        return (0.0 if row.alone_metric is None else sign * row.alone_metric, row.alone)

    return sorted(rows, key=cost)


def _cells(ratio: float, metric: float | None) -> list[str]:
    return [_decibels(ratio)] if metric is None else [_decibels(ratio), f"{metric:.4f}"]


def _decibels(ratio: float) -> str:
    return "exact" if math.isinf(ratio) and ratio > 0 else f"{ratio:.1f}"
