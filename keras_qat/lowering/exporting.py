"""From a quantized model to a LiteRT model: a walk over its layers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from keras_qat.errors import (
    DefaultRangesWarning,
    NotQuantizedError,
    TargetFallbackWarning,
    UnsupportedLayerError,
    warn_user,
)
from keras_qat.graph import Edge, Graph, read_model
from keras_qat.layers import QuantizedModel
from keras_qat.layers.models.finiteness import check_finite
from keras_qat.layers.models.fixed_batch import set_fixed_batch
from keras_qat.layers.models.formats import writes
from keras_qat.layers.models.input_stats import check_input_stats, set_input_stats
from keras_qat.layers.models.missing_ranges import missing_ranges
from keras_qat.layers.models.observed_ranges import warn_of_ranges_not_saved
from keras_qat.layers.models.wrapped import quantized_model_in
from keras_qat.litert import Model, OldestRuntime, Tensor, oldest_runtime, write
from keras_qat.litert.writing.fixed_batch import fix_batch, fold_shapes
from keras_qat.litert.writing.scheduling import schedule
from keras_qat.lowering.batch_size import check_batch_size
from keras_qat.lowering.builder import Builder
from keras_qat.lowering.detection import DetectionPostProcess, check_ends
from keras_qat.lowering.io_names import name_tensors
from keras_qat.lowering.io_types import IoTypes
from keras_qat.lowering.kernel_limits import check_kernel_limits
from keras_qat.lowering.model_io import lower_inputs, lower_outputs, resolved_io_types
from keras_qat.lowering.tensor_uses import tensor_uses
from keras_qat.quantizers import grids_once
from keras_qat.targets import check_runs, get_target


@writes("litert")
def export_litert(
    model: QuantizedModel,
    filepath: str | os.PathLike,
    *,
    inference_input_type: IoTypes | None = None,
    inference_output_type: IoTypes | None = None,
    default_ranges_stats: Sequence[float] | None = None,
    quantized_input_stats: Mapping[str, Sequence[float | str]] | None = None,
    target: str | None = None,
    batch_size: int | None = None,
    detection: DetectionPostProcess | None = None,
) -> OldestRuntime:
    """Writes a quantized model as a fully integer LiteRT model.

    Layers in float (`overrides` of `quantize_model`) become float32 operators, with a DEQUANTIZE
    or a QUANTIZE at each boundary between float and integer layers.

    The file has one signature, `serving_default`, a dynamic batch size unless `batch_size` is
    given, and 16-byte aligned weights. Input and output tensors have the names of the signature:
    the name of the `Input`, of the output's layer, or the key of a dict of outputs. Other tensors
    are named after the Keras layers. Where the model branches, its operators have the order that
    needs the least memory for tensors. The same model gives the same bytes. The model is written
    to a temporary file first, so that a failed export leaves no partial file.

    Args:
        model: A model from `keras_qat.quantize_model`, calibrated or trained.
        filepath: Where to write the `.tflite` file.
        inference_input_type: Type of the inputs: `"int8"`, `"uint8"` or `"float32"`, and `"int16"`
            for activations of 16 bits; a dict by the names of the inputs; or a list in their
            order. By default, and for names left out, it is the type of the input's scheme.
            Another type adds one QUANTIZE operator after the
            input, unless a float layer takes a float32 input directly. The ids of an `Embedding`
            are always int32: a single type does not change them.
        inference_output_type: Type of the outputs, in the same forms. The names are the model's
            `output_names`, or the keys of a dict of outputs, as in the file's signature.
        default_ranges_stats: A range (min, max) for the tensors that lack min/max data, for easy
            experimentation. Values outside the range are clipped, which costs accuracy; see
            `suggest_default_ranges`. The model keeps the range for `predict` and `verify` until
            these tensors are calibrated or trained. A `DefaultRangesWarning` and the model's
            `default_ranges` name the tensors.
        quantized_input_stats: Mean and standard deviation of inputs, see `quantize_model`. Pass
            them there if possible, so that the model is trained with them. The model keeps them
            for `predict` and `verify`.
        target: The device of the file, see `docs/targets.md`; None for the model's own, see
            `quantize_model`. If the file would not run on the target, no file is written. If
            operators would run on the CPU, a `TargetFallbackWarning` names them.
        batch_size: The size of every batch, such as 1. All shapes in the file are then constant,
            as compilers for accelerators require. By default the batch size of the model's
            inputs, which may be dynamic. LiteRT's default kernels round transposed convolutions
            differently in a file for one batch size. The model keeps this for `predict`.
        detection: Decoding of boxes and non-maximum suppression at the end of the file, for a model
            with boxes and scores as its outputs. The file then has the batch size 1 and the float32
            outputs of `keras_qat.DetectionPostProcess`.

    Returns:
        The oldest runtime that loads the file, with the operators that need it, and a change of
        the model that lowers it if one is known. `print` shows it as a sentence.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidModelError: If a weight or a range is not finite, naming the layer and the variable.
        MissingRangeError: If tensors lack min/max data, naming them and the operators around them.
        InvalidTargetError: If there is no profile of `target`.
        TargetError: If the file would not run on `target`, naming all operators that do not.
        InvalidDefaultRangeError: If `default_ranges_stats` is not a range.
        InvalidInputStatsError: If `quantized_input_stats` is malformed, names an input that the
            model does not have, or requires quantizing the model again.
        KernelLimitError: If LiteRT's SOFTMAX would abort with these `quantized_input_stats`.
        ExportError: If the file cannot be written, a type or the name of an input or output is
            unknown, `batch_size` is not possible, or the model does not fit `detection`.

    Example:
    >>> import tempfile, keras, keras_qat, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> qat = keras_qat.quantize_model(model)
    >>> keras_qat.calibrate(qat, np.eye(4, dtype="float32"), verbose=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     runtime = export_litert(qat, f"{folder}/model.tflite", inference_input_type="uint8")
    >>> runtime.name, runtime.because
    ('TensorFlow Lite 2.17', ('FULLY_CONNECTED version 12',))
    >>> runtime.fix, runtime.fixed
    ('overrides={keras.layers.Dense: "int8_per_tensor"}', 'TensorFlow Lite 1.15')
    """
    model = quantized_model_in(model, "exported")
    profile = get_target(model.target if target is None else target)
    if detection is not None:
        shapes = {x.name: x.shape for x in model.inputs}
        check_ends(detection, shapes, inference_output_type, batch_size)
        inference_output_type, batch_size = "float32", 1
    lowered = lower_model(
        model,
        inference_input_type,
        inference_output_type,
        default_ranges_stats,
        quantized_input_stats,
        batch_size,
    )
    named = name_tensors(lowered)
    if detection is not None:
        named, lowered = detection.append_to(named), detection.append_to(lowered)
    fallback = check_runs(lowered, profile)
    write(named, filepath)
    set_fixed_batch(model, batch_size is not None)
    if fallback is not None:
        warn_user(fallback, TargetFallbackWarning)
    warn_of_ranges_not_saved(model)
    if model.default_ranges:
        warn_user(
            f"{len(model.default_ranges)} tensor(s) lack min/max data and have a default range: "
            + ", ".join(f"'{name}' {ends}" for name, ends in model.default_ranges.items()),
            DefaultRangesWarning,
        )
    return oldest_runtime(lowered.operators)


def lower_model(
    model: QuantizedModel,
    inference_input_type: IoTypes | None = None,
    inference_output_type: IoTypes | None = None,
    default_ranges_stats: Sequence[float] | None = None,
    quantized_input_stats: Mapping[str, Sequence[float | str]] | None = None,
    batch_size: int | None = None,
) -> Model:
    """Lowers a quantized model to LiteRT operators, in memory.

    Args:
        model: A model from `keras_qat.quantize_model`, calibrated or trained.
        inference_input_type: Type of the inputs, see `export_litert`.
        inference_output_type: Type of the outputs.
        default_ranges_stats: A range for the tensors that lack min/max data, see `export_litert`.
        quantized_input_stats: Mean and standard deviation of inputs, see `export_litert`.
        batch_size: The size of every batch. None for the batch size of the model's inputs.

    Returns:
        The `keras_qat.litert.Model`. Its tensors are named after layers; `name_tensors` gives them
        the names that they have in a file.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        InvalidModelError: If a weight or a range is not finite, naming the layer and the variable.
        MissingRangeError: If tensors lack min/max data.
        InvalidDefaultRangeError: If `default_ranges_stats` is not a range.
        InvalidInputStatsError: If `quantized_input_stats` is malformed.
        KernelLimitError: If LiteRT's SOFTMAX would abort.
        ExportError: If a type or a name is unknown, or `batch_size` is not possible.
    """
    model = quantized_model_in(model, "exported")
    graph = read_model(model)
    check_batch_size(batch_size, graph)
    types = resolved_io_types(graph, inference_input_type, inference_output_type)
    if default_ranges_stats is not None:
        model.set_default_ranges(default_ranges_stats)
    if quantized_input_stats is not None:
        set_input_stats(model, quantized_input_stats)
    check_finite(model)
    check_input_stats(model)
    lowered, tensors = lower_edges(graph, *types)
    lacking = model.lacking_ranges
    if lacking:  # the error names operators, which are known only now
        raise missing_ranges(lacking, tensor_uses(graph, tensors, lowered.operators))
    check_kernel_limits(lowered)
    return schedule(lowered if batch_size is None else fix_batch(lowered, int(batch_size)))


def lower_graph(graph: Graph) -> Model:
    """Lowers a graph of linked layers. Inputs and outputs have the type of the scheme.

    Args:
        graph: Each node except the inputs is a call of a built and linked layer. If the graph has
            no ranges, the scales are meaningless.

    Returns:
        The `keras_qat.litert.Model`.
    """
    return lower_edges(graph, *resolved_io_types(graph))[0]


def lower_edges(
    graph: Graph, input_types: Mapping[str, str], output_types: Mapping[str, str]
) -> tuple[Model, dict[Edge, Tensor]]:
    """Lowers each layer to its operators.

    Args:
        graph: A graph of linked layers.
        input_types: The type of each input, by name.
        output_types: The type of each output, by name.

    Returns:
        The model, whose tensors have the names of layers, and the tensor of each edge.
    """
    with grids_once():
        lowered, tensors = _lower_nodes(graph, input_types, output_types)
    return fold_shapes(lowered), tensors


def _lower_nodes(
    graph: Graph, input_types: Mapping[str, str], output_types: Mapping[str, str]
) -> tuple[Model, dict[Edge, Tensor]]:
    """Lowers each layer to its operators, with the shapes of tensors computed in the file."""
    builder = Builder()
    tensors: dict[Edge, Tensor] = {}
    inputs = lower_inputs(graph, tensors, input_types)
    for node in graph.nodes.values():
        if not node.is_input:
            builder.enter(node)
            arguments = [tensors[edge] for edge in node.inputs]
            if builder.is_float:
                arguments = [builder.dequantize(x) for x in arguments]
            tensors[Edge(node.name)] = node.head.lower(builder, *arguments)
    outputs = lower_outputs(builder, graph, tensors, output_types)
    return Model(inputs=inputs, outputs=outputs, operators=tuple(builder.operators)), tensors


def check_float_layers(model: QuantizedModel) -> None:
    """Checks that LiteRT has float operators for the layers that stay in float.

    Args:
        model: A quantized model, with or without ranges.

    Raises:
        UnsupportedLayerError: If a layer has no float form.
    """
    graph = read_model(model)
    for node in graph.nodes.values():
        if node.is_input or node.head.scheme is not None:
            continue
        types = {edge: graph.dtype(edge) for edge in node.inputs}
        inputs = {
            edge: Tensor(str(edge), graph.shape(edge), "int32" if "int" in dtype else dtype)
            for edge, dtype in types.items()
        }
        builder = Builder()
        builder.enter(node)
        try:
            node.head.lower(builder, *(inputs[edge] for edge in node.inputs))
        except NotQuantizedError as error:
            # The layer asked for the scale of a float tensor.
            raise UnsupportedLayerError(
                "This layer has an integer form only, and cannot stay in float.",
                layer=node.name,
                received=f"overrides that make it float, for a {type(node.head).__name__}",
                fix="Quantize it, with its exact name in `overrides`; or let its `lower` add float "
                "operators where its `scheme` is None.",
            ) from error
