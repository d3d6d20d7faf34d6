"""The rows of the report's table, one for each layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from keras_qat.checking.diagnostics import Refused
from keras_qat.checking.ranges import TensorRange
from keras_qat.checking.report import CheckedLayer, MadeLayer
from keras_qat.graph import Graph, Node, label_of
from keras_qat.layers import QuantizedModel
from keras_qat.passes import Rewrite

Ranges = Mapping[str, tuple[TensorRange, ...]]


def rows_of(
    graph: Graph, log: Sequence[Rewrite], made: Graph, ranges: Ranges
) -> list[CheckedLayer]:
    """Returns a row for each layer of a float model.

    Args:
        graph: The graph of the model, with nested models inlined.
        log: The rewrites.
        made: The graph of the layers that were made. Their origins are calls of `graph`.
        ranges: The origins of the ranges of the layers' tensors.
    """
    calls: dict[int, list[str]] = {}
    for node in graph.nodes.values():
        calls.setdefault(id(node.head), []).append(node.name)
    rows = []
    for names in calls.values():
        nodes = [node for node in made.nodes.values() if not set(names).isdisjoint(node.origins)]
        kind = label_of(graph.nodes[names[0]].head)
        rows.append(_row(names[0], kind, nodes, _rewrites(log, names), ranges))
    return rows


def rows_of_quantized(model: QuantizedModel, graph: Graph, ranges: Ranges) -> list[CheckedLayer]:
    """Returns a row for each layer of a quantized model.

    Args:
        model: The model.
        graph: Its graph.
        ranges: The origins of the ranges of its tensors.
    """
    calls: dict[int, list[Node]] = {}
    for node in graph.nodes.values():
        calls.setdefault(id(node.head), []).append(node)
    rows = []
    for nodes in calls.values():
        layer = nodes[0].head
        rewrites = _rewrites(model.rewrite_log, model.origins.get(layer.name, ()))
        rows.append(_row(nodes[0].name, label_of(layer), nodes, rewrites, ranges))
    return rows


def _rewrites(log: Iterable[Rewrite], origins: Iterable[str]) -> dict[str, None]:
    """Returns the names of the passes that rewrote some of the user's operations."""
    found = (each.rewrite for each in log if not set(origins).isdisjoint(each.origins))
    return dict.fromkeys(found)


def _row(
    layer: str, kind: str, nodes: Sequence[Node], rewrites: Iterable[str], ranges: Ranges
) -> CheckedLayer:
    """Makes the row of a layer from the nodes that it becomes."""
    heads = {id(node.head): node.head for node in nodes if not node.is_input}.values()
    refused = any(isinstance(head, Refused) for head in heads)
    made = [head for head in heads if not isinstance(head, Refused)]
    becomes = [MadeLayer(head.name, type(head).__name__, head.operators) for head in made]
    names = [node.name for node in nodes if not isinstance(node.head, Refused)]
    tensors = [each for name in names for each in ranges.get(name, ())]
    return CheckedLayer(layer, kind, tuple(becomes), tuple(rewrites), refused, tuple(tensors))
