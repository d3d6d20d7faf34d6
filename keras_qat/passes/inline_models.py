"""Opens nested models."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Edge, Graph, Node, read_model
from keras_qat.graph.graph import flatten_edges
from keras_qat.graph.reading import is_model
from keras_qat.passes.inference_calls import is_inference_call
from keras_qat.passes.rewriting import (
    Replacement,
    Rewriting,
    replace_nodes,
    with_known_shapes,
)


def inline_models(graph: Graph) -> Graph:
    """Replaces each call of a nested model by the calls inside it.

    Matches: a node whose operation is a functional or sequential model, at any depth.
    Builds: the inner graph, its inputs bound to the tensors of the call. Layers keep their names
    unless the outer model has a layer of the same name. Batch normalizations have the
    `training=False` of the call.
    Why: LiteRT has one flat list of operators, and a batch normalization or an activation has
    to be fused across the boundary of a nested model too.

    Args:
        graph: The graph.

    Returns:
        A graph without nested models; the graph itself if there were none.
    """
    opened = graph
    while any(is_model(node.head) for node in opened.nodes.values()):
        opened = replace_nodes(opened, _opened)
    # An inner model may have been built for unknown sizes. The call of the model knows the sizes.
    return graph if opened is graph else with_known_shapes(_with_own_origins(opened))


def _in_inference_mode(child: Node) -> Node:
    """Calls a node of a model as `model(x, training=False)` does. Its own `training` is kept."""
    args, kwargs = child.arguments
    if not (is_model(child.head) or isinstance(child.head, keras.layers.BatchNormalization)):
        return child
    if kwargs.get("training") is not None:
        return child
    return dataclasses.replace(child, arguments=(args, {**kwargs, "training": False}))


def _opened(node: Node, rewriting: Rewriting) -> Replacement | None:
    """Returns the calls inside a nested model, its inputs bound to the tensors of its call."""
    if not is_model(node.head):
        return None
    inner = read_model(node.head)
    args, kwargs = node.arguments
    # A mask is attached to the tensors too, where `connect_masks` finds it.
    given = flatten_edges((args, {key: each for key, each in kwargs.items() if key != "mask"}))
    bound = dict(zip(flatten_edges(inner.input_structure), given, strict=True))
    children = []
    for child in inner.nodes.values():
        if child.is_input:
            continue
        name = rewriting.free_name(child.name)
        child = _in_inference_mode(child) if is_inference_call(node) else child
        children.append(dataclasses.replace(child.rewired(bound), name=name))
        bound.update({Edge(child.name, i): Edge(name, i) for i in range(len(child.shapes))})
    return Replacement(children, [bound[edge] for edge in inner.output_edges])


def _with_own_origins(graph: Graph) -> Graph:
    """Returns the graph with the operations of nested models as origins, like all others."""
    nodes = {
        name: dataclasses.replace(node, origins=(name,)) if node.sources else node
        for name, node in graph.nodes.items()
    }
    return dataclasses.replace(graph, nodes=nodes)
