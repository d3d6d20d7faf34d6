"""Opens nested models."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Edge, Graph, Node, read_model
from keras_qat.graph.graph import flatten_edges, map_edges, unique_name
from keras_qat.graph.reading import is_model
from keras_qat.passes.inference_calls import is_inference_call
from keras_qat.passes.rewriting import with_known_shapes


def inline_models(graph: Graph) -> Graph:
    """Replaces each call of a nested model by the calls inside it.

    Matches: a node whose operation is a functional or sequential model, at any depth.
    Builds: the inner graph, its inputs bound to the tensors the model was called with. Layers
    keep their names unless the outer model uses the name already. Batch normalizations have
    the `training=False` of the call.
    Why: LiteRT has one flat list of operators, and a batch normalization or an activation has
    to be fused across the border of a nested model too.

    Args:
        graph: The graph.

    Returns:
        A graph without nested models; the graph itself if there were none.
    """
    source = graph
    while any(is_model(node.head) for node in graph.nodes.values()):
        graph = _inline_once(graph)
    # An inner model may have been built for unknown sizes, which those of each call are.
    return graph if graph is source else with_known_shapes(graph)


def _inline_once(graph: Graph) -> Graph:
    nodes: dict[str, Node] = {}
    mapping: dict[Edge, Edge] = {}
    taken = set(graph.nodes)
    for node in graph.nodes.values():
        node = node.rewired(mapping)
        if not is_model(node.head):
            nodes[node.name] = node
            continue
        inner, bound = _bind(node)
        for child in inner.nodes.values():
            if child.is_input:
                continue
            name = unique_name(child.name, taken)
            taken.add(name)
            bound.update({Edge(child.name, i): Edge(name, i) for i in range(len(child.shapes))})
            child = _in_inference_mode(child) if is_inference_call(node) else child
            nodes[name] = dataclasses.replace(child.rewired(bound), name=name)
        for i, edge in enumerate(inner.output_edges):
            mapping[Edge(node.name, i)] = bound[edge]
    return dataclasses.replace(
        graph, nodes=nodes, outputs=map_edges(lambda edge: mapping.get(edge, edge), graph.outputs)
    )


def _in_inference_mode(child: Node) -> Node:
    """Calls a node of a model as `model(x, training=False)` does. Its own `training` is kept."""
    args, kwargs = child.arguments
    if not (is_model(child.head) or isinstance(child.head, keras.layers.BatchNormalization)):
        return child
    if kwargs.get("training") is not None:
        return child
    return dataclasses.replace(child, arguments=(args, {**kwargs, "training": False}))


def _bind(node: Node) -> tuple[Graph, dict[Edge, Edge]]:
    """Reads a nested model and pairs its inputs with the tensors of its call."""
    inner = read_model(node.head)
    inputs = flatten_edges(inner.input_structure)
    return inner, dict(zip(inputs, node.inputs, strict=True))
