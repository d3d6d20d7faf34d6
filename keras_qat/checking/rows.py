"""The rows of the table: what each layer becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from keras_qat.checking.ranges import TensorRange
from keras_qat.checking.report import CheckedLayer, MadeLayer
from keras_qat.checking.trial import Refused
from keras_qat.graph import Graph, Node, label_of
from keras_qat.passes import Rewrite
from keras_qat.passes.inline_models import inline_models

Ranges = Mapping[str, tuple[TensorRange, ...]]


def rows_of(
    graph: Graph, log: Sequence[Rewrite], rewritten: Graph, made: Graph, ranges: Ranges
) -> list[CheckedLayer]:
    """Follows each layer of a float model through what was rewritten.

    Args:
        graph: The model, nested models opened.
        log: What was rewritten.
        rewritten: What the pipeline made of the graph.
        made: The layers that were made of that.
        ranges: Where the ranges of the tensors of these come from.
    """
    calls: dict[int, list[str]] = {}
    for node in graph.nodes.values():
        calls.setdefault(id(node.head), []).append(node.name)
    added: dict[str, list[str]] = {}
    for node in made.nodes.values():
        if node.name not in rewritten.nodes:
            added.setdefault(node.inputs[0].node, []).append(node.name)
    rows = []
    for names in calls.values():
        found, rewrites = set(names), []
        for rewrite in log:
            if rewrite.rewrite != inline_models.__name__ and found & set(rewrite.layers_in):
                found = (found - set(rewrite.layers_in)) | set(rewrite.layers_out)
                rewrites.append(rewrite.rewrite)
        found |= {name for key in found for name in added.get(key, ())}
        nodes = [node for name, node in made.nodes.items() if name in found]
        kind = label_of(graph.nodes[names[0]].head)
        rows.append(_row(names[0], kind, nodes, dict.fromkeys(rewrites), ranges))
    return rows


def rows_of_quantized(graph: Graph, log: Sequence[Rewrite], ranges: Ranges) -> list[CheckedLayer]:
    """Returns a row for each layer of a quantized model.

    Args:
        graph: The model.
        log: What was rewritten to make it.
        ranges: Where the ranges of its tensors come from.
    """
    calls: dict[int, list[Node]] = {}
    for node in graph.nodes.values():
        calls.setdefault(id(node.head), []).append(node)
    rows = []
    for nodes in calls.values():
        sources, rewrites = {node.name for node in nodes}, []
        for rewrite in reversed(log):
            if sources & set(rewrite.layers_out):
                sources |= set(rewrite.layers_in)
                rewrites.append(rewrite.rewrite)
        kind = label_of(nodes[0].head)
        rows.append(_row(nodes[0].name, kind, nodes, dict.fromkeys(reversed(rewrites)), ranges))
    return rows


def _row(
    layer: str, kind: str, nodes: Sequence[Node], rewrites: Iterable[str], ranges: Ranges
) -> CheckedLayer:
    heads = {id(node.head): node.head for node in nodes if not node.is_input}.values()
    refused = any(isinstance(head, Refused) for head in heads)
    made = [head for head in heads if not isinstance(head, Refused)]
    becomes = [MadeLayer(head.name, type(head).__name__, head.operators) for head in made]
    names = [node.name for node in nodes if not isinstance(node.head, Refused)]
    tensors = [each for name in names for each in ranges.get(name, ())]
    return CheckedLayer(layer, kind, tuple(becomes), tuple(rewrites), refused, tuple(tensors))
