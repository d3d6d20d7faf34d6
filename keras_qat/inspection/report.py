"""The report of `inspect_litert`: values, a table and a verdict."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

from keras_qat.litert import OldestRuntime

_MOST_REASONS = 10  # reasons that are printed


@dataclasses.dataclass(frozen=True)
class QuantizationReport:
    """Affine quantization of a tensor: `real = scale * (integer - zero_point)`.

    Attributes:
        scale: One number, or one for each index of the dimension `axis`.
        zero_point: One integer for each scale.
        axis: The dimension that the scales belong to. 0 if there is one scale.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int


@dataclasses.dataclass(frozen=True)
class TensorReport:
    """A tensor of the file.

    Attributes:
        subgraph: Number of its subgraph.
        index: Its number within the subgraph.
        name: Its name, which may be empty and need not be unique.
        shape: Dimensions. `None` is a dynamic dimension.
        dtype: The type, such as `"int8"`. `"unknown(99)"` is newer than the installed schema.
        quantization: Scales and zero points, or `None`.
        bytes: Size of a constant in the file, or of another tensor in memory. Dynamic dimensions
            have the size that the file states, usually 1. `None` if elements have no fixed size.
        is_constant: Whether its values are in the file.
        is_variable: Whether it keeps its values from one run to the next.
        is_sparse: Whether only its non-zero elements are stored.
    """

    subgraph: int
    index: int
    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: QuantizationReport | None
    bytes: int | None
    is_constant: bool
    is_variable: bool
    is_sparse: bool


@dataclasses.dataclass(frozen=True)
class OperatorReport:
    """An operator of the file.

    Attributes:
        subgraph: Number of its subgraph.
        index: Its number within the subgraph, in the order of execution.
        name: Name, such as `"CONV_2D"` or `"CUSTOM(name)"`. `"UNKNOWN(300)"` is newer than the
            installed schema.
        version: Version of the operator.
        inputs: Numbers of tensors of the subgraph. -1 stands for an absent optional input.
        outputs: Numbers of tensors of the subgraph.
        options: Its options by their names in the schema, enum values by name.
        macs: Multiply-accumulate operations of one run. 0 except for convolutions and matrix
            products. `None` if unknown, as for custom operators.
        weight_bytes: Bytes of the constants that it reads.
        compressed_bytes: Bytes of the same constants after gzip. Zeros and repeated values cost
            little.
        activation_bytes: Bytes of the other tensors that it reads or writes.
    """

    subgraph: int
    index: int
    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]
    macs: int | None
    weight_bytes: int
    compressed_bytes: int
    activation_bytes: int


@dataclasses.dataclass(frozen=True)
class SignatureReport:
    """A signature: names for the inputs and outputs of a subgraph.

    Attributes:
        key: Its name, such as `"serving_default"`.
        subgraph: Number of the subgraph.
        inputs: Name to number of the tensor.
        outputs: Name to number of the tensor.
    """

    key: str
    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclasses.dataclass(frozen=True)
class MetadataReport:
    """An entry of the file's metadata.

    Attributes:
        name: Its name, such as `"min_runtime_version"`.
        bytes: Size of its content.
        text: Its content, if the content is ASCII text.
    """

    name: str
    bytes: int
    text: str | None


