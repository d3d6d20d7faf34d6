"""The input and output tensors of a file, in the requested types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_qat.errors import ExportError
from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import unique_name
from keras_qat.layers import ObserveRange
from keras_qat.layers.boundary.quantize import BoundaryLayer
from keras_qat.litert import Tensor
from keras_qat.lowering.builder import Builder, quantization_of
from keras_qat.lowering.io_types import IoTypes, io_types

# int8 and uint8 have the same scale. Their zero points differ by the difference of the lowest
# integers.
_LOWEST = {"int8": -128, "uint8": 0, "int16": -(2**15)}


def lower_inputs(
    graph: Graph, tensors: dict[Edge, Tensor], types: Mapping[str, str]
) -> dict[str, Tensor]:
    """Makes the input tensors. The layer after an input has its quantization parameters.

    Args:
        graph: A graph of linked layers.
        tensors: The tensor of each edge so far. The input tensors are added to it.
        types: The type of each input, by name.

    Returns:
        The tensors by the names of the inputs.
    """
    consumers = graph.consumers()
    for name, dtype in types.items():
        edge = Edge(name)
        boundary, shape = boundary_node(consumers, edge), graph.shape(edge)
        parameters = None if boundary is None else boundary.head.neighbours.output
        tensors[edge] = _boundary_tensor(name, shape, dtype, parameters)
    return {name: tensors[Edge(name)] for name in types}


def resolved_io_types(
    graph: Graph, inputs: IoTypes | None = None, outputs: IoTypes | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the type of each input and of each output, by name.

    Args:
        graph: A graph of linked layers.
        inputs: `inference_input_type` of `export_litert`.
        outputs: `inference_output_type` of `export_litert`.

    Returns:
        The types of the inputs and those of the outputs.

    Raises:
        ExportError: If a name or a type is unknown, or there are too few or too many.
    """
    consumers = graph.consumers()
    ids = {
        name: "bool" if graph.dtype(Edge(name)) == "bool" else "int32"
        for name in graph.inputs
        if boundary_node(consumers, Edge(name)) is None
    }
    made = named_outputs(graph)
    plain = {name: graph.dtype(edge) for name, edge in made.items() if graph.is_plain(edge)}
    ends = {name: Edge(name) for name in graph.inputs}
    return (
        io_types(inputs, list(ends), "inference_input_type", ids, own=_own_types(graph, ends)),
        io_types(outputs, list(made), "inference_output_type", plain, own=_own_types(graph, made)),
    )


def _own_types(graph: Graph, ends: Mapping[str, Edge]) -> dict[str, str]:
    """Returns the types of integers that inputs or outputs have in the model, by name."""
    consumers, found = graph.consumers(), {}
    schemes = [getattr(node.head, "scheme", None) for node in graph.nodes.values()]
    first = next((scheme for scheme in schemes if scheme is not None), None)
    for name, edge in ends.items():
        nodes = graph.nodes[edge.node], boundary_node(consumers, edge)
        own = [getattr(node.head, "scheme", None) for node in nodes if node is not None]
        scheme = next((each for each in own if each is not None), first)
        found[name] = "int8" if scheme is None else scheme.dtype
    return found


def boundary_node(consumers: Mapping[Edge, Sequence[Node]], edge: Edge) -> Node | None:
    """Returns the node that holds the range of a tensor of real values, or None."""
    takers = consumers.get(edge, ())
    return next((node for node in takers if isinstance(node.head, BoundaryLayer)), None)


def _boundary_tensor(name: str, shape: Any, dtype: str, parameters: Any) -> Tensor:
    """Returns the tensor of an input or output. Ids have no quantization parameters."""
    if dtype == "float32" or parameters is None:
        return Tensor(name, shape, dtype)
    if (dtype == "int16") != (parameters.low == _LOWEST["int16"]):
        raise ExportError(
            "An input or output has another width than the type that was asked for.",
            layer=name,
            received=repr(dtype),
            expected="int16 for activations of 16 bits, int8 or uint8 for 8 bits, or float32",
            fix='Leave the argument out, or pass "float32".',
        )
    offset = _LOWEST[dtype] - parameters.low
    return Tensor(name, shape, dtype, quantization_of(parameters, offset))


def lower_outputs(
    builder: Builder, graph: Graph, tensors: dict[Edge, Tensor], types: Mapping[str, str]
) -> dict[str, Tensor]:
    """Makes the output tensors. Adds an operator where the type of an output differs.

    Args:
        builder: The builder to which operators are added.
        graph: A graph of linked layers.
        tensors: The tensor of each edge.
        types: The type of each output, by name.

    Returns:
        The tensors by the names of the outputs.
    """
    outputs: dict[str, Tensor] = {}
    converted: dict[tuple[Tensor, str], Tensor] = {}  # one tensor may be two outputs
    for name, node in output_nodes(graph, tensors, types).items():
        dtype, inner = types[name], tensors[Edge(node.name)]
        if (inner, dtype) not in converted:
            parameters = node.head.neighbours.output
            converted[inner, dtype] = _converted(builder, inner, dtype, parameters)
        outputs[name] = converted[inner, dtype]
    return outputs


def output_nodes(
    graph: Graph, tensors: Mapping[Edge, Tensor], types: Mapping[str, str]
) -> dict[str, Node]:
    """Returns the node that computes each output of a file.

    Args:
        graph: A graph of linked layers.
        tensors: The tensor of each edge.
        types: The type of each output, by name.

    Returns:
        The nodes by the names of the outputs.
    """
    consumers, nodes = graph.consumers(), {}
    for name, edge in named_outputs(graph).items():
        node = graph.nodes[edge.node]
        is_observed = isinstance(node.head, ObserveRange)
        if tensors[edge].dtype == "float32" != types[name] and not is_observed:
            # Quantized layers use this tensor too.
            node = boundary_node(consumers, edge) or node
        nodes[name] = node
    return nodes


def named_outputs(graph: Graph) -> dict[str, Edge]:
    """Returns the outputs by name, in the order of the model.

    Args:
        graph: The graph.

    Returns:
        The edges by the keys of a dict of outputs, else by the names of the outputs.
    """
    structure = graph.outputs
    if isinstance(structure, dict) and all(isinstance(each, Edge) for each in structure.values()):
        return dict(structure)  # `keras.tree.flatten` would sort the keys
    names: list[str] = []
    for name in graph.output_names:
        names.append(unique_name(name, names))
    return dict(zip(names, graph.output_edges, strict=True))


def _converted(builder: Builder, inner: Tensor, dtype: str, parameters: Any) -> Tensor:
    """Adds the operator that converts an output to a type."""
    if dtype == inner.dtype:
        return inner
    if dtype == "float32":
        return builder.dequantize(inner)
    outer = _boundary_tensor(f"{inner.name}_{dtype}", inner.shape, dtype, parameters)
    builder.add("QUANTIZE", (inner,), outer)
    return outer
