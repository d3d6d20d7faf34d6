"""Puts the quantization of the model's inputs into the graph."""

from __future__ import annotations

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import unique_name
from keras_qat.layers import QuantizeInput
from keras_qat.scheme import Scheme


def quantize_inputs(graph: Graph, scheme: Scheme) -> Graph:
    """Puts a `QuantizeInput` behind each input of the model.

    Matches: each input.
    Builds: a layer that rounds to the input's grid; in the file, the input tensor itself.
    Why: an integer model takes integers, and the model has to be trained on what they can say.

    Args:
        graph: The graph.
        scheme: The scheme.

    Returns:
        A graph in which only `QuantizeInput` takes an input.
    """
    nodes: list[Node] = []
    mapping: dict[Edge, Edge] = {}
    for node in graph.nodes.values():
        if not node.is_input:
            nodes.append(node)
            continue
        edge, name = Edge(node.name), unique_name(f"{node.name}_quantize", graph.nodes)
        quantize = Node(
            name=name,
            operations=(QuantizeInput(name=name, scheme=scheme),),
            inputs=(edge,),
            arguments=((edge,), {}),
            shapes=node.shapes,
            dtypes=("float32",),
        )
        nodes += [node, quantize]
        mapping[edge] = Edge(name)
    return graph.replace(nodes, mapping, unchanged={edge.node for edge in mapping.values()})
