"""Replaces nodes by equivalents that are written in Keras layers and operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from keras_qat.errors import KerasQatError, UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node, Parameter, read_model
from keras_qat.graph.batch import batch_size, of_batch, with_batch, without_batch
from keras_qat.graph.graph import Shape, map_edges, unique_name
from keras_qat.graph.statements import first_line


@dataclasses.dataclass(frozen=True)
class Replacement:
    """Nodes that replace one node.

    Attributes:
        nodes: The nodes, in topological order.
        outputs: The replacements of the tensors of the node, or None for the outputs of the last
            of the nodes.
        beside: Earlier nodes that change with the replacement, such as by losing a bias.
    """

    nodes: Sequence[Node]
    outputs: Sequence[Edge] | None = None
    beside: Sequence[Node] = ()


# Given a node and a function that makes its replacement, returns the replacement.
Attempt = Callable[[Node, Callable[[], Replacement]], Replacement]


class Rewriting:
    """A graph whose nodes are being replaced one after the other.

    Args:
        graph: The graph before any replacement.
    """

    def __init__(self, graph: Graph):
        self._graph, self._taken = graph, set(graph.nodes)
        self._nodes: dict[str, Node] = {}
        self._mapping: dict[Edge, Edge] = {}

    def free_name(self, wanted: str) -> str:
        """Returns a name that no node has, and reserves it."""
        name = unique_name(wanted, self._taken)
        self._taken.add(name)
        return name

    def shape(self, edge: Edge) -> Shape:
        """Returns the shape of a tensor."""
        maker = self._nodes.get(edge.node) or self._graph.nodes[edge.node]
        return maker.shapes[edge.index]

    def graph(self) -> Graph:
        """Returns the graph with the nodes before and after their replacement."""
        return dataclasses.replace(self._graph, nodes={**self._graph.nodes, **self._nodes})

    def run(self, write: Callable[[Node, Rewriting], Replacement | None]) -> Graph:
        """Replaces nodes, see `replace_nodes`."""
        is_changed = False
        for node in self._graph.nodes.values():
            node = _with_known_shapes(node.rewired(self._mapping), self._nodes)
            made = None if node.is_input else write(node, self)
            if made is None:
                self._nodes[node.name] = node
                continue
            is_changed = True
            for child in made.nodes:
                child = child.made_of(*made.beside, node)
                self._nodes[child.name] = dataclasses.replace(child, scheme=node.scheme)
            count = range(len(node.shapes))
            outputs = made.outputs or [Edge(made.nodes[-1].name, i) for i in count]
            self._mapping |= {Edge(node.name, i): edge for i, edge in enumerate(outputs)}
        if not is_changed:
            return self._graph
        outputs = map_edges(lambda edge: self._mapping.get(edge, edge), self._graph.outputs)
        return dataclasses.replace(self._graph, nodes=self._nodes, outputs=outputs)


def replace_nodes(graph: Graph, write: Callable[[Node, Rewriting], Replacement | None]) -> Graph:
    """Replaces nodes by others, which inherit their origins and their scheme.

    Args:
        graph: The graph.
        write: Returns the replacement of a node, or None to leave the node. It is called with each
            node that is no input, in topological order, and with the `Rewriting`.

    Returns:
        The graph; the same object if no node was replaced.
    """
    return Rewriting(graph).run(write)


def absorb_nodes(
    graph: Graph,
    made: Mapping[str, Node],
    absorbed: Mapping[str, Sequence[str]],
    mapping: Mapping[Edge, Edge],
) -> Graph:
    """Lets nodes absorb others and inherit their origins.

    Args:
        graph: The graph.
        made: The changed nodes, by their names, which they keep.
        absorbed: The names of the nodes that a node absorbs, by its name. These are removed.
        mapping: The tensors of removed nodes, and their replacements.

    Returns:
        The graph; the same object if nothing is removed or changed.
    """
    if not made and not mapping:
        return graph
    places = {name: place for place, name in enumerate(graph.nodes)}
    gone = {edge.node for edge in mapping}.union(*absorbed.values())
    nodes = []
    for name, node in graph.nodes.items():
        if name in made or name in absorbed:
            parts = sorted({name, *absorbed.get(name, ())}, key=places.__getitem__)
            node = made.get(name, node).made_of(*(graph.nodes[part] for part in parts))
        if name not in gone:
            nodes.append(node)
    return graph.replace(nodes, mapping)


def attempt(node: Node, make: Callable[[], Replacement]) -> Replacement:
    """Returns the replacement of a node.

    Args:
        node: The node.
        make: Makes the replacement.

    Raises:
        UnsupportedLayerError: If the replacement cannot be made.
    """
    try:
        return make()
    except KerasQatError:
        raise
    except Exception as error:  # raised by Keras, or by a function that the user registered
        raise UnsupportedLayerError(
            "This layer cannot be converted.",
            layer=node.name,
            received=f"{type(node.head).__name__}, for which {type(error).__name__} was raised: "
            f"{first_line(error)}",
            fix="Replace the layer by a layer of docs/supported.md. Unless a function or "
            "layer that you registered raised it, it is a defect of the package: please report it.",
        ) from error


def rewrite_nodes(graph: Graph, write: Callable[[Node], Callable[..., Any] | None]) -> Graph:
    """Replaces nodes by the output of a function of their arguments.

    Args:
        graph: The graph.
        write: Given a node, returns its replacement, or None to leave it. The replacement is a
            function that is called with the node's arguments, a symbolic tensor for each `Edge`,
            and returns one tensor. Equal calls of one operation become calls of the same layers.

    Returns:
        The graph in which the last operation of each replacement has the node's name; the graph
        itself if none was replaced.
    """
    written: dict[Any, Graph] = {}

    def replacement(node: Node, rewriting: Rewriting) -> Replacement | None:
        """Traces the function that replaces a node, once for equal calls."""
        function = write(node)
        if function is None:
            return None
        outer = rewriting.graph()
        key = id(node.head), outer.signature(node)
        if key not in written:
            written[key] = traced(node, outer, function)
        return splice(node, written[key], rewriting)

    return replace_nodes(graph, replacement)


def traced(node: Node, graph: Graph, function: Callable[..., Any]) -> Graph:
    """Returns the operations of a function of the arguments of a node.

    Args:
        node: The node.
        graph: The graph of the node, which has the shapes of its inputs.
        function: Called with a symbolic tensor for each `Edge` in the arguments.
    """
    tensors = {
        edge: keras.Input(batch_shape=graph.shape(edge), dtype=graph.dtype(edge))
        for edge in dict.fromkeys(node.inputs)
    }
    args, kwargs = tree.map_structure(
        lambda leaf: tensors[leaf] if isinstance(leaf, Edge) else leaf, node.arguments
    )
    return read_model(keras.Model(list(tensors.values()), function(*args, **kwargs)))


def with_known_shapes(graph: Graph) -> Graph:
    """Computes shapes again that are known in more detail after some nodes were replaced."""
    nodes: dict[str, Node] = {}
    for node in graph.nodes.values():
        nodes[node.name] = _with_known_shapes(node, nodes)
    return dataclasses.replace(graph, nodes=nodes)


def _with_known_shapes(node: Node, makers: Mapping[str, Node]) -> Node:
    """Computes the shapes of a node again if a size is unknown, with a number for the batch."""
    if node.is_input or not any(None in shape[1:] for shape in node.shapes):
        return node
    shapes = [makers[edge.node].shapes[edge.index] for edge in node.inputs]
    batch = batch_size(size for shape in (*shapes, *node.shapes) for size in shape)

    def symbol(leaf: Any) -> Any:
        """Returns a symbolic tensor of the shape that an argument has now."""
        if isinstance(leaf, Edge):
            maker = makers[leaf.node]
            shape = with_batch(maker.shapes[leaf.index], batch)
            return keras.KerasTensor(shape, dtype=maker.dtypes[leaf.index])
        is_value = isinstance(leaf, Parameter)
        return keras.KerasTensor(leaf.value.shape) if is_value else of_batch(leaf, batch)

    args, kwargs = tree.map_structure(symbol, node.arguments)
    outputs = tree.flatten(node.head.compute_output_spec(*args, **kwargs))
    return dataclasses.replace(
        node, shapes=tuple(without_batch(output.shape, batch) for output in outputs)
    )


def splice(node: Node, inner: Graph, rewriting: Rewriting, main: Any = None) -> Replacement:
    """Returns the nodes of a graph, bound to the inputs of the node that they replace.

    Args:
        node: The node.
        inner: The graph, with one input for each tensor of the node, in their order.
        rewriting: Gives the other nodes their names.
        main: The operation whose node gets the name of the replaced node. By default it is the one
            that makes the first output of the graph.
    """
    sources = dict(zip(inner.inputs, dict.fromkeys(node.inputs), strict=True))
    bound = {Edge(name): edge for name, edge in sources.items()}
    nodes = inner.nodes.values()
    named = [node.name for node in nodes if main is not None and node.head is main]
    last = [*named, inner.output_edges[0].node][0]
    children = []
    for child in inner.nodes.values():
        if child.is_input:
            continue
        own = f"{node.name}_{_own_name(child)}"
        name = node.name if child.name == last else rewriting.free_name(own)
        children.append(dataclasses.replace(child.rewired(bound), name=name))
        bound.update({Edge(child.name, i): Edge(name, i) for i in range(len(child.shapes))})
    return Replacement(children, [bound[edge] for edge in inner.output_edges])


def _own_name(child: Node) -> str:
    # The names of operations are counted over the whole process. Names of layers are fixed.
    is_layer = isinstance(child.head, keras.layers.Layer)
    return child.head.name if is_layer else type(child.head).__name__.lower()


def followed_by(
    layer: keras.layers.Layer, node: Node, rewriting: Rewriting, index: int = 0
) -> Node:
    """Returns the call of a layer on an output of a node, under the layer's name if it is free."""
    name = rewriting.free_name(layer.name)
    edge = Edge(node.name, index)
    return Node.call(layer, name, edge, node.shapes[index], node.dtypes[index])


def calls_in_a_row(node: Node, layers: Sequence[Any], rewriting: Rewriting) -> Replacement:
    """Returns calls of layers one after the other, in the place of a node.

    Args:
        node: The node. The layer with the name of its operation, else the first layer, gets the
            name of the node.
        layers: The layers. Layers before the one that gets the name keep the shape of its input.
        rewriting: Gives the other nodes their names.
    """
    names = [layer.name for layer in layers]
    main = names.index(node.head.name) if node.head.name in names else 0
    source = rewriting.shape(node.inputs[0])
    added: list[Node] = []
    for i, layer in enumerate(layers):
        name = node.name if i == main else rewriting.free_name(layer.name)
        call = dataclasses.replace(node, name=name, operations=(layer,))
        if added:
            edge = Edge(added[-1].name)
            call = dataclasses.replace(call, inputs=(edge,), arguments=((edge,), {}))
        added.append(dataclasses.replace(call, shapes=(source,)) if i < main else call)
    return Replacement(added)
