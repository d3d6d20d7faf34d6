"""verify: compares Keras with LiteRT's interpreter, tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_qat.backend import on_one_replica
from keras_qat.data.batches import Batch, counted_batches
from keras_qat.errors import (
    ExportError,
    InvalidDataError,
    KernelLimitError,
    MissingPackageError,
)
from keras_qat.graph import Edge, Graph, read_model
from keras_qat.graph.reading import tensors_by_edge
from keras_qat.layers import QSoftmax, QuantizedModel
from keras_qat.layers.core.modes import float_mode
from keras_qat.layers.models.finiteness import check_finite
from keras_qat.layers.models.fixed_batch import fixed_batch
from keras_qat.layers.models.wrapped import quantized_model_in
from keras_qat.litert import Runner
from keras_qat.lowering import FileTensors, file_tensors
from keras_qat.targets import get_target
from keras_qat.verification.conversion import to_file_input
from keras_qat.verification.float_end import without_detection
from keras_qat.verification.inner import InnerTensors
from keras_qat.verification.replay import behind_float, local_values, real_values
from keras_qat.verification.report import LayerComparison, VerificationReport

# Kernels that run without an optional package.
_INSTALLED = ("reference", "default")
# Kernels whose SOFTMAX may abort the process.
_ABORTING = frozenset(("reference", "tflite-micro"))
# LiteRT's limit is 512; this limit leaves room for the kernel's rounding.
_SOFTMAX_LIMIT = 511.0


def verify(
    model: QuantizedModel,
    filepath: str | os.PathLike,
    data: Any,
    *,
    kernels: str | Sequence[str] | None = None,
    verbose: int = 1,
) -> VerificationReport:
    """Compares a quantized model with its exported file, tensor by tensor, integer by integer.

    A tensor inside a layer that is written as several operators is compared with the output of its
    operator for the tensors that LiteRT computed before it. Each row is therefore about one
    operator alone, and together the rows cover every tensor that is computed.

    Tensors of layers that stay in float are compared within `FLOAT_TOLERANCE`. These layers, and
    the integer layers after them, get the inputs that they have in the file. Integers are therefore
    exact there too, although float kernels are not, and each row is about one layer alone.

    The operator of `keras_qat.DetectionPostProcess` computes in float and has no layer. The rows
    end with its inputs, the real values of boxes and scores, and the verdict says so.

    Args:
        model: A quantized model.
        filepath: The file that `export_litert` wrote of the model.
        data: Data for the model's inputs, in any form that `calibrate` takes.
        kernels: Names of the kernels to compare with: `"default"` for XNNPACK and the optimized
            kernels, which phones and PCs run; `"reference"` for LiteRT's reference kernels, which
            round some operators differently; `"tflite-micro"` for TensorFlow Lite Micro, which
            needs `pip install 'keras-qat[micro]'`; `"arm64"` for the default kernels on an emulated
            ARM64 processor, which needs `make arm64`. Keras inference equals those of the model's
            target bit for bit, and the verdict is about them. None for the reference and the
            default kernels, and those of the target if they are installed.
        verbose: 1 prints the table and the verdict, 0 does not.

    Returns:
        A `VerificationReport`; its text is the table.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidModelError: If a weight or a range is not finite, naming the layer and the variable.
        InvalidDataError: If the data does not fit the model.
        LiteRTFormatError: If the file cannot be read or run, or `kernels` is unknown.
        MissingPackageError: If `kernels` names kernels that are not installed.
        KernelLimitError: If a reference kernel would abort the process on these values.

    Example:
    >>> import tempfile, keras_qat
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> x = np.eye(4, dtype="float32")
    >>> qat = keras_qat.quantize_model(model)
    >>> keras_qat.calibrate(qat, x, verbose=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = keras_qat.export_litert(qat, f"{folder}/model.tflite")
    ...     report = verify(qat, f"{folder}/model.tflite", x, verbose=0)
    >>> report.exact
    True
    """
    model = quantized_model_in(model, "verified")
    check_finite(model)
    model.check_ranges()
    own = get_target(model.target).interpreter
    content, not_run = without_detection(filepath)
    runners, missing = _runners(content, kernels, own)
    graph = read_model(model)
    places = {name: _file_tensors(graph, runner) for name, runner in runners.items()}
    outputs = next((tuple(each.outputs) for each in places.values()), ())
    report = VerificationReport({name: {} for name in runners}, outputs, own)
    report.missing, report.default_ranges = missing, model.default_ranges
    report.not_run = not_run
    report.agreement = dict.fromkeys(runners, 0)
    report.float_agreement = dict.fromkeys(runners, 0)
    inner = InnerTensors(model, content)
    is_fixed = all(None not in x.shape[:1] for each in runners.values() for x in each.inputs)
    for batch, ours, exact in _keras_values(model, counted_batches(data, model), is_fixed):
        report.samples += len(batch[0])
        if not _ABORTING.isdisjoint(runners):
            check_kernel_limits(model, ours)
        for name, runner in runners.items():
            inputs = zip(batch, runner.inputs, strict=True)
            runner.run([to_file_input(x, tensor, model.target) for x, tensor in inputs])
            _compare(report, name, runner, places[name], graph, ours, exact)
            inner.compare(report, name, runner)
    if verbose:
        print(report)
    return report


def _runners(
    content: bytes | str | os.PathLike, kernels: str | Sequence[str] | None, own: str
) -> tuple[dict[str, Runner], str]:
    """Loads the file with each set of kernels, those of the target first.

    Returns:
        The runners by name, and the reason if the kernels of the target are not installed.
    """
    chosen = (*_INSTALLED, own) if kernels is None else kernels
    names = (chosen,) if isinstance(chosen, str) else chosen
    runners, missing = {}, ""
    for name in sorted(dict.fromkeys(names), key=lambda name: name != own):
        try:
            runners[name] = Runner(content, kernels=name, expose_all=True)
        except MissingPackageError as error:
            if kernels is not None:
                raise
            missing = str(error)
    return runners, missing


def _file_tensors(graph: Graph, runner: Runner) -> FileTensors:
    """Finds the tensors of a file. Raises if the file was not exported from the model."""
    inputs, outputs = ({t.name: t.shape for t in ends} for ends in (runner.inputs, runner.outputs))
    types = ([t.dtype.name for t in ends] for ends in (runner.inputs, runner.outputs))
    received = f"a file with inputs {inputs} and outputs {outputs}"
    try:
        places = file_tensors(graph, *types)
    except ExportError as error:
        names = f"inputs {list(graph.inputs)} and outputs {list(map(str, graph.output_edges))}"
        raise _not_of_model(received, names) from error
    missing = [name for name in places.sources if name not in runner.details]
    if missing or not (_fit(inputs, places.inputs) and _fit(outputs, places.outputs)):
        received += f", without {missing}" if missing else ""
        raise _not_of_model(received, f"inputs {places.inputs} and outputs {places.outputs}")
    return places


def _not_of_model(received: str, expected: str) -> InvalidDataError:
    return InvalidDataError(
        "The file was not exported from this model.",
        received=received,
        expected=expected,
        fix="Export the model again with `keras_qat.export_litert`.",
    )


def _fit(received: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Returns whether a file has the inputs, or the outputs, of the model."""
    return received.keys() == expected.keys() and all(
        _fits(shape, expected[name]) for name, shape in received.items()
    )


def _fits(shape: tuple[int | None, ...], of_model: tuple[int | None, ...]) -> bool:
    """Returns whether a file's tensor has the model's shape, in which the batch may be unknown."""
    if len(shape) != len(of_model):
        return False
    return all(want in (None, have) for have, want in zip(shape, of_model, strict=True))


def check_kernel_limits(model: QuantizedModel, values: dict[str, np.ndarray]) -> None:
    """Raises where a reference kernel would abort the process instead of computing.

    LiteRT's reference SOFTMAX shifts by more bits than an int32 has where the sum of the
    exponentials is 512 times the largest or more. This happens for nearly equal logits of more than
    512 classes.

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
    model: QuantizedModel, data: Iterator[tuple[Batch, int]], is_fixed: bool
) -> Iterator[tuple[Batch, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Yields each batch with the values of every node, quantized and in float, by its name.

    The quantized values are those of a file for one batch size if `is_fixed`.
    """
    graph, tensors = read_model(model), tensors_by_edge(model)
    names = [node.name for node in graph.nodes.values() if not node.is_input]
    outputs = [tensors[Edge(name)] for name in names]
    quantized, exact = (
        on_one_replica(keras.Model(model.inputs, outputs), trace_first=False) for _ in range(2)
    )

    def values(compute, batch, count):
        """Computes the outputs of a batch, for as many samples as are compared."""
        arrays = keras.tree.flatten(compute(list(batch)))
        arrays = [_first(array, count, len(batch[0])) for array in arrays]
        return dict(zip(names, arrays, strict=True))

    with fixed_batch(model, is_fixed):
        for batch, count in data:
            ours = values(quantized, batch, count)
            with float_mode():
                real = values(exact, batch, count)
            yield tuple(array[:count] for array in batch), ours, real


def _first(values: np.ndarray, count: int, size: int) -> np.ndarray:
    """Returns a tensor's values for the first samples of a batch; other samples fill it up."""
    return values[: len(values) * count // size] if len(values) % size == 0 else values


def _compare(
    report: VerificationReport,
    kernels: str,
    runner: Runner,
    places: FileTensors,
    graph: Graph,
    ours: dict[str, np.ndarray],
    exact: dict[str, np.ndarray],
) -> None:
    """Compares all tensors of a file with those of the model, for one set of kernels."""
    rows, theirs = report.layers[kernels], runner.tensors()
    kinds = behind_float(graph)
    local = local_values(graph, kinds, places.of_nodes, theirs, runner.details)
    # In the model's order; `InnerTensors` compares the tensors inside layers.
    for name, source in places.sources.items():
        tensor, own = runner.details[name], places.of_nodes[source]
        kind = kinds.get(source, "integer")
        if kind == "float" and name != own:
            kind = "after float"  # converted at the file's end
        # A float32 input needs no conversion.
        is_plain = graph.is_plain(Edge(source))
        if tensor.scale.size or name in report.outputs or kind == "float" or is_plain:
            values = ours[source]
            if source in kinds:
                is_own = name == own
                values = local[source] if is_own else real_values(theirs[own], runner.details[own])
            row = rows.setdefault(name, LayerComparison(name, kind))
            row.add(values, theirs[name], exact[source], tensor)
    same = {"keras": True, "float": True}
    for name in report.outputs:
        place, source = _largest(theirs[name]), places.sources[name]
        same["keras"] &= _equal_rows(place, _largest(ours[source]))
        same["float"] &= _equal_rows(place, _largest(exact[source]))
    report.agreement[kernels] += int(np.sum(same["keras"]))
    report.float_agreement[kernels] += int(np.sum(same["float"]))


def _largest(values: np.ndarray) -> np.ndarray:
    """Returns the position of the largest value of each row; a sample may be a single number."""
    return np.argmax(values if values.ndim > 1 else values[:, None], axis=-1)


def _equal_rows(a: np.ndarray, b: np.ndarray) -> Any:
    return np.all((a == b).reshape(len(a), -1), axis=1)
