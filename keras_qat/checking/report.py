"""The report of `check`, with its table, its values and its verdict."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import Any

from keras_qat.checking.findings import ERROR, WARNING, Finding
from keras_qat.checking.plot import plot_ranges
from keras_qat.checking.ranges import TensorRange
from keras_qat.litert import OldestRuntime
from keras_qat.passes import Rewrite

# Width of the table in characters.
_WIDTH = 150


@dataclasses.dataclass(frozen=True)
class MadeLayer:
    """A layer of the quantized model.

    Attributes:
        name: Name of the layer.
        kind: Name of the layer's class.
        operators: The LiteRT operators that the layer becomes, or some of them, depending on its
            arguments.
    """

    name: str
    kind: str
    operators: tuple[str, ...]

    def __str__(self):
        return f"{self.name} ({self.kind})"


@dataclasses.dataclass(frozen=True)
class CheckedLayer:
    """One row of the report: a layer of the model and the layers that it becomes.

    Attributes:
        name: Name of the layer.
        kind: Name of its class, or of the `keras.ops` function.
        becomes: The layers that the layer becomes, or is fused into. Empty if it is left out or has
            no integer form.
        rewrites: Names of the passes that rewrote the layer.
        refused: Whether the layer has no integer form. A finding has the reason.
        tensors: The tensors that these layers make, and the origins of their ranges.
    """

    name: str
    kind: str
    becomes: tuple[MadeLayer, ...]
    rewrites: tuple[str, ...]
    refused: bool
    tensors: tuple[TensorRange, ...] = ()


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """The results of `check`.

    Attributes:
        model: Name of the model.
        scheme: Name of the scheme.
        layers: A row for each layer and operation of the model, nested models included.
        findings: The problems: first the errors, then losses of speed or accuracy.
        rewrites: The rewrites of the passes, as in the `rewrite_log` of a quantized model.
        is_complete: Whether all stages ran, so that all errors are listed. If not, more errors may
            appear after these are fixed, and `becomes` of the layers is not known.
        oldest_runtime: The oldest runtime that loads the file of the model, and a change that
            lowers it. None if errors prevent the file.
    """

    model: str
    scheme: str
    layers: tuple[CheckedLayer, ...]
    findings: tuple[Finding, ...]
    rewrites: tuple[Rewrite, ...]
    is_complete: bool = True
    oldest_runtime: OldestRuntime | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that prevent the quantization of the model."""
        return tuple(finding for finding in self.findings if finding.level == ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that cost speed or accuracy."""
        return tuple(finding for finding in self.findings if finding.level == WARNING)

    @property
    def ok(self) -> bool:
        """Whether the model can be quantized."""
        return not self.errors

    @property
    def verdict(self) -> str:
        """Whether the model can be quantized, with counts, in one line."""
        made = {layer.name for row in self.layers for layer in row.becomes}
        counts = [
            _counted(len(found), level)
            for found, level in ((self.errors, ERROR), (self.warnings, WARNING))
            if found
        ]
        found = f" {' and '.join(counts)}, see above." if counts else ""
        if self.ok:
            return f"OK: {len(self.layers)} layers become {len(made)} in {self.scheme}.{found}"
        more = "" if self.is_complete else " More may appear once these are fixed: check again."
        return f"NOT OK:{found}{more}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, for programs."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    def plot(self) -> Any:
        """Draws each known range of a tensor as a bar, in the order of the model.

        The scale is logarithmic on both sides of zero. Tensors that a finding names are red.
        The extra `[plots]` installs Matplotlib, which is required.

        Returns:
            A `matplotlib.figure.Figure`: `figure.savefig("ranges.png")` writes it.

        Raises:
            MissingPackageError: If matplotlib is not installed.
            MissingRangeError: If no range is known: `check` got no `calibration_data`, and the
                model is not calibrated.

        Example:
        >>> import keras, keras_qat
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
        >>> report = keras_qat.check(model, calibration_data=np.eye(4, dtype="float32"))
        >>> [axes] = report.plot().axes
        >>> len(axes.patches)  # the range of the input, and that of the output
        2
        """
        tensors = [each for row in self.layers for each in row.tensors]
        return plot_ranges(f"{self.model} in {self.scheme}", tensors, self.findings)

    def __str__(self):
        from rich.console import Console
        from rich.table import Table

        console = Console(file=io.StringIO(), width=_WIDTH)
        table = Table(title=f"{self.model} in {self.scheme}")
        for heading in ("layer", "class", "becomes", "LiteRT operators", "rewritten by", "ranges"):
            table.add_column(heading, overflow="fold")
        for row in self.layers:
            table.add_row(*_cells(row, "nothing" if self.is_complete else "not known"))
        console.print(table, markup=False)
        for heading, found in (("Errors", self.errors), ("Warnings", self.warnings)):
            for line in _listed(heading, found):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        assert isinstance(console.file, io.StringIO)
        runtime = "" if self.oldest_runtime is None else f"{self.oldest_runtime}\n"
        return console.file.getvalue() + runtime + self.verdict


def _listed(heading: str, findings: Sequence[Finding]) -> Iterator[str]:
    """Yields a heading and one or two lines for each finding."""
    if findings:
        yield heading
    for finding in findings:
        yield f"- {finding.code}{finding.place}: {finding.message}"
        if finding.fix:
            yield f"  To fix it: {finding.fix}"


def _cells(row: CheckedLayer, without: str) -> tuple[str, ...]:
    """Returns the cells of a row. `without` is the text for a layer that becomes no layer."""
    operators = dict.fromkeys(name for made in row.becomes for name in made.operators)
    nothing = "no integer form" if row.refused else without
    becomes = ", ".join(map(str, row.becomes)) or nothing
    is_one = len(row.tensors) == 1
    ranges = [str(each) if is_one else f"{each.tensor}: {each}" for each in row.tensors]
    return (
        row.name,
        row.kind,
        becomes,
        ", ".join(operators),
        ", ".join(row.rewrites),
        "; ".join(ranges),
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
