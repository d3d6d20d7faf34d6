"""Running passes on a model that they may refuse in several places."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node
from keras_qat.layers import QuantizedLayer, find_slice
from keras_qat.passes.pipeline import name_of


class Refused(QuantizedLayer):
    """Stands for a layer that has no integer form, so that the passes leave it alone."""

    operators = ()


class Trial:
    """Runs passes, and notes each layer that they refuse."""

    def __init__(self):
        self.errors: list[UnsupportedLayerError] = []

    def run(self, rewrite: Callable[[Graph], Graph], graph: Graph) -> tuple[Graph, Graph]:
        """Runs a pass; what it refuses is replaced before.

        Args:
            rewrite: The pass.
            graph: The graph.

        Returns:
            The graph with what was replaced, and what the pass made of it.
        """
        while True:
            try:
                return graph, rewrite(graph).check(after=name_of(rewrite))
            except UnsupportedLayerError as error:
                self.errors.append(error)
                graph = _without_culprit(graph, rewrite, error)


def _without_culprit(
    graph: Graph, rewrite: Callable[[Graph], Graph], error: UnsupportedLayerError
) -> Graph:
    """Replaces the layer that a pass refuses, also where the error is about one inside it."""
    named = graph.nodes.get(error.layer or "")
    if named is not None:
        return _replaced(graph, named)
    for node in graph.nodes.values():
        if node.is_input or find_slice(node.operations) is not None:
            continue
        without = _replaced(graph, node)
        try:
            rewrite(without)
        except UnsupportedLayerError as other:
            if str(other) == str(error):
                continue
        return without
    raise error


def _replaced(graph: Graph, culprit: Node) -> Graph:
    """The graph with a stand-in for all calls of a layer."""
    stand_in = Refused(name=culprit.name)
    nodes = [
        dataclasses.replace(node, operations=(stand_in,), activation_split=False)
        if node.operations == culprit.operations
        else node
        for node in graph.nodes.values()
    ]
    return graph.replace(nodes, {})
