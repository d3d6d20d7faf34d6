"""Inserts the quantization of real values into the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import map_edges, unique_name
from keras_qat.layers import ObserveRange, Quantize, QuantizedLayer, QuantizeInput
from keras_qat.layers.core.moves_values import moves_plain
from keras_qat.layers.models.input_stats import checked_input_stats
from keras_qat.scheme import Scheme


def quantize_inputs(
    graph: Graph,
    scheme: Scheme,
    quantized_input_stats: Mapping[str, Sequence[float | str]] | None = None,
    pixels: Collection[str] = (),
) -> Graph:
    """Puts a `QuantizeInput` after each input of the model that holds real values.

    Matches: each input, except the ids that an `Embedding` takes, and integers that are compared.
    Builds: a layer that rounds to the input's grid; in the file, the input tensor itself. An input
    that only float layers take gets an `ObserveRange`. If only some layers are float, they take
    the input itself.
    Why: an integer model takes integers, and must be trained on the values that they represent.

    Args:
        graph: The graph.
        scheme: The scheme.
        quantized_input_stats: The meaning of the integers of inputs, see `quantize_model`.
        pixels: Names of the inputs that take pixels, see `pixel_inputs`.

    Returns:
        A graph in which only `QuantizeInput` takes an input of real values.

    Raises:
        UnsupportedLayerError: If ids are real values that the model computes, or are used as real
            values too.
        InvalidInputStatsError: If the statistics of an input are not valid.
    """
    nodes: list[Node] = []
    rounded: dict[Edge, Edge] = {}
    observed: dict[Edge, Edge] = {}
    ids, consumers, floats = _ids(graph), graph.consumers(), float_layers(graph)
    wanted = {} if quantized_input_stats is None else quantized_input_stats
    stats = checked_input_stats(wanted, list(graph.inputs), {edge.node for edge in ids})
    for node in graph.nodes.values():
        nodes.append(node.rewired(observed if node.name in floats else rounded))
        edge = Edge(node.name)
        if not node.is_input or edge in ids:
            continue
        takers = {taker.name for taker in consumers.get(edge, ())}
        kind, mapping = (
            (ObserveRange, observed) if takers and takers <= floats else (QuantizeInput, rounded)
        )
        said = stats.get(node.name)
        arguments = {
            "stats": None if said is None else dataclasses.asdict(said),
            "takes_pixels": node.name in pixels,
        }
        nodes.append(_behind(graph, edge, kind, scheme, f"{node.name}_quantize", **arguments))
        mapping[edge] = Edge(nodes[-1].name)
    return _with(graph, nodes, rounded)


def quantize_floats(graph: Graph, scheme: Scheme) -> Graph:
    """Puts a `Quantize` after each float layer whose output a quantized layer takes.

    Matches: the output of a layer that the user wants in float.
    Builds: one `Quantize` for all quantized layers that take the output. Float layers take the
    tensor itself. An output of the model gets one `ObserveRange`, so that the file can have
    integer outputs.
    Why: an integer kernel takes integers, and their range has to be observed.

    Args:
        graph: A graph in which each node but the inputs is one quantized layer, or a float layer.
        scheme: The scheme.

    Returns:
        A graph in which quantized layers take outputs of float layers through a `Quantize` only.
    """
    nodes: list[Node] = []
    rounded: dict[Edge, Edge] = {}
    outputs: dict[Edge, Edge] = {}
    floats, consumers = float_layers(graph), graph.consumers()
    for node in graph.nodes.values():
        nodes.append(node if node.name in floats else node.rewired(rounded))
        edge = Edge(node.name)
        if node.name not in floats or graph.is_plain(edge):
            continue
        if not {taker.name for taker in consumers.get(edge, ())} <= floats:
            nodes.append(_behind(graph, edge, Quantize, scheme, f"{node.name}_quantize"))
            rounded[edge] = Edge(nodes[-1].name)
        elif edge in graph.output_edges:
            nodes.append(_behind(graph, edge, ObserveRange, scheme, f"{node.name}_range"))
            outputs[edge] = Edge(nodes[-1].name)
    return _with(graph, nodes, outputs)


def float_layers(graph: Graph) -> set[str]:
    """Returns the names of the nodes that stay in float."""
    layers = [node for node in graph.nodes.values() if isinstance(node.head, QuantizedLayer)]
    return {node.name for node in layers if node.head.scheme is None}


def _with(graph: Graph, nodes: list[Node], outputs: dict[Edge, Edge]) -> Graph:
    """Returns the graph with other nodes and other outputs."""
    return dataclasses.replace(
        graph,
        nodes={node.name: node for node in nodes},
        outputs=map_edges(lambda edge: outputs.get(edge, edge), graph.outputs),
    )


def _behind(
    graph: Graph, edge: Edge, kind: Any, scheme: Scheme, name: str, **arguments: Any
) -> Node:
    """Makes a call of a new layer on a tensor."""
    name = unique_name(name, graph.nodes)
    layer = kind(name=name, dtype="float32", scheme=scheme, **arguments)
    return Node.call(layer, name, edge, graph.shape(edge)).made_of(graph.nodes[edge.node])


def _takes_plain(graph: Graph, node: Node) -> bool:
    """Returns whether a layer compares integers or booleans, or moves them."""
    moves = moves_plain(node) and graph.is_plain(Edge(node.name))
    return moves or bool(getattr(node.head, "plain_inputs", ()))


def _ids(graph: Graph) -> set[Edge]:
    """Returns the inputs that hold ids."""
    found = set()
    for edge, behind in graph.consumers().items():
        takers = [node for node in behind if getattr(node.head, "takes_indices", False)]
        if takers or (graph.nodes[edge.node].is_input and graph.is_plain(edge)):
            takers += [node for node in behind if _takes_plain(graph, node)]
        is_computed = not graph.nodes[edge.node].is_input
        if not takers or (is_computed and graph.is_plain(edge)):
            continue
        if is_computed:
            problem = f"the output of '{edge}'"
        elif len(takers) < len(behind) or edge in graph.output_edges:
            problem = f"the input '{edge}', which is used as real values too"
        else:
            found.add(edge)
            continue
        raise UnsupportedLayerError(
            "The ids that a layer looks up must be a separate input of the model, or integers "
            "that the model computes.",
            layer=takers[0].name,
            received=problem,
            expected="an input that only such layers take",
            fix="Make another `keras.Input` for the ids, or compute them with `ops.argmax`.",
        )
    return found
