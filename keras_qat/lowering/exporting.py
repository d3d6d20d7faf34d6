"""From a quantized model to a LiteRT model: a walk over its layers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_qat.errors import ExportError, NotQuantizedError, UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node, read_model
from keras_qat.graph.graph import unique_name
from keras_qat.layers import ObserveRange, QuantizedModel, QuantizeInput
from keras_qat.litert import Model, Operator, Tensor, write
from keras_qat.lowering.builder import Builder, quantization_of

# An unsigned 8-bit integer is the signed one plus this.
_UNSIGNED_OFFSET = 128
INFERENCE_TYPES = ("int8", "uint8", "float32")


def export_litert(
    model: QuantizedModel,
    filepath: str | os.PathLike,
    *,
    inference_input_type: str = "int8",
    inference_output_type: str = "int8",
) -> None:
    """Writes a quantized model as a fully integer LiteRT model.

    Layers that were to stay in float (`overrides` of `quantize_model`) are float32 operators there,
    with a DEQUANTIZE or a QUANTIZE exactly where a tensor passes from the one kind to the other.

    The file has one signature, `serving_default`, tensors named after the Keras layers, a
    dynamic batch size and 16-byte aligned weights. The same model gives the same bytes. It is
    written to a temporary file first, so that a failure leaves nothing behind.

    Args:
        model: A model from `keras_qat.quantize_model`, calibrated or trained.
        filepath: Where to write the `.tflite` file.
        inference_input_type: Type of the inputs: `"int8"`, `"uint8"` or `"float32"`. The last
            two put one QUANTIZE operator behind each input, a float layer takes a float32 input
            as it is. The ids of an `Embedding` are int32 whatever it says.
        inference_output_type: Type of the outputs, likewise.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        MissingRangeError: If tensors lack min/max data, naming them and their layers.
        ExportError: If the file cannot be written, or a type is none of the three.

    Example:
    >>> import tempfile, keras, keras_qat, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> qat = keras_qat.quantize_model(model)
    >>> keras_qat.calibrate(qat, np.eye(4, dtype="float32"), verbose=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_litert(qat, f"{folder}/model.tflite", inference_input_type="uint8")
    """
    write(lower_model(model, inference_input_type, inference_output_type), filepath)


def lower_model(
    model: QuantizedModel, inference_input_type: str = "int8", inference_output_type: str = "int8"
) -> Model:
    """Lowers a quantized model to LiteRT operators, in memory.

    Args:
        model: A model from `keras_qat.quantize_model`, calibrated or trained.
        inference_input_type: Type of the inputs.
        inference_output_type: Type of the outputs.

    Returns:
        The `keras_qat.litert.Model`.

    Raises:
        NotQuantizedError: If the model was not made by `quantize_model`.
        MissingRangeError: If tensors lack min/max data.
        ExportError: If a type is none of the three.
    """
    for name in (inference_input_type, inference_output_type):
        if name not in INFERENCE_TYPES:
            raise ExportError(
                "Unknown type of an input or output.",
                received=repr(name),
                expected=f"one of {INFERENCE_TYPES}",
            )
    if not isinstance(model, QuantizedModel):
        raise NotQuantizedError(
            "Only a quantized model can be exported.",
            received=f"a {type(model).__name__}",
            fix="Pass what `keras_qat.quantize_model` returned.",
        )
    model.check_ranges()
    graph = read_model(model)
    builder = Builder()
    tensors: dict[Edge, Tensor] = {}
    inputs = _lower_inputs(builder, graph, tensors, inference_input_type)
    for node in graph.nodes.values():
        if not node.is_input:
            builder.enter(node)
            arguments = [tensors[edge] for edge in node.inputs]
            if builder.is_float:
                arguments = [builder.dequantize(x) for x in arguments]
            tensors[Edge(node.name)] = node.head.lower(builder, *arguments)
    outputs = _lower_outputs(builder, model, graph, tensors, inference_output_type)
    return Model(inputs=inputs, outputs=outputs, operators=tuple(builder.operators))


def check_float_layers(model: QuantizedModel) -> None:
    """Checks that LiteRT has float operators for the layers that stay in float.

    Args:
        model: A quantized model; it needs no ranges.

    Raises:
        UnsupportedLayerError: If a layer has no float form.
    """
    graph = read_model(model)
    for node in graph.nodes.values():
        if node.is_input or node.head.scheme is not None:
            continue
        dtype = "int32" if node.head.takes_indices else "float32"
        inputs = {edge: Tensor(str(edge), graph.shape(edge), dtype) for edge in node.inputs}
        builder = Builder()
        builder.enter(node)
        try:
            node.head.lower(builder, *(inputs[edge] for edge in node.inputs))
        except NotQuantizedError as error:
            # It asked for the grid of a tensor that has none.
            raise UnsupportedLayerError(
                "This layer has an integer form only, and cannot stay in float.",
                layer=node.name,
                received=f"overrides that make it float, for a {type(node.head).__name__}",
                fix="Quantize it, with its exact name in `overrides`; or let its `lower` add float "
                "operators where its `scheme` is None.",
            ) from error


def _lower_inputs(
    builder: Builder, graph: Graph, tensors: dict[Edge, Tensor], dtype: str
) -> dict[str, Tensor]:
    """Makes the input tensors; a layer behind each knows what its integers mean."""
    inputs = {}
    consumers = graph.consumers()
    for name in graph.inputs:
        edge, shape = Edge(name), graph.shape(Edge(name))
        holder = _holder(consumers, edge)
        if holder is None:
            inputs[name] = Tensor(name, shape, "int32")  # ids
        else:
            inputs[name] = _boundary_tensor(name, shape, dtype, holder.head.links.output)
        tensors[edge] = inputs[name]
    return inputs


def _holder(consumers: Mapping[Edge, Sequence[Node]], edge: Edge) -> Node | None:
    """The node that knows the range of a tensor of real values."""
    kinds = QuantizeInput, ObserveRange
    return next((node for node in consumers.get(edge, ()) if isinstance(node.head, kinds)), None)


def _boundary_tensor(name: str, shape: Any, dtype: str, parameters: Any) -> Tensor:
    """An input or output as the caller sees it."""
    if dtype == "float32":
        return Tensor(name, shape, dtype)
    offset = _UNSIGNED_OFFSET if dtype == "uint8" else 0
    return Tensor(name, shape, dtype, quantization_of(parameters, offset))


def _lower_outputs(
    builder: Builder,
    model: keras.Model,
    graph: Graph,
    tensors: dict[Edge, Tensor],
    dtype: str,
) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    converted: dict[Tensor, Tensor] = {}  # two outputs may be one tensor
    consumers = graph.consumers()
    for edge, wanted in zip(graph.output_edges, _output_names(graph), strict=True):
        node, name = graph.nodes[edge.node], unique_name(wanted, outputs)
        is_observed = isinstance(node.head, ObserveRange)
        if tensors[edge].dtype == "float32" != dtype and not is_observed:
            # Quantized layers take it too.
            node = _holder(consumers, edge) or node
        inner = tensors[Edge(node.name)]
        if inner not in converted:
            parameters = node.head.links.output
            converted[inner] = _converted(builder, inner, dtype, parameters)
        outputs[name] = converted[inner]
    return outputs


def _output_names(graph: Graph) -> Sequence[str]:
    """The keys of a dict of outputs, else what the outputs are called."""
    if isinstance(graph.outputs, dict) and len(graph.outputs) == len(graph.output_edges):
        return sorted(graph.outputs)  # the order of `keras.tree.flatten`
    return graph.output_names


def _converted(builder: Builder, inner: Tensor, dtype: str, parameters: Any) -> Tensor:
    if dtype == inner.dtype:
        return inner
    if dtype == "float32":
        return builder.dequantize(inner)
    outer = _boundary_tensor(f"{inner.name}_{dtype}", inner.shape, dtype, parameters)
    version = 1 if inner.dtype == "float32" else 2
    builder.operators.append(Operator("QUANTIZE", (inner,), (outer,), version, "QuantizeOptions"))
    return outer
