"""Gives the layers that make outputs of the model the names of these outputs."""

from __future__ import annotations

from keras_qat.graph import Graph


def name_outputs(graph: Graph) -> Graph:
    """Gives each layer that makes an output of the model the output's name.

    Matches: a layer that makes outputs of a single name, if that is not the layer's name.
    Builds: the same layer, with an `output_name`.
    Why: an output keeps its name in the file, whichever layer makes it after the rewrites.

    Args:
        graph: A graph in which each node but the inputs is one layer of `keras_qat`.

    Returns:
        The graph itself.
    """
    names: dict[int, set[str]] = {}
    for edge, name in zip(graph.output_edges, graph.output_names, strict=True):
        names.setdefault(id(graph.nodes[edge.node].head), set()).add(name)
    for edge, name in zip(graph.output_edges, graph.output_names, strict=True):
        layer = graph.nodes[edge.node].head
        if len(names[id(layer)]) == 1 and name != layer.name:
            layer.output_name = name
    return graph
