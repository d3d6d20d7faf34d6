"""Computes a graph of layers, one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from keras import ops, tree

from keras_qat.data.batches import Batch
from keras_qat.graph import Edge, Graph, Node, Parameter


def computed(
    graph: Graph, batch: Batch, change: Callable[[Node, Any], Any] | None = None
) -> Iterator[tuple[Node, tuple[Any, ...], dict[str, Any], Any]]:
    """Calls the layers of a graph in order, and drops each tensor after its last use.

    Args:
        graph: A graph of built layers.
        batch: One batch of its inputs.
        change: A function of a node and its result. The next layers take the tensor that the
            function returns, instead of the result.

    Yields:
        Each node that is not an input, its arguments, its keyword arguments, and its result.
    """
    tensors = dict(zip(map(Edge, graph.inputs), map(ops.convert_to_tensor, batch), strict=True))
    uses = {edge: len(takers) for edge, takers in graph.consumers().items()}

    def argument(leaf):
        if isinstance(leaf, Edge):
            return tensors[leaf]
        return leaf.value if isinstance(leaf, Parameter) else leaf

    for node in graph.nodes.values():
        if node.is_input:
            continue
        args, kwargs = tree.map_structure(argument, node.arguments)
        result = node.head(*args, **kwargs)
        if change is not None:
            result = change(node, result)
        tensors[Edge(node.name)] = result
        yield node, args, kwargs, result
        for taken in node.inputs:
            uses[taken] -= 1
            if not uses[taken]:
                del tensors[taken]
