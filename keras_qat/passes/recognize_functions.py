"""Recognizes activations that are written out in arithmetic."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.graph import Edge, Graph, Node, Parameter, any_of, layer_of, operation_named
from keras_qat.graph.reading import read_function
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.elementwise.functions import function_of
from keras_qat.passes.rewriting import absorb_nodes

_ARITHMETIC = any_of(
    layer_of(keras.layers.Add, keras.layers.Multiply, keras.layers.Subtract),
    operation_named("Add", "Divide", "Multiply", "Negative", "Power", "Subtract", "TrueDivide"),
)
# The functions of one operator or one lookup: activations, and the other form of GELU.
_ACTIVATIONS = (
    "gelu",
    "hard_silu",
    "log_sigmoid",
    "mish",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
    "tanh_shrink",
)
_GELU_OF_TANH = "gelu of tanh"
# Points at which functions are compared. Any two of these functions differ somewhere here. In
# float32 a logarithm of an exponential is accurate to about 1e-6.
_POINTS = np.linspace(-9.0, 9.0, 721, dtype="float32")
_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class _Cone:
    """Nodes that compute an element-wise function of one tensor, and have no other consumers.

    Attributes:
        source: The tensor.
        nodes: The nodes in topological order; the last one makes the result.
    """

    source: Edge
    nodes: tuple[Node, ...]


def recognize_functions(graph: Graph) -> Graph:
    """Writes `x * relu6(x + 3) / 6` as a hard-swish, `x * sigmoid(x)` as a swish, and so on.

    Matches: arithmetic and element-wise functions of one tensor, written in any order, whose
    result is that of swish, hard-swish, GELU (either form), mish, softplus, sigmoid, tanh,
    softsign or log-sigmoid. The pass evaluates the arithmetic and compares the results. The
    tensors in between must have no other consumers.
    Builds: the function, as one operation under the name of the last one.
    Why: the function is one exact operator or lookup. Written out, each step would be an operator
    that rounds to 8 bits.

    Args:
        graph: The graph.

    Returns:
        A graph with fewer operations.
    """
    made: dict[str, Node] = {}
    absorbed: dict[str, list[str]] = {}
    dropped: set[str] = set()
    for node in reversed(list(graph.nodes.values())):
        if node.name in dropped or not is_elementwise(node):
            continue
        for cone in _cones(graph, node):
            name = _recognized(cone)
            if name is not None:
                made[node.name] = _written(node, cone.source, name)
                absorbed[node.name] = [each.name for each in cone.nodes[:-1]]
                dropped.update(absorbed[node.name])
                break
    return absorb_nodes(graph, made, absorbed, {})


def is_elementwise(node: Node) -> bool:
    """Returns whether a node computes each element from the same elements of its inputs."""
    if node.is_input or len(node.operations) != 1:
        return False
    if not (_ARITHMETIC(node.head) or FUSED(node.head) or function_of(node.head) is not None):
        return False
    constants = [leaf for leaf in tree.flatten(node.arguments) if not isinstance(leaf, Edge)]
    return all(_is_scalar(constant) for constant in constants)


def _is_scalar(constant: Any) -> bool:
    trains = getattr(constant, "trainable", False)
    value = constant.value if isinstance(constant, Parameter) else constant
    return not trains and np.size(ops.convert_to_numpy(value)) == 1


def _cones(graph: Graph, last: Node) -> Iterator[_Cone]:
    """Yields the functions of one tensor that a node may compute, the smallest first."""
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    inside = {last.name: last}
    frontier = list(last.inputs)
    while frontier:
        # Visit the latest tensor in topological order first.
        position = {name: place for place, name in enumerate(graph.nodes)}
        frontier = sorted(set(frontier), key=lambda edge: position[edge.node])
        if len(frontier) == 1 and len(inside) > 1:
            ordered = sorted(inside, key=position.__getitem__)
            yield _Cone(frontier[0], tuple(inside[name] for name in ordered))
        edge = frontier.pop()
        node = graph.nodes[edge.node]
        takers = {taker.name for taker in consumers[edge]}
        if not is_elementwise(node) or edge in outputs or not takers <= set(inside):
            return
        if node.shapes[0] != last.shapes[0] or not node.is_like(last):
            return
        inside[node.name] = node
        frontier += node.inputs


def _recognized(cone: _Cone) -> str | None:
    """Evaluates a cone, and returns the name of the known function that it computes."""
    values: dict[Edge, Any] = {cone.source: ops.convert_to_tensor(_POINTS)}
    for node in cone.nodes:
        args, kwargs = tree.map_structure(lambda leaf: _value(leaf, values), node.arguments)
        values[Edge(node.name)] = node.head(*args, **kwargs)
    computed = ops.convert_to_numpy(values[Edge(cone.nodes[-1].name)])
    for name in (*_ACTIVATIONS, _GELU_OF_TANH):
        if np.max(np.abs(computed - _exact(name))) <= _TOLERANCE:
            return name
    return None


@functools.cache
def _exact(name: str) -> np.ndarray:
    """Returns the values of a known function at the points."""
    return ops.convert_to_numpy(_operation(name, name)(ops.convert_to_tensor(_POINTS)))


def _operation(name: str, layer_name: str) -> Any:
    """Returns a new operation that computes a known function."""
    if name != _GELU_OF_TANH:
        return keras.layers.Activation(name, name=layer_name, dtype="float32")
    x = keras.Input((1,))
    traced = read_function(keras.Function(x, ops.gelu(x, approximate=True)), layer_name)
    return next(node.head for node in traced.nodes.values() if not node.is_input)


def _value(leaf: Any, values: dict[Edge, Any]) -> Any:
    if isinstance(leaf, Edge):
        return values[leaf]
    return leaf.value if isinstance(leaf, Parameter) else leaf


def _written(node: Node, source: Edge, name: str) -> Node:
    operation = _operation(name, node.name)
    return dataclasses.replace(
        node, operations=(operation,), inputs=(source,), arguments=((source,), {})
    )
