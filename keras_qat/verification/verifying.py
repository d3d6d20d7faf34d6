"""verify: Keras against LiteRT's interpreter, tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_qat.data import Batch, counted_batches
from keras_qat.errors import InvalidDataError, KernelLimitError
from keras_qat.graph import Edge, Graph, read_model
from keras_qat.graph.reading import tensors_by_edge
from keras_qat.layers import (
    ObserveRange,
    QSoftmax,
    QuantizedModel,
    QuantizeInput,
    float_mode,
)
from keras_qat.layers.finiteness import check_finite
from keras_qat.layers.wrapped import quantized_model_in
from keras_qat.litert import Runner
from keras_qat.lowering import INFERENCE_TYPES
from keras_qat.verification.conversion import to_file_input
from keras_qat.verification.inner import InnerTensors
from keras_qat.verification.locality import behind_float, local_values, real_values
from keras_qat.verification.report import LayerComparison, VerificationReport

# The limit is 512; ours leaves room for the kernel's rounding.
_SOFTMAX_LIMIT = 511.0


def verify(
    model: QuantizedModel,
    filepath: str | os.PathLike,
    data: Any,
    *,
    kernels: Sequence[str] = ("reference", "default"),
    verbose: int = 1,
) -> VerificationReport:
    """Compares a quantized model with its exported file, tensor by tensor, integer by integer.

    A tensor inside a layer that is written as several operators is compared with what its operator
    makes of the tensors that LiteRT computed before it. So a row is about one operator alone, and
    together the rows are about every tensor that is computed.

    Tensors of layers that stay in float are compared within `FLOAT_TOLERANCE`. These layers, and
    the integer ones behind them, are given the inputs that they have in the file: so integers are
    exact there too, though float kernels are not, and each row is about one layer alone.

    Args:
        model: A quantized model.
        filepath: The file that `export_litert` wrote of it.
        data: Data for the model's inputs, of the kinds that `calibrate` takes.
        kernels: `"reference"` for LiteRT's reference kernels, which Keras inference equals bit
            for bit; `"default"` for XNNPACK and the optimized kernels, which phones and PCs
            run and which round some operators differently.
        verbose: 1 prints the table and the verdict, 0 does not.

    Returns:
        A `VerificationReport`; its text is the table.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidModelError: If a weight or a range is not finite, naming the layer and the variable.
        InvalidDataError: If the data does not fit the model.
        LiteRTFormatError: If the file cannot be read or run, or `kernels` is unknown.
        KernelLimitError: If a reference kernel would abort the process on these values.

    Example:
    >>> import tempfile, keras_qat
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> x = np.eye(4, dtype="float32")
    >>> qat = keras_qat.quantize_model(model)
    >>> keras_qat.calibrate(qat, x, verbose=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keras_qat.export_litert(qat, f"{folder}/model.tflite")
    ...     report = verify(qat, f"{folder}/model.tflite", x, verbose=0)
    >>> report.exact
    True
    """
    model = quantized_model_in(model, "verified")
    check_finite(model)
    model.check_ranges()
    kernels = (kernels,) if isinstance(kernels, str) else tuple(kernels)
    runners = {name: Runner(filepath, kernels=name, expose_all=True) for name in kernels}
    names = ()
    for runner in runners.values():
        names = _output_names(model, runner)
    report = VerificationReport({name: {} for name in runners}, names)
    report.default_ranges = model.default_ranges
    report.agreement = dict.fromkeys(runners, 0)
    report.float_agreement = dict.fromkeys(runners, 0)
    graph = read_model(model)
    inner = InnerTensors(model, filepath)
    for batch, ours, exact in _keras_values(model, counted_batches(data, model)):
        report.samples += len(batch[0])
        if "reference" in runners:
            check_kernel_limits(model, ours)
        for name, runner in runners.items():
            runner.run([to_file_input(x, t) for x, t in zip(batch, runner.inputs, strict=True)])
            _compare(report, name, runner, graph, ours, exact)
            inner.compare(report, name, runner)
    if verbose:
        print(report)
    return report


def _sources(graph: Graph) -> dict[str, str]:
    """Names the layer that computes each tensor that a file of the model may have."""
    layers = [node for node in graph.nodes.values() if not node.is_input]
    # Ids have no such layer: nothing happens to them.
    kinds = QuantizeInput, ObserveRange
    quantizers = [
        node
        for node in layers
        if isinstance(node.head, kinds) and graph.nodes[node.inputs[0].node].is_input
    ]
    sources = {node.inputs[0].node: node.name for node in quantizers}
    sources |= {node.name: node.name for node in layers}
    for name, source in list(sources.items()):
        for dtype in INFERENCE_TYPES:  # an output that was converted
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
    wanted = {name: graph.nodes[name].shapes[0] for name in graph.inputs}
    missing = [
        node.name
        for node in graph.nodes.values()
        if not node.is_input and node.head.makes_operator and node.name not in runner.details
    ]
    fits = inputs.keys() == wanted.keys() and all(
        _fits(shape, kept) for shape, kept in _paired(inputs, wanted) + _paired(outputs, shapes)
    )
    if missing or not fits:
        raise InvalidDataError(
            "The file is not one of this model.",
            received=f"a file with inputs {inputs} and outputs {outputs}, without {missing}",
            expected=f"inputs {wanted} and the outputs of {list(map(str, graph.output_edges))}",
            fix="Export the model again with `keras_qat.export_litert`.",
        )
    return tuple(outputs)


def _paired(those: dict[str, Any], known: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(shape, known.get(name)) for name, shape in those.items()]


def _fits(shape: tuple[int | None, ...], of_model: tuple[int | None, ...] | None) -> bool:
    """Whether a file's tensor has the shape of the model's, in which the batch may be unknown."""
    if of_model is None or len(shape) != len(of_model):
        return False
    return all(want in (None, have) for have, want in zip(shape, of_model, strict=True))


def check_kernel_limits(model: QuantizedModel, values: dict[str, np.ndarray]) -> None:
    """Raises where a reference kernel would abort the process instead of computing.

    LiteRT's reference SOFTMAX shifts by more bits than an int32 has where the exponentials sum
    to 512 times the largest or more: nearly equal logits of more than 512 classes.

    Args:
        model: The model.
        values: Real values of each tensor, by name.

    Raises:
        KernelLimitError: If the values reach the limit.
    """
    for node in read_model(model).nodes.values():
        if not isinstance(node.head, QSoftmax) or node.head.scheme is None:
            continue
        logits = values[node.inputs[0].node].astype("float64")
        sums = np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)
        if sums.max() >= _SOFTMAX_LIMIT:
            raise KernelLimitError(
                "LiteRT's reference SOFTMAX aborts on logits that are nearly equal over so many "
                "classes.",
                layer=node.name,
                received=f"exponentials that sum to {sums.max():.0f} times the largest",
                expected="less than 512 times",
                fix='Train the model, or verify with kernels=("default",).',
            )


def _keras_values(
    model: QuantizedModel, data: Iterator[tuple[Batch, int]]
) -> Iterator[tuple[Batch, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Yields each batch with every tensor's values, quantized and in float, by name."""
    graph, tensors = read_model(model), tensors_by_edge(model)
    names = [node.name for node in graph.nodes.values() if not node.is_input]
    outputs = [tensors[Edge(name)] for name in names]
    sources = _sources(graph)
    quantized, exact = (keras.Model(model.inputs, outputs) for _ in range(2))

    def values(taps, batch, count):
        arrays = keras.tree.flatten(taps.predict_on_batch(list(batch)))
        arrays = [_first(array, count, len(batch[0])) for array in arrays]
        by_name = dict(zip(names, arrays, strict=True))
        return {name: by_name[source] for name, source in sources.items()}

    for batch, count in data:
        ours = values(quantized, batch, count)
        with float_mode():
            real = values(exact, batch, count)
        yield tuple(array[:count] for array in batch), ours, real


def _first(values: np.ndarray, count: int, size: int) -> np.ndarray:
    """What a tensor has of the first samples of a batch, which others fill up to its size."""
    return values[: len(values) * count // size] if len(values) % size == 0 else values


def _compare(
    report: VerificationReport,
    kernels: str,
    runner: Runner,
    graph: Graph,
    ours: dict[str, np.ndarray],
    exact: dict[str, np.ndarray],
) -> None:
    rows, theirs = report.layers[kernels], runner.tensors()
    kinds, sources = behind_float(graph), _sources(graph)
    local = local_values(graph, kinds, theirs, runner.details)
    # In the model's order; `InnerTensors` compares the parts of layers.
    for name in (name for name in ours if name in theirs):
        tensor, source = runner.details[name], sources[name]
        kind = kinds.get(source, "integer")
        if kind == "float" and name != source:
            kind = "after float"  # converted at the file's end
        # A float32 input is what it is.
        if tensor.scale.size or name in report.outputs or kind == "float":
            values = ours[name]
            if source in kinds:
                values = local[name] if name in local else _unconverted(name, theirs, runner)
            row = rows.setdefault(name, LayerComparison(name, kind))
            row.add(values, theirs[name], exact[name], tensor)
    same = {"keras": True, "float": True}
    for name in report.outputs:
        place = _largest(theirs[name])
        same["keras"] &= _equal_rows(place, _largest(ours[name]))
        same["float"] &= _equal_rows(place, _largest(exact[name]))
    report.agreement[kernels] += int(np.sum(same["keras"]))
    report.float_agreement[kernels] += int(np.sum(same["float"]))


def _unconverted(name: str, theirs: dict[str, np.ndarray], runner: Runner) -> np.ndarray:
    """The real values of the file's tensor that a converted output was made of."""
    inner = name.rpartition("_")[0]
    return real_values(theirs[inner], runner.details[inner])


def _largest(values: np.ndarray) -> np.ndarray:
    """The position of the largest value of each row; a sample may be a single number."""
    return np.argmax(values if values.ndim > 1 else values[:, None], axis=-1)


def _equal_rows(a: np.ndarray, b: np.ndarray) -> Any:
    return np.all((a == b).reshape(len(a), -1), axis=1)
