"""check: what each layer will become, and what stands in the way, before any training."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import keras

from keras_qat.backend import float32_policy
from keras_qat.checking.findings import error_finding
from keras_qat.checking.report import CheckedLayer, CheckReport, MadeLayer
from keras_qat.checking.trial import Refused, Trial
from keras_qat.cloning import check_float, input_errors, weight_errors
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node, label_of
from keras_qat.graph.subclassed import read_any_model
from keras_qat.passes import PIPELINE, Rewrite
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.pipeline import compare_graphs, name_of
from keras_qat.passes.quantize_inputs import quantize_inputs
from keras_qat.passes.separate_ranges import separate_ranges
from keras_qat.scheme import Scheme, get_scheme


@float32_policy()
def check(model: keras.Model, scheme: str | Scheme = "int8") -> CheckReport:
    """Says what each layer of a model will become, and what stands in the way.

    Nothing is trained, calibrated or built, and the model is not changed: the passes of
    `quantize_model` run, and each layer that has no integer form is noted instead of raised.

    Args:
        model: A built Keras model, functional, sequential or subclassed.
        scheme: `"int8"`, `"uint8"`, or a `Scheme`.

    Returns:
        A `CheckReport`; print it, or use its `to_dict`.

    Raises:
        InvalidModelError: If the model is not built, or quantized already.
        InvalidSchemeError: If the scheme is unknown.

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv"),
    ...                           keras.layers.BatchNormalization(name="norm")])
    >>> for row in check(model).layers[1:]:
    ...     print(row.name, "->", *row.becomes, *row.rewrites)
    conv -> conv (QConv2D) fold_batch_norms
    norm -> conv (QConv2D) fold_batch_norms
    """
    resolved = get_scheme(scheme)
    try:
        graph = read_any_model(model)
    except UnsupportedLayerError as error:  # a subclassed model whose `call` cannot be traced
        return CheckReport(model.name, resolved.name, (), (error_finding(error),), ())
    errors = [*weight_errors(model), *input_errors(graph)]
    inlined = inline_models(graph)
    check_float(inlined)
    trial = Trial()
    log: list[Rewrite] = []
    for rewrite in PIPELINE:
        before, graph = trial.run(rewrite, graph)
        log += compare_graphs(name_of(rewrite), before, graph)
    _, made = trial.run(functools.partial(make_layers, scheme=resolved), graph)
    _, made = trial.run(functools.partial(quantize_inputs, scheme=resolved), made)
    if not trial.errors:  # the range of what is refused is not known
        made = separate_ranges(made, resolved)
    return CheckReport(
        model=model.name,
        scheme=resolved.name,
        layers=tuple(_rows(inlined, log, graph, made)),
        findings=tuple(map(error_finding, [*errors, *trial.errors])),
        rewrites=tuple(log),
    )


def _rows(graph: Graph, log: list[Rewrite], rewritten: Graph, made: Graph) -> list[CheckedLayer]:
    """Follows each layer of a graph through what was rewritten."""
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
        rows.append(_row(names[0], kind, nodes, dict.fromkeys(rewrites)))
    return rows


def _row(name: str, kind: str, nodes: list[Node], rewrites: Iterable[str]) -> CheckedLayer:
    heads = {id(node.head): node.head for node in nodes if not node.is_input}.values()
    becomes = [
        MadeLayer(head.name, type(head).__name__, head.operators)
        for head in heads
        if not isinstance(head, Refused)
    ]
    refused = any(isinstance(head, Refused) for head in heads)
    return CheckedLayer(name, kind, tuple(becomes), tuple(rewrites), refused)
