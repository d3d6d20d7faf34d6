"""The uses in a file of each tensor that a quantized model observes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from keras_qat.graph import Edge, Graph
from keras_qat.litert import Operator, Tensor


def tensor_uses(
    graph: Graph, tensors: Mapping[Edge, Tensor], operators: Sequence[Operator]
) -> Mapping[str, Sequence[str]]:
    """Describes the operators that take each tensor, for messages.

    Args:
        graph: The graph of a quantized model.
        tensors: The file's tensor for each of the graph.
        operators: The file's operators.

    Returns:
        The descriptions, by the name of the layer that makes the tensor. A tensor inside a layer
        has its name in the file.
    """
    names: dict[int, set[str]] = defaultdict(set)
    for edge, tensor in tensors.items():
        if not graph.nodes[edge.node].is_input:
            names[id(tensor)].add(graph.nodes[edge.node].head.name)
    uses: dict[str, list[str]] = defaultdict(list)
    for operator in operators:
        made = operator.outputs[0].name
        for tensor in operator.inputs:
            for name in () if tensor is None else names.get(id(tensor), {tensor.name}):
                uses[name].append(f"an input to the {operator.code} operator producing '{made}'")
    for edge in graph.output_edges:
        uses[graph.nodes[edge.node].head.name].append("an output of the model")
    return uses
