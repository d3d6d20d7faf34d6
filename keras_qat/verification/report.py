"""What `verify` finds, as numbers, as a table and as a verdict."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import numpy as np

from keras_qat.verification.conversion import to_integers


@dataclasses.dataclass
class LayerComparison:
    """How one tensor of the model compares.

    Attributes:
        name: Name of the tensor, that of the Keras layer.
        elements: How many elements were compared.
        mismatches: How many integers differ between Keras and LiteRT.
        largest_difference: The largest difference between them, in steps; in real units for a
            float32 output.
        signal: Sum of squares of the float model's values.
        noise: Sum of squares of the difference between LiteRT's values and those.
    """

    name: str
    elements: int = 0
    mismatches: int = 0
    largest_difference: float = 0.0
    signal: float = 0.0
    noise: float = 0.0

    @property
    def sqnr(self) -> float:
        """Signal-to-quantization-noise ratio against the float model, in dB."""
        if self.noise == 0.0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    def add(self, ours: np.ndarray, theirs: np.ndarray, exact: np.ndarray, tensor: Any) -> None:
        """Counts one batch.

        Args:
            ours: Real values of the quantized Keras model.
            theirs: What LiteRT computed, integers or real values.
            exact: Real values of the float model.
            tensor: `TensorDetails` of the tensor in the file.
        """
        if tensor.scale.size:
            ours = to_integers(ours, tensor)
            real = (theirs.astype("float64") - tensor.zero_point[0]) * float(tensor.scale[0])
        else:
            real = theirs.astype("float64")
        difference = np.abs(ours.astype("float64") - theirs)
        self.elements += difference.size
        self.mismatches += int(np.count_nonzero(difference))
        self.largest_difference = max(self.largest_difference, float(difference.max(initial=0)))
        self.signal += float(np.sum(np.square(exact, dtype="float64")))
        self.noise += float(np.sum(np.square(exact - real)))


@dataclasses.dataclass
class VerificationReport:
    """What `verify` found.

    Attributes:
        layers: For each set of kernels, the comparison of each tensor.
        outputs: Names of the tensors in `layers` that are outputs of the file.
        samples: How many samples were compared.
        agreement: For each set of kernels, on how many samples all outputs have their largest
            value at the same place as in Keras (top-1 agreement).
        float_agreement: Likewise, against the float model.
    """

    layers: dict[str, dict[str, LayerComparison]]
    outputs: tuple[str, ...]
    samples: int = 0
    agreement: dict[str, int] = dataclasses.field(default_factory=dict)
    float_agreement: dict[str, int] = dataclasses.field(default_factory=dict)

    def mismatches(self, kernels: str = "reference") -> int:
        """Returns how many elements differ over all tensors."""
        return sum(row.mismatches for row in self.layers[kernels].values())

    @property
    def exact(self) -> bool:
        """Whether no element of any tensor differs from the reference kernels'."""
        return "reference" in self.layers and self.mismatches() == 0

    @property
    def verdict(self) -> str:
        """One line for each set of kernels."""
        lines = []
        for kernels, rows in self.layers.items():
            wrong, total = self.mismatches(kernels), sum(row.elements for row in rows.values())
            lines.append(
                f"{kernels} kernels: {wrong} of {total} elements differ in {len(rows)} tensors; "
                f"top-1 equal to Keras on {self.agreement[kernels]} of {self.samples}, "
                f"to the float model on {self.float_agreement[kernels]}"
            )
        if "reference" not in self.layers:
            proven = "NOT PROVEN (the reference kernels were not run)"
        else:
            proven = "EXACT" if self.exact else "NOT EXACT"
        return f"{proven}: " + ". ".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain Python values, for programs."""
        layers = {
            kernels: [
                # JSON has no infinity.
                {**dataclasses.asdict(row), "sqnr": row.sqnr if math.isfinite(row.sqnr) else None}
                for row in rows.values()
            ]
            for kernels, rows in self.layers.items()
        }
        return {**dataclasses.asdict(self), "layers": layers, "exact": self.exact}

    def __str__(self):
        from rich.console import Console
        from rich.table import Table

        console = Console(file=io.StringIO(), width=110)
        for kernels, rows in self.layers.items():
            table = Table(title=f"Keras against LiteRT's {kernels} kernels")
            for heading in ("tensor", "elements", "mismatches", "largest", "SQNR dB"):
                table.add_column(heading, justify="left" if heading == "tensor" else "right")
            for row in rows.values():
                table.add_row(
                    row.name,
                    str(row.elements),
                    str(row.mismatches),
                    f"{row.largest_difference:g}",
                    f"{row.sqnr:.1f}",
                )
            console.print(table)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue() + self.verdict
