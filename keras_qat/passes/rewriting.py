"""Replacing nodes by what is written in Keras layers and operations instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from keras_qat.errors import KerasQatError, UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node, Parameter, read_model
from keras_qat.graph.graph import Shape, map_edges, unique_name
from keras_qat.graph.statements import first_line

# Given a node and a function that makes what replaces it, returns the nodes in its place.
Attempt = Callable[[Node, Callable[[], list[Node]]], list[Node]]


def attempt(node: Node, make: Callable[[], list[Node]]) -> list[Node]:
    """Returns the nodes that replace a node.

    Args:
        node: The node.
        make: Makes them.

    Raises:
        UnsupportedLayerError: If they cannot be made.
    """
    try:
        return make()
    except KerasQatError:
        raise
    except Exception as error:  # of Keras, or of what the user registered
        raise UnsupportedLayerError(
            "This layer cannot be converted.",
            layer=node.name,
            received=f"{type(node.head).__name__}, for which {type(error).__name__} was raised: "
            f"{first_line(error)}",
            fix="Replace the layer by one of those in docs/supported.md. Unless a function or "
            "layer that you registered raised it, it is a defect of the package: please report it.",
        ) from error


def rewrite_nodes(graph: Graph, write: Callable[[Node], Callable[..., Any] | None]) -> Graph:
    """Replaces nodes by what a function of their arguments computes.

    Args:
        graph: The graph.
        write: Given a node, returns what to write in its place, or None to leave it: a function
            that is called with the node's arguments, a symbolic tensor for each `Edge`, and
            returns one tensor. Equal calls of one operation become calls of the same layers.

    Returns:
        The graph in which the last operation of each replacement has the node's name; the graph
        itself if none was replaced.
    """
    nodes: dict[str, Node] = {}
    mapping: dict[Edge, Edge] = {}
    taken = set(graph.nodes)
    written: dict[Any, Graph] = {}
    for node in graph.nodes.values():
        node = node.rewired(mapping)
        function = None if node.is_input else write(node)
        if function is None:
            nodes[node.name] = node
            continue
        outer = dataclasses.replace(graph, nodes={**graph.nodes, **nodes})
        key = id(node.head), outer.signature(node)
        if key not in written:
            written[key] = _traced(node, outer, function)
        for child in splice(node, written[key], mapping, taken):
            nodes[child.name] = child
    if not written:
        return graph
    outputs = map_edges(lambda edge: mapping.get(edge, edge), graph.outputs)
    return dataclasses.replace(graph, nodes=nodes, outputs=outputs)


def _traced(node: Node, graph: Graph, function: Callable[..., Any]) -> Graph:
    tensors = {
        edge: keras.Input(batch_shape=graph.shape(edge), dtype=graph.dtype(edge))
        for edge in dict.fromkeys(node.inputs)
    }
    args, kwargs = tree.map_structure(
        lambda leaf: tensors[leaf] if isinstance(leaf, Edge) else leaf, node.arguments
    )
    return read_model(keras.Model(list(tensors.values()), function(*args, **kwargs)))


def with_known_shapes(graph: Graph) -> Graph:
    """Computes the shapes again that were less known before some nodes were replaced."""
    nodes: dict[str, Node] = {}
    for node in graph.nodes.values():
        if node.inputs and any(None in shape[1:] for shape in node.shapes):
            args, kwargs = _symbolic(node, {name: each.shapes for name, each in nodes.items()})
            outputs = tree.flatten(node.head.compute_output_spec(*args, **kwargs))
            node = dataclasses.replace(node, shapes=tuple(tuple(y.shape) for y in outputs))
        nodes[node.name] = node
    return dataclasses.replace(graph, nodes=nodes)


def _symbolic(node: Node, shapes: Mapping[str, Sequence[Shape]]) -> Any:
    """The arguments of a node, a symbolic tensor for each tensor and each parameter."""

    def symbol(leaf):
        if isinstance(leaf, Edge):
            return keras.KerasTensor(shapes[leaf.node][leaf.index])
        return keras.KerasTensor(leaf.value.shape) if isinstance(leaf, Parameter) else leaf

    return tree.map_structure(symbol, node.arguments)


def splice(node: Node, inner: Graph, mapping: dict[Edge, Edge], taken: set[str]) -> list[Node]:
    """Returns the nodes of a graph under names of another one, bound to its tensors.

    Args:
        node: The node that they replace; the last of them has its name.
        inner: What replaces it, with one input for each of its tensors, in their order.
        mapping: Old tensor to new tensor, to which the node's outputs are added.
        taken: Names that are taken, to which those of the new nodes are added.
    """
    sources = dict(zip(inner.inputs, dict.fromkeys(node.inputs), strict=True))
    bound = {Edge(name): edge for name, edge in sources.items()}
    last = inner.output_edges[0].node
    children = []
    for child in inner.nodes.values():
        if child.is_input:
            continue
        name = node.name if child.name == last else _inner_name(node, child, taken)
        taken.add(name)
        children.append(dataclasses.replace(child.rewired(bound), name=name))
        bound.update({Edge(child.name, i): Edge(name, i) for i in range(len(child.shapes))})
    for i, edge in enumerate(inner.output_edges):
        mapping[Edge(node.name, i)] = bound[edge]
    return children


def _inner_name(node: Node, child: Node, taken: set[str]) -> str:
    # The names of operations count over the whole process; that of a layer was given.
    own = child.head.name
    if not isinstance(child.head, keras.layers.Layer):
        own = type(child.head).__name__.lower()
    return unique_name(f"{node.name}_{own}", taken)


def calls_in_a_row(
    graph: Graph, node: Node, layers: Sequence[Any], mapping: dict[Edge, Edge], taken: set[str]
) -> list[Node]:
    """Returns calls of layers one after the other, in the place of a node.

    Args:
        graph: The graph that the node is in.
        node: What they replace; the layer of its operation's name, else the first, has its name.
        layers: The layers; what stands before that one keeps the shape of its input.
        mapping: Old tensor to new tensor, to which the node's output is added.
        taken: Names that are taken, to which those of the new nodes are added.
    """
    names = [layer.name for layer in layers]
    main = names.index(node.head.name) if node.head.name in names else 0
    source = graph.nodes[node.name].inputs[0]  # as it was, in the graph
    added: list[Node] = []
    for i, layer in enumerate(layers):
        name = node.name if i == main else unique_name(layer.name, taken)
        taken.add(name)
        call = dataclasses.replace(node, name=name, operations=(layer,))
        if added:
            edge = Edge(added[-1].name)
            call = dataclasses.replace(call, inputs=(edge,), arguments=((edge,), {}))
        if i < main:
            call = dataclasses.replace(call, shapes=(graph.shape(source),))
        added.append(call)
    if added[-1].name != node.name:
        mapping[Edge(node.name)] = Edge(added[-1].name)
    return added
