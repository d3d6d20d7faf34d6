"""Immutable graphs: nodes are calls of Keras operations, edges are named tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from keras import tree

from keras_qat.errors import InvalidGraphError
from keras_qat.scheme import Scheme

Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Edge:
    """A tensor: output number `index` of the node called `node`."""

    node: str
    index: int = 0

    def __str__(self):
        return self.node if self.index == 0 else f"{self.node}[{self.index}]"


@dataclasses.dataclass(frozen=True, eq=False)
class Parameter:
    """An operand that is not a tensor of the graph: a constant, or a variable of a custom layer.

    Attributes:
        value: The value, float32.
        trainable: Whether training changes the value.
        name: The user's name for it, for the name of the variable in the new layer.
        variables: The trainable variables that the value was computed from.
        samples: How often the value is repeated for each sample of a batch, if it is made for each
            sample, else 0. The value has one row then.
        positions: For a value that is a variable or a part of one, the position of each number in
            the flat variable. None for a value that was computed.
        numbers_of: The variable that the numbers stand for, and their positions in the flat
            variable, if each was computed from one number up to a common factor: `positions`, or
            for example a softmax of a variable. None for other values.
    """

    value: np.ndarray
    trainable: bool = False
    name: str = "constant"
    variables: tuple[Any, ...] = ()
    samples: int = 0
    positions: np.ndarray | None = None
    numbers_of: tuple[Any, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of a Keras operation, or of a chain of operations that were fused.

    Attributes:
        name: Unique in the graph; the operation's name for its first call.
        operations: The Keras layers or `keras.ops` operations, in the order they apply. Passes
            that fuse followers into the first operation make more than one.
        inputs: The input tensors, in the order of `arguments`.
        arguments: `(args, kwargs)` of the call, with an `Edge` for each tensor and a `Parameter`
            for each array and variable.
        shapes: Shape of each output.
        dtypes: Dtype of each output.
        origins: Names of the operations of the user's model that the node computes, or computes a
            part of.
        scheme: Scheme of the layer that the node becomes, None for float.
        sources: Names of the nodes that the last rewrite made the node from, or none if that
            rewrite did not change it.
    """

    name: str
    operations: tuple[Any, ...]
    inputs: tuple[Edge, ...]
    arguments: Any
    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    origins: tuple[str, ...] = ()
    scheme: Scheme | None = None
    sources: tuple[str, ...] = ()

    @property
    def head(self):
        """The first operation, which takes the inputs."""
        return self.operations[0]

    @property
    def is_input(self) -> bool:
        """Whether this is an input of the graph: an `InputLayer` without inputs."""
        return not self.inputs

    @property
    def user_name(self) -> str:
        """A name that occurs in the user's model: the node's own, or its first origin."""
        return self.name if self.name in self.origins else (*self.origins, self.name)[0]

    @classmethod
    def call(cls, layer: Any, name: str, edge: Edge, shape: Shape, dtype: str = "float32") -> Node:
        """Makes the call of a layer on one tensor that returns one tensor."""
        return cls(name, (layer,), (edge,), ((edge,), {}), (shape,), (dtype,))

    def made_of(self, *nodes: Node) -> Node:
        """Returns the node with the provenance of the nodes that it replaces.

        Args:
            *nodes: The replaced nodes, in topological order.
        """
        origins = dict.fromkeys(name for node in nodes for name in node.origins)
        sources = dict.fromkeys(name for node in nodes for name in node.sources or (node.name,))
        return dataclasses.replace(self, origins=tuple(origins), sources=tuple(sources))

    def is_like(self, other: Node) -> bool:
        """Returns whether both are in float or both in integers, so that they may be fused."""
        return (self.scheme is None) == (other.scheme is None)

    def rewired(self, mapping: Mapping[Edge, Edge]) -> Node:
        """Returns the node with some of its input edges replaced."""
        if not any(edge in mapping for edge in self.inputs):
            return self
        return dataclasses.replace(
            self,
            inputs=tuple(mapping.get(edge, edge) for edge in self.inputs),
            arguments=map_edges(lambda edge: mapping.get(edge, edge), self.arguments),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A directed acyclic graph of calls, in topological order.

    Attributes:
        name: Name of the model.
        nodes: Nodes by name, each after the nodes it takes its inputs from.
        inputs: Names of the input nodes, in the order of the model's inputs.
        outputs: Structure (tensor, list, dict) of the model's outputs, an `Edge` for each tensor.
        input_structure: Structure of the model's inputs, an `Edge` for each tensor.
        output_names: The names of the outputs, in order, whichever nodes make them.

    Example:
    >>> import keras
    >>> from keras_qat.graph import read_model
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> list(read_model(model).nodes)[1:]
    ['head']
    """

    name: str
    nodes: Mapping[str, Node]
    inputs: tuple[str, ...]
    outputs: Any
    input_structure: Any
    output_names: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))

    @property
    def output_edges(self) -> tuple[Edge, ...]:
        """The outputs as a flat tuple."""
        return tuple(flatten_edges(self.outputs))

    def shape(self, edge: Edge) -> Shape:
        """Returns the shape of a tensor, None for an unknown size."""
        return self.nodes[edge.node].shapes[edge.index]

    def dtype(self, edge: Edge) -> str:
        """Returns the dtype of a tensor."""
        return self.nodes[edge.node].dtypes[edge.index]

    def is_plain(self, edge: Edge) -> bool:
        """Returns whether a tensor holds booleans or plain integers, instead of real values."""
        return not self.dtype(edge).startswith(("float", "bfloat"))

    def signature(self, node: Node) -> Hashable:
        """Returns a key that equal calls of an operation have in common.

        An operation without weights computes the same function in two calls only if their
        signatures are equal. Results for a call are therefore stored by operation and signature.

        Args:
            node: A call on tensors of this graph.

        Returns:
            The place and the content of each argument. The content of a tensor is its shape, its
            dtype, and its number among the tensors of the call. For others it is the value.
        """
        tensors = list(dict.fromkeys(node.inputs))

        def key(leaf: Any) -> Hashable:
            """Returns a hashable key of one argument of the call."""
            if isinstance(leaf, Edge):
                return tensors.index(leaf), self.shape(leaf), self.dtype(leaf)
            is_array = isinstance(leaf, Parameter) or hasattr(leaf, "shape")
            return id(leaf) if is_array else repr(leaf)

        return tuple((path, key(leaf)) for path, leaf in tree.flatten_with_path(node.arguments))

    def consumers(self) -> dict[Edge, list[Node]]:
        """Returns the nodes that take each tensor, once for each of their inputs that it is."""
        found: dict[Edge, list[Node]] = {}
        for node in self.nodes.values():
            for edge in node.inputs:
                found.setdefault(edge, []).append(node)
        return found

    def replace(
        self,
        nodes: Iterable[Node],
        mapping: Mapping[Edge, Edge],
        unchanged: Container[str] = (),
    ) -> Graph:
        """Returns the graph with other nodes, edges in `mapping` redirected.

        Args:
            nodes: All nodes of the new graph, in topological order.
            mapping: Old tensor to new tensor.
            unchanged: Names of nodes that keep taking the old tensors.

        Returns:
            A new `Graph`.
        """
        rewired = [node if node.name in unchanged else node.rewired(mapping) for node in nodes]
        outputs = map_edges(lambda edge: mapping.get(edge, edge), self.outputs)
        return dataclasses.replace(
            self, nodes={node.name: node for node in rewired}, outputs=outputs
        )

    def check(self, after: str = "reading") -> Graph:
        """Checks that the graph is consistent, and returns it.

        Args:
            after: Name of the pass that produced it, for the message.

        Returns:
            The graph itself.

        Raises:
            InvalidGraphError: If an edge has no producer before its consumer, a node's inputs
                are not the edges in its arguments, a name differs from its key, a node has no
                origins, or an input or output does not exist.
        """
        seen: set[Edge] = set()
        for name, node in self.nodes.items():
            self._check_node(name, node, seen, after)
            seen.update(Edge(name, i) for i in range(len(node.shapes)))
        for edge in (*self.output_edges, *flatten_edges(self.input_structure)):
            if edge not in seen:
                raise InvalidGraphError(
                    f"After '{after}' the graph has an input or output that no node makes.",
                    layer=str(edge),
                )
        if {node.name for node in self.nodes.values() if node.is_input} != set(self.inputs):
            raise InvalidGraphError(
                f"After '{after}' the nodes without inputs are not the graph's inputs.",
                received=self.inputs,
            )
        return self

    def _check_node(self, name: str, node: Node, seen: set[Edge], after: str) -> None:
        if node.name != name:
            problem = f"the node named '{node.name}' is stored under another name"
        elif not node.operations:
            problem = "a node has no operation"
        elif len(node.shapes) != len(node.dtypes):
            problem = "a node does not have as many dtypes as shapes"
        elif not node.origins:
            problem = "a node stands for no operation of the model"
        elif tuple(flatten_edges(node.arguments)) != node.inputs:
            problem = "a node's inputs are not the tensors in its arguments"
        elif missing := [str(edge) for edge in node.inputs if edge not in seen]:
            problem = f"a node takes {missing}, which no node before it makes"
        else:
            return
        raise InvalidGraphError(f"After '{after}' {problem}.", layer=name)


def map_edges(function: Callable[[Edge], Any], structure: Any) -> Any:
    """Replaces each `Edge` in a nested structure; other leaves stay as they are."""

    def replaced(leaf: object) -> object:
        return function(leaf) if isinstance(leaf, Edge) else leaf

    return tree.map_structure(replaced, structure)


def flatten_edges(structure: Any) -> list[Edge]:
    """Lists the edges of a nested structure in its order."""
    return [leaf for leaf in tree.flatten(structure) if isinstance(leaf, Edge)]


def unique_name(wanted: str, taken: Iterable[str] | Mapping[str, Any]) -> str:
    """Returns `wanted`, or `wanted_1`, `wanted_2`, ... if it is taken."""
    taken = set(taken)
    name, count = wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name
