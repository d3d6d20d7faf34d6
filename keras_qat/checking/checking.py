"""The function `check`, which reports problems of a model before any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import keras
from keras import tree

from keras_qat.calibration.observing import check_width
from keras_qat.checking.calibrated import calibration_findings
from keras_qat.checking.check_table import rows_of, rows_of_quantized
from keras_qat.checking.diagnostics import Diagnostics
from keras_qat.checking.findings import Finding, error_finding
from keras_qat.checking.linking import LinkedModel
from keras_qat.checking.operators import standalone_activations, unfolded_batch_norms
from keras_qat.checking.ranges import tensor_ranges
from keras_qat.checking.report import CheckReport
from keras_qat.checking.runtimes import differing_runtimes
from keras_qat.checking.statistics import estimated, observed
from keras_qat.checking.targets import slow_findings, target_findings
from keras_qat.checking.tensors import sums_too_large, weight_findings
from keras_qat.checking.wide_ranges import wide_activations
from keras_qat.compiler import CompiledGraph, compile
from keras_qat.data.batches import Batch, batches
from keras_qat.errors import (
    KerasQatError,
    KernelLimitError,
    MissingRangeError,
    UnsupportedLayerError,
)
from keras_qat.graph import Edge, Graph, read_model
from keras_qat.layers import QuantizedLayer, QuantizedModel
from keras_qat.layers.models.finiteness import finiteness_errors
from keras_qat.layers.models.wrapped import find_quantized_model
from keras_qat.litert import Model, oldest_runtime
from keras_qat.lowering import check_kernel_limits, lower_graph
from keras_qat.passes.config import Config
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.rewriting import with_known_shapes
from keras_qat.scheme import Scheme, get_scheme
from keras_qat.targets import DEFAULT_TARGET, Target, fast_kernels, get_target

# The functions that find warnings about layers, in the order of the report.
FINDERS: tuple[Callable[[LinkedModel], Iterable[Finding]], ...] = (
    standalone_activations,
    unfolded_batch_norms,
    weight_findings,
    wide_activations,
)
# Number of batches. Of 32 samples each, they are enough for the range of a tensor, and quick.
_MOST_BATCHES = 4
# Number of samples. They are enough for a mean, and quick.
_MOST_SAMPLES = 32


def check(
    model: keras.Model,
    scheme: str | Scheme = "int8",
    *,
    calibration_data: Any = None,
    target: str | None = None,
    rewrites: Sequence[str] | None = None,
    skip_layers: Sequence[str] = (),
    activations: str = "exact",
    quant_delay: int = 0,
    overrides: Mapping[str | type, str | Scheme | None] | str | None = None,
    default_ranges_stats: Sequence[float] | None = None,
    quantized_input_stats: Mapping[str, Sequence[float | str]] | None = None,
    storage: str | None = None,
) -> CheckReport:
    """Reports the LiteRT operators that each layer of a model becomes, and the problems.

    Nothing is trained or calibrated, and the model is not changed. `check` runs the stages of
    `quantize_model` and inspects the layers that they make. If `quantize_model` raises with the
    same options, there are findings of level `"error"`, and the first of them has the text of its
    error. More errors are listed if the search finds them in about twice the time of the first
    error. `is_complete` of the report is True if the search reached the end. If `quantize_model`
    does not raise, findings of level `"error"` are about the file: `export_litert` would raise them
    because of `target`, ranges or weights. docs/findings.md lists the warnings.

    Args:
        model: A built Keras model, functional, sequential or subclassed; or a quantized model,
            whose ranges are used.
        scheme: The name of a scheme, such as `"int8"`, or a `Scheme`. A quantized model already
            has a scheme.
        calibration_data: Data of the types that `calibrate` takes. The first four batches are
            used. Without data, findings about ranges and biases rely on batch normalizations.
        target: The target of the file, such as `"tflite-micro"`, see `export_litert`. Each
            operator that does not run there is a finding. The limit for RELU6 of `"tflite-micro"`
            depends on ranges, and needs `calibration_data`.
        rewrites: As in `quantize_model`, like the next seven. A quantized model already has these.
        skip_layers: Names of layers to leave out.
        activations: The policy for activations without an integer operator in LiteRT.
        quant_delay: Number of training steps in float. No finding depends on it.
        overrides: Layers that get another scheme, or None to stay in float.
        default_ranges_stats: A range for the tensors whose range is not known.
        quantized_input_stats: The meaning of the integers of inputs.
        storage: How the file stores weights of less than 8 bits.

    Returns:
        A `CheckReport`; print it, or use its `to_dict`.

    Raises:
        InvalidModelError: If the model is not built, if a float model has quantized layers, or if
            `skip_layers` has a name that is unknown, or the name of a layer that cannot be left
            out.
        InvalidSchemeError: If the scheme or the storage is unknown.
        InvalidRewriteError: If `rewrites` has an unknown name, or `activations` is unknown.
        InvalidOverrideError: If a key of `overrides` matches no layer, or a value is not a scheme.
        InvalidDelayError: If `quant_delay` is not a non-negative integer.
        InvalidDefaultRangeError: If `default_ranges_stats` is not a valid range.
        InvalidInputStatsError: If `quantized_input_stats` is not valid.
        InvalidDataError: If the data does not fit.
        InvalidTargetError: If `target` has no profile.

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv"),
    ...                           keras.layers.BatchNormalization(name="norm")])
    >>> for row in check(model).layers[1:]:
    ...     print(row.name, "->", *row.becomes, *row.rewrites)
    conv -> conv (QConv2D) fold_batch_norms
    norm -> conv (QConv2D) fold_batch_norms
    """
    quantized = find_quantized_model(model)
    if quantized is not None:
        return _check_quantized(quantized, calibration_data, get_target(target or quantized.target))
    config = Config(
        scheme=get_scheme(scheme),
        rewrites=rewrites,
        skip_layers=skip_layers,
        activations=activations,
        overrides=overrides,
        quant_delay=quant_delay,
        default_ranges_stats=default_ranges_stats,
        quantized_input_stats=quantized_input_stats,
        target=target,
        storage=storage,
    )
    return _check_float(model, config, calibration_data, get_target(target or DEFAULT_TARGET))


def _check_float(
    model: keras.Model, config: Config, calibration_data: Any, profile: Target
) -> CheckReport:
    """Checks a float model, with the stages of `quantize_model`."""
    diagnostics, scheme = Diagnostics(), cast(Scheme, config.scheme).name
    try:
        compiled = compile(model, config, diagnostics)
    except UnsupportedLayerError as error:  # a subclassed model whose `call` cannot be traced
        return CheckReport(model.name, scheme, (), (error_finding(error),), ())
    errors, linked = diagnostics.errors, None
    if not errors:
        data = _batches(compiled.source, calibration_data)
        try:
            built = compiled.build(QuantizedModel)
            compiled.prove(built, calibration_data)
            linked = _linked(compiled, data)
            if config.default_ranges_stats is not None:
                built.set_default_ranges(config.default_ranges_stats)
        except KerasQatError as error:
            errors = [error]
    refused, lowered = _lowered(linked)
    inlined = inline_models(compiled.source)
    made = compiled.layers or diagnostics.stand_ins(compiled.graph)
    ranges = tensor_ranges(made, {} if linked is None else linked.statistics, is_quantized=False)
    return CheckReport(
        model=model.name,
        scheme=scheme,
        layers=tuple(rows_of(inlined, compiled.log, made, ranges)),
        findings=(*map(error_finding, errors), *_findings(linked, refused, lowered, profile)),
        rewrites=tuple(compiled.log),
        is_complete=not diagnostics.errors or compiled.layers is not None,
        oldest_runtime=None if lowered is None else oldest_runtime(lowered.operators),
    )


def _check_quantized(model: QuantizedModel, calibration_data: Any, profile: Target) -> CheckReport:
    """Checks a quantized model, with its own layers and ranges."""
    graph = _with_origins(read_model(model), model.origins)
    data = _batches(graph, calibration_data)
    layers = [layer for layer in model.layers if isinstance(layer, QuantizedLayer)]
    errors = [error for layer in layers for error in finiteness_errors(layer)]
    linked = None
    if not errors:
        linked = LinkedModel(graph, observed(graph, data), _sample(graph, data), is_quantized=True)
    statistics = {} if linked is None else linked.statistics
    ranges = tensor_ranges(graph, statistics, is_quantized=True)
    schemes = (getattr(node.head, "scheme", None) for node in graph.nodes.values())
    name = next((scheme.name for scheme in schemes if scheme is not None), "float32")
    rows = rows_of_quantized(model, graph, ranges)
    refused, lowered = _lowered(linked)
    findings = [*map(error_finding, errors), *_lacking(model)]
    findings += [*_findings(linked, refused, lowered, profile), *calibration_findings(model)]
    return CheckReport(
        model=model.name,
        scheme=name,
        layers=tuple(rows),
        findings=tuple(findings),
        rewrites=tuple(model.rewrite_log),
        oldest_runtime=None if lowered is None else oldest_runtime(lowered.operators),
    )


def _with_origins(graph: Graph, origins: Mapping[str, tuple[str, ...]]) -> Graph:
    """Returns the graph of a quantized model with the origins of its layers."""
    nodes = {
        name: dataclasses.replace(node, origins=origins.get(node.head.name, (name,)))
        for name, node in graph.nodes.items()
    }
    return dataclasses.replace(graph, nodes=nodes)


def _lacking(model: QuantizedModel) -> Iterator[Finding]:
    """Yields the error that an export of the model would raise because ranges are missing."""
    try:
        model.check_ranges()
    except MissingRangeError as error:
        yield error_finding(error)


def _linked(compiled: CompiledGraph, data: Sequence[Batch]) -> LinkedModel:
    """Gives linked layers the ranges that are known before calibration.

    Raises:
        InvalidDataError: If the values of a tensor are too large for a range.
    """
    made = with_known_shapes(cast(Graph, compiled.layers))
    statistics = observed(made, data) if data else estimated(made)
    for node in made.nodes.values():
        if not node.is_input and (known := statistics.get(node.head.observer)) is not None:
            check_width(node.name, known.minimum, known.maximum)
    for observer, known in statistics.items():
        observer.widen(known.minimum, known.maximum)
    return LinkedModel(made, statistics, _sample(made, data))


def _sample(graph: Graph, data: Sequence[Batch]) -> Batch | None:
    """Returns some samples of the first batch, or a whole batch of a fixed size."""
    if not data:
        return None
    is_fixed = any(graph.nodes[name].shapes[0][0] is not None for name in graph.inputs)
    return data[0] if is_fixed else tuple(array[:_MOST_SAMPLES] for array in data[0])


def _lowered(linked: LinkedModel | None) -> tuple[list[Finding], Model | None]:
    """Returns the errors that prevent a file, and without errors the contents of the file."""
    refused = [] if linked is None else list(sums_too_large(linked))
    if linked is None or refused:
        return refused, None
    try:
        return [], lower_graph(linked.graph)
    except KerasQatError as error:
        # Without data there are no ranges that the sums could be too large for.
        return [] if linked.sample is None else [error_finding(error)], None


def _findings(
    linked: LinkedModel | None,
    refused: Sequence[Finding],
    lowered: Model | None,
    profile: Target,
) -> Iterator[Finding]:
    """Yields all findings about the layers, if these could be made."""
    if linked is None:
        return
    yield from refused
    if lowered is not None:
        yield from _file_findings(lowered, profile)
    for find in FINDERS:
        yield from find(linked)
    if lowered is not None and _computes_reference(linked.graph):
        yield from differing_runtimes(linked.graph, lowered)


def _computes_reference(graph: Graph) -> bool:
    """Returns whether inference equals LiteRT's reference kernels."""
    targets = {each.head.target for each in graph.nodes.values() if not each.is_input}
    return "reference" in targets


def _file_findings(lowered: Model, profile: Target) -> Iterator[Finding]:
    """Yields findings about operators that LiteRT, or the target, does not support."""
    try:
        check_kernel_limits(lowered)
    except KernelLimitError as error:
        yield error_finding(error)
    yield from target_findings(lowered, profile)
    kernels = fast_kernels(profile)
    if kernels is not None:
        yield from slow_findings(lowered, kernels)


def _batches(graph: Graph, data: Any) -> list[Batch]:
    """Returns the first batches of data, checked."""
    if data is None:
        return []

    def as_input(edge: Edge) -> Any:
        node = graph.nodes[edge.node]
        return keras.Input(batch_shape=node.shapes[0], dtype=node.dtypes[0], name=node.name)

    inputs = tree.map_structure(as_input, graph.input_structure)
    # This model has the shapes, names and structure of the inputs, also for a subclassed model.
    model = keras.Model(inputs, inputs)
    return list(batches(data, model, steps=_MOST_BATCHES))
