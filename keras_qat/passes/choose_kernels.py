"""Tells each layer the target whose kernels its inference equals."""

from __future__ import annotations

from keras_qat.graph import Graph


def choose_kernels(graph: Graph, target: str) -> Graph:
    """Sets the target of each quantized layer.

    Matches: every layer with a scheme.
    Builds: the same layer, whose integer inference follows the rules of the target's kernels.
    Why: the kernels of phones, microcontrollers and LiteRT's reference round differently.

    Args:
        graph: A graph in which each node but the inputs is one layer of `keras_qat`.
        target: Name of the target.

    Returns:
        The graph itself.
    """
    for node in graph.nodes.values():
        if not node.is_input and node.head.scheme is not None:
            node.head.target = target
    return graph
