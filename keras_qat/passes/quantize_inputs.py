"""Puts the quantization of the model's inputs into the graph."""

from __future__ import annotations

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import unique_name
from keras_qat.layers import QuantizeInput
from keras_qat.scheme import Scheme


def quantize_inputs(graph: Graph, scheme: Scheme) -> Graph:
    """Puts a `QuantizeInput` behind each input of the model that holds real values.

    Matches: each input, except the ids that an `Embedding` takes.
    Builds: a layer that rounds to the input's grid; in the file, the input tensor itself.
    Why: an integer model takes integers, and the model has to be trained on what they can say.

    Args:
        graph: The graph.
        scheme: The scheme.

    Returns:
        A graph in which only `QuantizeInput` takes an input of real values.

    Raises:
        UnsupportedLayerError: If ids are computed, or are used as real values too.
    """
    nodes: list[Node] = []
    mapping: dict[Edge, Edge] = {}
    ids = _ids(graph)
    for node in graph.nodes.values():
        edge = Edge(node.name)
        if not node.is_input or edge in ids:
            nodes.append(node)
            continue
        name = unique_name(f"{node.name}_quantize", graph.nodes)
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


def _ids(graph: Graph) -> set[Edge]:
    """The inputs that hold ids."""
    found = set()
    for edge, behind in graph.consumers().items():
        takers = [node for node in behind if getattr(node.head, "takes_indices", False)]
        if not takers:
            continue
        if not graph.nodes[edge.node].is_input:
            problem = f"what '{edge}' computes"
        elif len(takers) < len(behind) or edge in graph.output_edges:
            problem = f"the input '{edge}', which is used as real values too"
        else:
            found.add(edge)
            continue
        raise UnsupportedLayerError(
            "The ids that a layer looks up must be an input of the model of their own.",
            layer=takers[0].name,
            received=problem,
            expected="an input that only such layers take",
            fix="Make another `keras.Input` for the ids.",
        )
    return found
