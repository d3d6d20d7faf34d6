"""verify: the proof that Keras and the deployed kernels compute the same integers."""

from __future__ import annotations

import dataclasses
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_qat.data import Batch, batches
from keras_qat.errors import InvalidDataError, NotQuantizedError
from keras_qat.graph import Edge, Graph, read_model
from keras_qat.graph.reading import tensors_by_edge
from keras_qat.layers import QuantizedModel, float_mode
from keras_qat.litert import Runner


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


def verify(
    model: QuantizedModel,
    filepath: str | os.PathLike,
    data: Any,
    *,
    kernels: Sequence[str] = ("reference", "default"),
    verbose: int = 1,
) -> VerificationReport:
    """Compares a quantized model with its exported file, tensor by tensor, integer by integer.

    Args:
        model: A quantized model.
        filepath: The file that `export_litert` wrote of it.
        data: Data for the model's inputs, of the kinds that `calibrate` takes.
        kernels: `"reference"` for LiteRT's reference kernels, which Keras inference equals bit
            for bit; `"default"` for XNNPACK and the optimized kernels, which round some
            operators differently.
        verbose: 1 prints the table and the verdict, 0 does not.

    Returns:
        A `VerificationReport`; its text is the table.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidDataError: If the data does not fit the model.
        LiteRTFormatError: If the file cannot be read or run, or `kernels` is unknown.

    Example:
    >>> import tempfile, keras_qat
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> x = np.eye(4, dtype="float32")
    >>> qat = keras_qat.quantize_model(model, calibration_data=x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keras_qat.export_litert(qat, f"{folder}/model.tflite")
    ...     report = verify(qat, f"{folder}/model.tflite", x, verbose=0)
    >>> report.exact
    True
    """
    if not isinstance(model, QuantizedModel):
        raise NotQuantizedError(
            "Only a quantized model can be verified.", received=f"a {type(model).__name__}"
        )
    model.check_ranges()
    kernels = (kernels,) if isinstance(kernels, str) else tuple(kernels)
    runners = {name: Runner(filepath, kernels=name, expose_all=True) for name in kernels}
    names = ()
    for runner in runners.values():
        names = _output_names(model, runner)
    report = VerificationReport({name: {} for name in runners}, names)
    report.agreement = dict.fromkeys(runners, 0)
    report.float_agreement = dict.fromkeys(runners, 0)
    for batch, ours, exact in _keras_values(model, batches(data, model)):
        report.samples += len(batch[0])
        for name, runner in runners.items():
            runner.run([to_file_input(x, t) for x, t in zip(batch, runner.inputs, strict=True)])
            _compare(report, name, runner, ours, exact)
    if verbose:
        print(report)
    return report


def _sources(graph: Graph) -> dict[str, str]:
    """Names the layer that computes each tensor that a file of the model may have."""
    layers = [node for node in graph.nodes.values() if not node.is_input]
    sources = {node.inputs[0].node: node.name for node in layers}
    sources = {name: sources[name] for name in graph.inputs}
    sources |= {node.name: node.name for node in layers}
    for name, source in list(sources.items()):
        for dtype in ("uint8", "float32"):  # an output that was converted
            sources.setdefault(f"{name}_{dtype}", source)
    return sources


def _output_names(model: QuantizedModel, runner: Runner) -> tuple[str, ...]:
    """Returns the names of a file's outputs; raises if the file is not one of the model."""
    graph = read_model(model)
    shapes = {name: graph.nodes[source].shapes[0] for name, source in _sources(graph).items()}
    inputs, outputs = (
        {details.name: details.shape for details in tensors}
        for tensors in (runner.inputs, runner.outputs)
    )
    wanted = {name: shapes[name] for name in graph.inputs}
    if inputs != wanted or any(shapes.get(name) != outputs[name] for name in outputs):
        raise InvalidDataError(
            "The file is not one of this model.",
            received=f"a file with inputs {inputs} and outputs {outputs}",
            expected=f"inputs {wanted} and the outputs of {list(map(str, graph.output_edges))}",
            fix="Export the model again with `keras_qat.export_litert`.",
        )
    return tuple(outputs)


def to_integers(values: np.ndarray, tensor: Any) -> np.ndarray:
    """Quantizes real values as LiteRT's QUANTIZE does: half away from zero, then clipped.

    Args:
        values: Real values.
        tensor: `TensorDetails` of a quantized tensor.

    Returns:
        An array of the tensor's dtype.
    """
    steps = np.asarray(values, "float32") / np.float32(tensor.scale[0])
    whole = np.trunc(steps)
    rounded = whole + np.where(np.abs(steps - whole) >= 0.5, np.sign(steps), 0)
    limits = np.iinfo(tensor.dtype)
    return np.clip(rounded + tensor.zero_point[0], limits.min, limits.max).astype(tensor.dtype)


def to_file_input(values: np.ndarray, tensor: Any) -> np.ndarray:
    """Converts real values to what an input of the file takes.

    Args:
        values: Real values.
        tensor: `TensorDetails` of the input.

    Returns:
        An array of the input's dtype.
    """
    return to_integers(values, tensor) if tensor.scale.size else values.astype(tensor.dtype)


def _keras_values(
    model: QuantizedModel, data: Iterator[Batch]
) -> Iterator[tuple[Batch, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Yields each batch with every tensor's values, quantized and in float, by name."""
    graph, tensors = read_model(model), tensors_by_edge(model)
    names = [node.name for node in graph.nodes.values() if not node.is_input]
    outputs = [tensors[Edge(name)] for name in names]
    sources = _sources(graph)
    quantized, exact = (keras.Model(model.inputs, outputs) for _ in range(2))

    def values(taps, batch):
        arrays = keras.tree.flatten(taps.predict_on_batch(list(batch)))
        by_name = dict(zip(names, arrays, strict=True))
        return {name: by_name[source] for name, source in sources.items()}

    for batch in data:
        ours = values(quantized, batch)
        with float_mode():
            yield batch, ours, values(exact, batch)


def _compare(
    report: VerificationReport,
    kernels: str,
    runner: Runner,
    ours: dict[str, np.ndarray],
    exact: dict[str, np.ndarray],
) -> None:
    rows, theirs = report.layers[kernels], runner.tensors()
    # In the model's order; the parts of a layer have no counterpart in Keras.
    for name in (name for name in ours if name in theirs):
        tensor = runner.details[name]
        # A float32 input is what it is.
        if tensor.scale.size or name in report.outputs:
            row = rows.setdefault(name, LayerComparison(name))
            row.add(ours[name], theirs[name], exact[name], tensor)
    same = {"keras": True, "float": True}
    for name in report.outputs:
        place = np.argmax(theirs[name], axis=-1)
        same["keras"] &= _equal_rows(place, np.argmax(ours[name], axis=-1))
        same["float"] &= _equal_rows(place, np.argmax(exact[name], axis=-1))
    report.agreement[kernels] += int(np.sum(same["keras"]))
    report.float_agreement[kernels] += int(np.sum(same["float"]))


def _equal_rows(a: np.ndarray, b: np.ndarray) -> Any:
    return np.all((a == b).reshape(len(a), -1), axis=1)
