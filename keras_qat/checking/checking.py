"""check: what each layer will become, and what stands in the way, before any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from keras_qat.calibration import check_width
from keras_qat.checking.calibrated import calibration_findings
from keras_qat.checking.findings import Finding, error_finding
from keras_qat.checking.linking import LinkedModel
from keras_qat.checking.operators import (
    differing_runtimes,
    standalone_activations,
    unfolded_batch_norms,
)
from keras_qat.checking.ranges import tensor_ranges
from keras_qat.checking.report import CheckReport
from keras_qat.checking.rows import rows_of, rows_of_quantized
from keras_qat.checking.statistics import estimated, observed
from keras_qat.checking.targets import slow_findings, target_findings
from keras_qat.checking.tensors import sums_too_large, weight_findings
from keras_qat.checking.trial import Exhausted, Trial
from keras_qat.checking.wide_ranges import wide_activations
from keras_qat.conversion import Conversion
from keras_qat.data import Batch, batches
from keras_qat.errors import (
    InvalidDataError,
    KerasQatError,
    KernelLimitError,
    MissingRangeError,
    UnsupportedLayerError,
)
from keras_qat.graph import Edge, Graph, read_model
from keras_qat.layers import QuantizedLayer, QuantizedModel
from keras_qat.layers.finiteness import finiteness_errors
from keras_qat.layers.wrapped import find_quantized_model
from keras_qat.litert import Model
from keras_qat.lowering import check_kernel_limits, lower_graph
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.options import Options
from keras_qat.passes.overrides import Overrides
from keras_qat.passes.rewriting import with_known_shapes
from keras_qat.scheme import Scheme, get_scheme
from keras_qat.targets import Target, fast_kernels, get_target

# What looks for warnings, in the order in which they are listed.
FINDERS: tuple[Callable[[LinkedModel], Iterable[Finding]], ...] = (
    standalone_activations,
    unfolded_batch_norms,
    weight_findings,
    wide_activations,
    differing_runtimes,
)
# Of 32 samples each: enough for the range of a tensor, and quick.
_MOST_BATCHES = 4
# Enough for a mean, and quick.
_MOST_SAMPLES = 32


def check(
    model: keras.Model,
    scheme: str | Scheme = "int8",
    *,
    calibration_data: Any = None,
    target: str | None = None,
    rewrites: Sequence[str] | None = None,
    activations: str = "exact",
    overrides: Mapping[str | type, str | Scheme | None] | None = None,
    quantized_input_stats: Mapping[str, Sequence[Any]] | None = None,
) -> CheckReport:
    """Says what each layer of a model will become, and what stands in the way.

    Nothing is trained or calibrated, and the model is not changed: the stages of `quantize_model`
    run, and the layers that they make are looked at. If `quantize_model` raises with the same
    options, there are findings of level `"error"`, and the first of them has its words. More of
    them are listed as far as they are found in about twice the time that the first one took;
    `is_complete` of the report says whether the search came to its end. If it does not raise,
    findings of level `"error"` are about the file: what `export_litert` refuses for `target`, or
    for ranges or weights. docs/findings.md lists the warnings.

    Args:
        model: A built Keras model, functional, sequential or subclassed; or a quantized model,
            whose ranges are taken as they are.
        scheme: `"int8"`, `"uint8"`, or a `Scheme`; a quantized model has its own.
        calibration_data: Data of the kinds that `calibrate` takes, of which the first four batches
            are used: without it findings about ranges, and about biases, rely on what batch
            normalizations say.
        target: Where the file is to run, such as `"tflite-micro"`, see `export_litert`: each
            operator that does not run there is a finding. One limit is about ranges, and needs
            `calibration_data`: RELU6 of `"tflite-micro"`.
        rewrites: As in `quantize_model`; so are the next three. A quantized model has its own.
        activations: What becomes of activations that LiteRT has no integer operator for.
        overrides: Layers that get another scheme, or None to stay in float.
        quantized_input_stats: What the integers of inputs mean.

    Returns:
        A `CheckReport`; print it, or use its `to_dict`.

    Raises:
        InvalidModelError: If the model is not built, or has quantized layers without being a
            quantized model.
        InvalidSchemeError: If the scheme is unknown.
        InvalidRewriteError: If there is no rewrite of a name, or no such policy for activations.
        InvalidOverrideError: If a key of `overrides` matches no layer, or a value is no scheme.
        InvalidInputStatsError: If `quantized_input_stats` is not understood.
        InvalidDataError: If the data does not fit.
        InvalidTargetError: If there is no profile of `target`.

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv"),
    ...                           keras.layers.BatchNormalization(name="norm")])
    >>> for row in check(model).layers[1:]:
    ...     print(row.name, "->", *row.becomes, *row.rewrites)
    conv -> conv (QConv2D) fold_batch_norms
    norm -> conv (QConv2D) fold_batch_norms
    """
    profile = None if target is None else get_target(target)
    quantized = find_quantized_model(model)
    if quantized is not None:
        return _check_quantized(quantized, calibration_data, profile)
    resolved = get_scheme(scheme)
    options = Options(
        scheme=resolved,
        rewrites=rewrites,
        activations=activations,
        overrides=Overrides(overrides or {}),
        quantized_input_stats=quantized_input_stats,
    )
    return _check_float(model, resolved, options, calibration_data, profile)


def _check_float(
    model: keras.Model,
    scheme: Scheme,
    options: Options,
    calibration_data: Any,
    profile: Target | None,
) -> CheckReport:
    try:
        conversion = Conversion(model, options)
    except UnsupportedLayerError as error:  # a subclassed model whose `call` cannot be traced
        return CheckReport(model.name, scheme.name, (), (error_finding(error),), ())
    data = _batches(conversion.source, calibration_data)
    inlined = inline_models(conversion.source)
    trial = Trial(inlined)
    errors, is_complete = _convert(conversion, trial)
    if not errors:
        try:
            conversion.build(QuantizedModel)
        except KerasQatError as error:
            errors = [error]
    made = conversion.made or trial.stand_ins(conversion.graph)
    linked = None
    if not errors:
        try:
            linked = _linked(with_known_shapes(made), data)
        except InvalidDataError as error:
            errors = [error]
    ranges = tensor_ranges(made, {} if linked is None else linked.statistics, is_quantized=False)
    log = conversion.log
    return CheckReport(
        model=model.name,
        scheme=scheme.name,
        layers=tuple(rows_of(inlined, log, made, ranges)),
        findings=(*map(error_finding, errors), *_findings(linked, profile)),
        rewrites=tuple(log),
        is_complete=is_complete,
    )


def _convert(conversion: Conversion, trial: Trial) -> tuple[list[KerasQatError], bool]:
    """Runs the stages up to the first error and on past it as far as it goes.

    Returns:
        The errors, and whether the last stage was reached.
    """
    errors = list(conversion.model_errors())
    if errors:  # what layers refuse would follow from an error that is known
        return errors, False
    try:
        conversion.run_stages(trial.run)
    except Exhausted:
        pass
    except Exception:
        if not trial.errors:
            raise
    return trial.errors, conversion.made is not None


def _check_quantized(
    model: QuantizedModel, calibration_data: Any, profile: Target | None
) -> CheckReport:
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
    findings = [*map(error_finding, errors), *_lacking(model), *_findings(linked, profile)]
    findings += calibration_findings(model)
    return CheckReport(model.name, name, tuple(rows), tuple(findings), tuple(model.rewrite_log))


def _with_origins(graph: Graph, origins: Mapping[str, tuple[str, ...]]) -> Graph:
    """The graph of a quantized model, whose layers know what they were made of."""
    nodes = {
        name: dataclasses.replace(node, origins=origins.get(node.head.name, (name,)))
        for name, node in graph.nodes.items()
    }
    return dataclasses.replace(graph, nodes=nodes)


def _lacking(model: QuantizedModel) -> Iterator[Finding]:
    """What an export of the model would raise for want of ranges."""
    try:
        model.check_ranges()
    except MissingRangeError as error:
        yield error_finding(error)


def _linked(made: Graph, data: Sequence[Batch]) -> LinkedModel:
    """Gives linked layers the ranges that can be known before calibration."""
    statistics = observed(made, data) if data else estimated(made)
    for node in made.nodes.values():
        if not node.is_input and (known := statistics.get(node.head.observer)) is not None:
            check_width(node.name, known.minimum, known.maximum)
    for observer, known in statistics.items():
        observer.widen(known.minimum, known.maximum)
    return LinkedModel(made, statistics, _sample(made, data))


def _sample(graph: Graph, data: Sequence[Batch]) -> Batch | None:
    """Some samples of the first batch, or all of a batch whose size is fixed."""
    if not data:
        return None
    is_fixed = any(graph.nodes[name].shapes[0][0] is not None for name in graph.inputs)
    return data[0] if is_fixed else tuple(array[:_MOST_SAMPLES] for array in data[0])


def _findings(linked: LinkedModel | None, profile: Target | None) -> Iterator[Finding]:
    if linked is None:
        return
    refused = list(sums_too_large(linked))
    yield from refused
    if not refused:
        yield from _file_findings(lower_graph(linked.graph), profile)
    for find in FINDERS:
        yield from find(linked)


def _file_findings(lowered: Model, profile: Target | None) -> Iterator[Finding]:
    """What the operators of the file need of LiteRT, and of the target."""
    try:
        check_kernel_limits(lowered)
    except KernelLimitError as error:
        yield error_finding(error)
    if profile is not None:
        yield from target_findings(lowered, profile)
    kernels = fast_kernels(profile)
    if kernels is not None:
        yield from slow_findings(lowered, kernels)


def _batches(graph: Graph, data: Any) -> list[Batch]:
    """The first batches of data, checked."""
    if data is None:
        return []

    def as_input(edge: Edge) -> Any:
        node = graph.nodes[edge.node]
        return keras.Input(batch_shape=node.shapes[0], dtype=node.dtypes[0], name=node.name)

    inputs = tree.map_structure(as_input, graph.input_structure)
    # What says the shapes, names and structure of the inputs, of a subclassed model too.
    model = keras.Model(inputs, inputs)
    return list(batches(data, model, steps=_MOST_BATCHES))
