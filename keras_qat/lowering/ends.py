"""The tensors at both ends of a file: its inputs and outputs, of the types that were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import unique_name
from keras_qat.layers import ObserveRange
from keras_qat.layers.input import RangeHolder
from keras_qat.litert import Tensor
from keras_qat.lowering.builder import Builder, quantization_of

# Parameters of one type are those of another with the zero point as far from the lowest integer.
_LOWEST = {"int8": -128, "uint8": 0}


def lower_inputs(
    graph: Graph, tensors: dict[Edge, Tensor], types: Mapping[str, str]
) -> dict[str, Tensor]:
    """Makes the input tensors; a layer behind each knows what its integers mean.

    Args:
        graph: A graph of linked layers.
        tensors: The tensor of each edge so far; those of the inputs are added.
        types: The type of each input, by name.

    Returns:
        The tensors by the names of the inputs.
    """
    consumers = graph.consumers()
    for name, dtype in types.items():
        edge = Edge(name)
        holder, shape = _holder(consumers, edge), graph.shape(edge)
        parameters = None if holder is None else holder.head.links.output
        tensors[edge] = _boundary_tensor(name, shape, dtype, parameters)
    return {name: tensors[Edge(name)] for name in types}


def own_type(graph: Graph) -> str:
    """Returns the type of the model's scheme."""
    schemes = (getattr(node.head, "scheme", None) for node in graph.nodes.values())
    return next((scheme.dtype for scheme in schemes if scheme is not None), "int8")


def id_inputs(graph: Graph) -> frozenset[str]:
    """Returns the names of the inputs that no layer quantizes."""
    consumers = graph.consumers()
    return frozenset(name for name in graph.inputs if _holder(consumers, Edge(name)) is None)


def _holder(consumers: Mapping[Edge, Sequence[Node]], edge: Edge) -> Node | None:
    """The node that knows the range of a tensor of real values."""
    takers = consumers.get(edge, ())
    return next((node for node in takers if isinstance(node.head, RangeHolder)), None)


def _boundary_tensor(name: str, shape: Any, dtype: str, parameters: Any) -> Tensor:
    """An input or output as the caller sees it; ids have no parameters."""
    if dtype == "float32" or parameters is None:
        return Tensor(name, shape, dtype)
    offset = _LOWEST[dtype] - parameters.low
    return Tensor(name, shape, dtype, quantization_of(parameters, offset))


def lower_outputs(
    builder: Builder, graph: Graph, tensors: dict[Edge, Tensor], types: Mapping[str, str]
) -> dict[str, Tensor]:
    """Makes the output tensors, by operators where their types are others.

    Args:
        builder: What the operators are added to.
        graph: A graph of linked layers.
        tensors: The tensor of each edge.
        types: The type of each output, by name.

    Returns:
        The tensors by the names of the outputs.
    """
    outputs: dict[str, Tensor] = {}
    converted: dict[tuple[Tensor, str], Tensor] = {}  # two outputs may be one tensor
    consumers = graph.consumers()
    for name, edge in named_outputs(graph).items():
        dtype = types[name]
        node = graph.nodes[edge.node]
        is_observed = isinstance(node.head, ObserveRange)
        if tensors[edge].dtype == "float32" != dtype and not is_observed:
            # Quantized layers take it too.
            node = _holder(consumers, edge) or node
        inner = tensors[Edge(node.name)]
        if (inner, dtype) not in converted:
            parameters = node.head.links.output
            converted[inner, dtype] = _converted(builder, inner, dtype, parameters)
        outputs[name] = converted[inner, dtype]
    return outputs


def named_outputs(graph: Graph) -> dict[str, Edge]:
    """Returns the outputs by name, in the order of the model.

    Args:
        graph: The graph.

    Returns:
        A tensor for each key of a dict of outputs, else for what the outputs are called.
    """
    structure = graph.outputs
    if isinstance(structure, dict) and all(isinstance(each, Edge) for each in structure.values()):
        return dict(structure)  # `keras.tree.flatten` would sort it
    names: list[str] = []
    for name in graph.output_names:
        names.append(unique_name(name, names))
    return dict(zip(names, graph.output_edges, strict=True))


def _converted(builder: Builder, inner: Tensor, dtype: str, parameters: Any) -> Tensor:
    if dtype == inner.dtype:
        return inner
    if dtype == "float32":
        return builder.dequantize(inner)
    outer = _boundary_tensor(f"{inner.name}_{dtype}", inner.shape, dtype, parameters)
    builder.add("QUANTIZE", (inner,), outer, "QuantizeOptions")
    return outer
