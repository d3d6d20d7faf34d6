"""The results of `verify`, as numbers, as a table and as a verdict."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import numpy as np

from keras_qat.errors import InvalidDataError, MissingPackageError
from keras_qat.verification.conversion import to_integers

# Largest difference of a float tensor from LiteRT's, as a fraction of its largest value.
FLOAT_TOLERANCE = 1e-5
KINDS = ("integer", "float", "after float")


@dataclasses.dataclass
class LayerComparison:
    """The comparison of one tensor of the model.

    Attributes:
        name: Name of the tensor in the file: the name of the output, the input, or the Keras layer.
        kind: `"integer"`; `"float"` for the output of a layer that stays in float; `"after float"`
            for integers after such a layer. The last two kinds are computed by Keras from LiteRT's
            own tensors before them.
        elements: Number of elements that were compared.
        mismatches: Number of integers that differ between Keras and LiteRT. For a float tensor, the
            number of values that differ by more than `FLOAT_TOLERANCE` of the largest value.
        largest_difference: The largest difference between Keras and LiteRT, in steps; in real units
            for a float tensor.
        is_inner: Whether the tensor is between the operators of a layer. Such a tensor is compared
            with the output of its operator for LiteRT's own tensors, and has no value in the float
            model.
        signal: Sum of squares of the float model's values.
        noise: Sum of squares of the difference between LiteRT's values and the float model's
            values.
    """

    name: str
    kind: str = "integer"
    elements: int = 0
    mismatches: int = 0
    largest_difference: float = 0.0
    is_inner: bool = False
    signal: float = 0.0
    noise: float = 0.0

    @property
    def sqnr(self) -> float:
        """Signal-to-quantization-noise ratio against the float model, in dB; NaN if `is_inner`."""
        if self.is_inner:
            return math.nan
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    def add(self, ours: np.ndarray, theirs: np.ndarray, exact: np.ndarray, tensor: Any) -> None:
        """Counts one batch.

        Args:
            ours: Real values of the quantized Keras model.
            theirs: Output of LiteRT, integers or real values.
            exact: Real values of the float model.
            tensor: `TensorDetails` of the tensor in the file.
        """
        if tensor.scale.size:
            ours = to_integers(ours, tensor)
            real = (theirs.astype("float64") - tensor.zero_point[0]) * float(tensor.scale[0])
        else:
            real = theirs.astype("float64")
        self.count(ours, theirs, is_float=self.kind == "float" and not tensor.scale.size)
        self.signal += float(np.sum(np.square(exact, dtype="float64")))
        self.noise += float(np.sum(np.square(exact - real)))

    def count(self, ours: np.ndarray, theirs: np.ndarray, *, is_float: bool) -> None:
        """Counts the elements that differ.

        Args:
            ours: Output of Keras, in the type of the tensor.
            theirs: Output of LiteRT.
            is_float: Whether the values may differ by `FLOAT_TOLERANCE`.
        """
        difference = np.abs(ours.astype("float64") - theirs)
        self.elements += difference.size
        allowed = FLOAT_TOLERANCE * np.abs(ours).max(initial=0) if is_float else 0
        self.mismatches += int(np.count_nonzero(difference > allowed))
        self.largest_difference = max(self.largest_difference, float(difference.max(initial=0)))


@dataclasses.dataclass
class VerificationReport:
    """The results of `verify`.

    Attributes:
        layers: For each set of kernels, the comparison of each tensor.
        outputs: Names of the tensors in `layers` that are outputs of the file.
        kernels: The kernels of the model's target, which Keras inference equals.
        samples: Number of samples that were compared.
        agreement: For each set of kernels, the number of samples for which all outputs have their
            largest value at the same position as in Keras (top-1 agreement).
        float_agreement: The same number, against the float model.
        not_compared: Names of the computed tensors that no comparison covers, because a layer of
            the user's own has an operator that `verify` does not know.
        default_ranges: The ranges (min, max) of the tensors that have a default range because they
            lack min/max data, by name. The rows' `sqnr` and `float_agreement` show their cost.
        missing: The reason and the remedy if the kernels of the target are not installed.
        not_run: Names of the operators after the model's outputs, which compute in float and are
            not compared: the post-processing of a detector.
    """

    layers: dict[str, dict[str, LayerComparison]]
    outputs: tuple[str, ...]
    kernels: str = "reference"
    samples: int = 0
    not_compared: tuple[str, ...] = ()
    agreement: dict[str, int] = dataclasses.field(default_factory=dict)
    float_agreement: dict[str, int] = dataclasses.field(default_factory=dict)
    default_ranges: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    missing: str = ""
    not_run: tuple[str, ...] = ()

    def mismatches(self, kernels: str | None = None) -> int:
        """Returns the number of mismatches over all tensors; of floats, beyond the tolerance.

        Args:
            kernels: Name of the kernels; None for those of the model's target.

        Raises:
            MissingPackageError: The kernels of the target are not installed.
            InvalidDataError: The file was not run with these kernels.
        """
        kernels = kernels or self.kernels
        if kernels == self.kernels and self.missing:
            raise MissingPackageError(self.missing)
        if kernels not in self.layers:
            raise InvalidDataError(
                "The file was not run with these kernels, so there is nothing to count.",
                received=repr(kernels),
                expected=f"one of {', '.join(map(repr, self.layers))}",
                fix=f'Call `verify(..., kernels=("{kernels}",))`.',
            )
        return sum(row.mismatches for row in self.layers[kernels].values())

    @property
    def exact(self) -> bool:
        """Whether no element of any tensor differs from the kernels of the model's target."""
        return self.kernels in self.layers and self.mismatches() == 0

    @property
    def fully_integer(self) -> bool:
        """Whether all layers are integer layers."""
        return all(row.kind == "integer" for rows in self.layers.values() for row in rows.values())

    @property
    def verdict(self) -> str:
        """One line for each set of kernels, and the tensors that have a default range."""
        lines = []
        for kernels, rows in self.layers.items():
            lines.append(
                f"{kernels} kernels: {_difference(rows)}; "
                f"top-1 equal to Keras on {self.agreement[kernels]} of {self.samples}, "
                f"to the float model on {self.float_agreement[kernels]}"
            )
        if self.kernels not in self.layers:
            reason = self.missing or f"The {self.kernels} kernels were not run."
            proven = f"NOT PROVEN ({reason})"
        else:
            proven = "EXACT" if self.exact else "NOT EXACT"
        if self.not_run:
            names = " and ".join(self.not_run)
            proven += f" UP TO {names}"
            lines.append(f"{names} computes in float from the last tensors, and was not compared")
        if not self.fully_integer:
            proven += ", NOT FULLY INTEGER"
        if self.not_compared:
            names = ", ".join(map(repr, self.not_compared))
            lines.append(f"{len(self.not_compared)} tensor(s) were not compared: {names}")
        if self.default_ranges:
            ranges = ", ".join(
                f"'{name}' {low:g} to {high:g}" for name, (low, high) in self.default_ranges.items()
            )
            lines.append(f"{len(self.default_ranges)} tensor(s) have a default range: {ranges}")
        return f"{proven}: " + ". ".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns all results as plain Python values, for programs."""
        layers = {
            kernels: [
                # JSON has no infinity.
                {**dataclasses.asdict(row), "sqnr": row.sqnr if math.isfinite(row.sqnr) else None}
                for row in rows.values()
            ]
            for kernels, rows in self.layers.items()
        }
        verdicts = {"exact": self.exact, "fully_integer": self.fully_integer}
        return {**dataclasses.asdict(self), "layers": layers, **verdicts}

    def __str__(self):
        from rich.console import Console
        from rich.table import Table

        console = Console(file=io.StringIO(), width=110)
        for kernels, rows in self.layers.items():
            table = Table(title=f"Keras against the {kernels} kernels")
            for heading in ("tensor", "kind", "elements", "mismatches", "largest", "SQNR dB"):
                is_text = heading in ("tensor", "kind")
                table.add_column(heading, justify="left" if is_text else "right")
            for row in rows.values():
                table.add_row(
                    row.name,
                    row.kind,
                    str(row.elements),
                    str(row.mismatches),
                    f"{row.largest_difference:g}",
                    "-" if row.is_inner else f"{row.sqnr:.1f}",
                )
            console.print(table)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue() + self.verdict


def _difference(rows: dict[str, LayerComparison]) -> str:
    """Returns the number of elements that differ, and the meaning for tensors in float."""
    wrong, total = (
        {
            kind: sum(getattr(row, name) for row in rows.values() if row.kind == kind)
            for kind in KINDS
        }
        for name in ("mismatches", "elements")
    )
    counts = {kind: sum(row.kind == kind for row in rows.values()) for kind in KINDS}
    integers = [kind for kind in KINDS if kind != "float"]
    text = (
        f"{sum(wrong[kind] for kind in integers)} of {sum(total[kind] for kind in integers)} "
        f"elements differ in {sum(counts[kind] for kind in integers)} tensors"
    )
    if counts["float"]:
        text += (
            f"; {wrong['float']} of {total['float']} elements differ by more "
            f"than {FLOAT_TOLERANCE:g} of the largest in {counts['float']} float tensors"
        )
    if counts["after float"]:
        text += f"; {counts['after float']} integer tensors after these, given LiteRT's inputs"
    return text
