"""The tensors that a file has for the layers of a quantized model."""

from __future__ import annotations

import dataclasses

from keras_qat.graph import Edge, Graph
from keras_qat.lowering.exporting import lower_edges
from keras_qat.lowering.io_names import tensor_names
from keras_qat.lowering.io_types import IoTypes
from keras_qat.lowering.model_io import boundary_node, output_nodes, resolved_io_types


@dataclasses.dataclass(frozen=True)
class FileTensors:
    """The tensors of a file, and the nodes of the graph that it was made of.

    Attributes:
        inputs: Shape of each input, by the tensor's name, in the file's order.
        outputs: Shape of each output, in the same form.
        of_nodes: Name of the tensor with the values of each node, by the node's name. Constants
            are left out.
        sources: Name of the node that computes each tensor, by the tensor's name. Tensors
            inside a layer, and ids that are inputs, are left out.
    """

    inputs: dict[str, tuple[int | None, ...]]
    outputs: dict[str, tuple[int | None, ...]]
    of_nodes: dict[str, str]
    sources: dict[str, str]


def file_tensors(graph: Graph, input_types: IoTypes, output_types: IoTypes) -> FileTensors:
    """Finds the tensors that an exported file has for the nodes of a graph.

    Args:
        graph: A graph of linked layers that have their ranges.
        input_types: Types of the file's inputs.
        output_types: Types of the file's outputs.

    Returns:
        The tensors.

    Raises:
        ExportError: If the model has no such inputs or outputs.
    """
    types = resolved_io_types(graph, input_types, output_types)
    lowered, tensors = lower_edges(graph, *types)
    names = tensor_names(lowered)
    of_nodes = {
        edge.node: names[tensor]
        for edge, tensor in tensors.items()
        if tensor in names and tensor.data is None
    }
    consumers = graph.consumers()
    boundaries = {
        names[x]: boundary_node(consumers, Edge(name)) for name, x in lowered.inputs.items()
    }
    sources = {name: boundary.name for name, boundary in boundaries.items() if boundary is not None}
    for node in graph.nodes.values():
        if not node.is_input and node.name in of_nodes:
            sources.setdefault(of_nodes[node.name], node.name)
    for name, node in output_nodes(graph, tensors, types[1]).items():
        sources.setdefault(names[lowered.outputs[name]], node.name)
    return FileTensors(
        {names[x]: x.shape for x in lowered.inputs.values()},
        {names[x]: x.shape for x in lowered.outputs.values()},
        of_nodes,
        sources,
    )