@dataclasses.dataclass(frozen=True)
class FileReport:
    """The report of `inspect_litert`.

    Attributes:
        name: Path of the file.
        size: Its size in bytes.
        description: The description in the file, written by its maker.
        subgraphs: Names of the subgraphs; the first is the model itself.
        inputs: Inputs of the first subgraph.
        outputs: Outputs of the first subgraph.
        operators: Operators of all subgraphs.
        tensors: Tensors of all subgraphs.
        signatures: Names for the inputs and outputs.
        metadata: Metadata entries of the file.
        weight_bytes: Bytes of all constants. A constant that is used twice is counted once.
        compressed_bytes: Bytes of the whole file after gzip.
        is_fully_integer: Whether no value is read, computed or returned as a float.
        because: The reasons for `is_fully_integer`.
        oldest_runtime: The oldest runtime that loads the file, and a change that lowers it.
        remarks: Sentences about unusual properties of the file that do not stop it from running.
    """

    name: str
    size: int
    description: str
    subgraphs: tuple[str, ...]
    inputs: tuple[TensorReport, ...]
    outputs: tuple[TensorReport, ...]
    operators: tuple[OperatorReport, ...]
    tensors: tuple[TensorReport, ...]
    signatures: tuple[SignatureReport, ...]
    metadata: tuple[MetadataReport, ...]
    weight_bytes: int
    compressed_bytes: int
    is_fully_integer: bool
    because: tuple[str, ...]
    oldest_runtime: OldestRuntime
    remarks: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of all operators for which they are known."""
        return sum(operator.macs or 0 for operator in self.operators)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all inputs and computed tensors, each counted once."""
        return sum(tensor.bytes or 0 for tensor in self.tensors if not tensor.is_constant)

    @property
    def verdict(self) -> str:
        """Whether the file is fully integer, with the reasons, in one or more lines."""
        answer = "yes" if self.is_fully_integer else "no"
        if len(self.because) == 1:
            return f"Fully integer: {answer}, because {self.because[0]}."
        lines = [f"- {reason}" for reason in self.because[:_MOST_REASONS]]
        if len(self.because) > _MOST_REASONS:
            lines.append(f"- and {len(self.because) - _MOST_REASONS} more, in `because`")
        return "\n".join([f"Fully integer: {answer}, because", *lines])

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as values that JSON can represent.

        Floats that JSON cannot represent become the strings `"nan"`, `"inf"` and `"-inf"`.
        """
        totals = {"macs": self.macs, "activation_bytes": self.activation_bytes}
        return _plain({**dataclasses.asdict(self), **totals})

    def __str__(self):
        from rich.console import Console

        console = Console(file=io.StringIO(), width=120)
        console.print(self._table(), markup=False, highlight=False)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue() + "\n".join(
            [*self._facts(), *map(printable, self.remarks), printable(self.verdict)]
        )

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(printable(self.name)))
        for heading in ("#", "operator", "output", "shape", "type"):
            table.add_column(heading, overflow="fold")
        for heading in ("MACs", "weights", "gzip", "activations"):
            table.add_column(heading, justify="right")
        tensors = {(tensor.subgraph, tensor.index): tensor for tensor in self.tensors}
        for operator in self.operators:
            outputs = [tensors[operator.subgraph, index] for index in operator.outputs]
            number = f"{operator.subgraph}:" if len(self.subgraphs) > 1 else ""
            cells = (
                f"{number}{operator.index}",
                f"{operator.name} v{operator.version}",
                "\n".join(tensor.name for tensor in outputs),
                "\n".join(shape_text(tensor.shape) for tensor in outputs),
                "\n".join(tensor.dtype for tensor in outputs),
                "unknown" if operator.macs is None else f"{operator.macs:,}",
                f"{operator.weight_bytes:,}",
                f"{operator.compressed_bytes:,}",
                f"{operator.activation_bytes:,}",
            )
            table.add_row(*(Text(printable(cell)) for cell in cells))
        return table

    def _facts(self) -> list[str]:
        ends = [
            f"{end} {tensor.name!r}: {shape_text(tensor.shape)} {tensor.dtype}"
            for end, tensors in (("Input", self.inputs), ("Output", self.outputs))
            for tensor in tensors
        ]
        signatures = [
            f"Signature {signature.key!r}: "
            f"{', '.join(signature.inputs)} -> {', '.join(signature.outputs)}"
            for signature in self.signatures
        ]
        metadata = [
            f"Metadata {entry.name!r}: {entry.text or f'{entry.bytes} bytes'}"
            for entry in self.metadata
        ]
        totals = (
            f"{self.size:,} bytes, {self.weight_bytes:,} of them constants, "
            f"{self.compressed_bytes:,} bytes after gzip; {self.macs:,} MACs; "
            f"{self.activation_bytes:,} bytes of activations."
        )
        unknown = sum(operator.macs is None for operator in self.operators)
        missing = [f"The MACs of {unknown} operators are not known."] if unknown else []
        lines = [*ends, *signatures, *metadata, str(self.oldest_runtime), totals, *missing]
        return [printable(line) for line in lines]


def shape_text(shape: tuple[int | None, ...]) -> str:
    """Formats a shape for reading.

    Example:
        >>> from keras_qat.inspection.report import shape_text
        >>> shape_text((None, 8, 8))
        '? x 8 x 8'
    """
    return " x ".join("?" if size is None else str(size) for size in shape) or "scalar"


def printable(text: str) -> str:
    r"""Replaces control characters, which a terminal would execute.

    Example:
        >>> from keras_qat.inspection.report import printable
        >>> printable("name\x1b[2J") == "name\N{REPLACEMENT CHARACTER}[2J"
        True
    """
    return "".join(
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def _plain(value: Any) -> Any:
    """Returns a value that JSON can hold."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
