"""The tables that `LiteRTModel.summary` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from keras_qat.inspection import FileReport
from keras_qat.inspection.report import printable, shape_text
from keras_qat.litert import TensorDetails


def print_summary(
    report: FileReport,
    ends: Iterable[tuple[str, Sequence[str], Sequence[TensorDetails]]],
    operators: Mapping[str, int],
) -> None:
    """Prints the inputs and outputs of the file, and counts its operators.

    Args:
        report: The report on the file.
        ends: `"input"` or `"output"`, the name and the tensor of each input and output.
        operators: The count of each operator, by name.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(report.name)))
    for heading in ("", "name", "shape", "type", "scale", "zero point"):
        table.add_column(heading, overflow="fold")
    for end, names, tensors in ends:
        for name, tensor in zip(names, tensors, strict=True):
            quantized = bool(tensor.scale.size)
            cells = (
                end,
                name,
                shape_text(tensor.shape),
                str(tensor.dtype),
                f"{tensor.scale[0]:.6g}" if quantized else "",
                str(tensor.zero_point[0]) if quantized else "",
            )
            table.add_row(*(Text(printable(cell)) for cell in cells))
    console = Console(width=100)
    console.print(table)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(operators.items()))
    lines = (
        f"{len(report.operators)} operators: {counts or 'none'}",
        f"{report.size:,} bytes, {report.weight_bytes:,} of them constants; {report.macs:,} MACs",
        report.verdict,
    )
    for line in lines:
        console.print(Text(printable(line)))
