"""Opens layers that no rule takes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import keras

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node
from keras_qat.graph.keras_internals import layers_of
from keras_qat.graph.reading import is_model
from keras_qat.graph.soundness import training_errors
from keras_qat.graph.tracing import trace_layer
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.core.activation_names import activation_name
from keras_qat.layers.core.registry import call_of, find_rule, is_written_in_ops, refusal
from keras_qat.passes.connect_masks import connect_masks
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.open_drop_ins import open_drop_ins
from keras_qat.passes.rewriting import (
    Attempt,
    Replacement,
    Rewriting,
    attempt,
    replace_nodes,
    splice,
    with_known_shapes,
)
from keras_qat.passes.rows import Rows
from keras_qat.passes.running import Pass
from keras_qat.passes.shared_calls import with_operations_of
from keras_qat.passes.split_activations import split_activations
from keras_qat.passes.split_regularizers import split_regularizers
from keras_qat.passes.split_separables import split_separables
from keras_qat.passes.split_volumes import split_volumes

# The passes that run before `open_layers` unless `rewrites` leaves them out.
INSIDE: tuple[Pass, ...] = (
    inline_models,
    connect_masks,
    open_drop_ins,
    split_separables,
    split_volumes,
    split_regularizers,
    split_activations,
)


def open_layers(
    graph: Graph,
    attempt: Attempt = attempt,
    inside: Sequence[Pass] = INSIDE,
    given_rows: Mapping[str, int] | None = None,
) -> Graph:
    """Replaces each layer that no rule takes by the operations of its `call`.

    Matches: a layer that no rule takes, including custom layers and subclassed models, unless it
    is not supported for a known reason; also a layer whose `call` was registered with `register`.
    Builds: the `keras.ops` operations and Keras layers that it calls, with its weights as their
    parameters. The last one has the layer's name.
    Why: most layers are compositions of a few operations. To support these operations is to
    support all layers made of them, without registration.

    Args:
        graph: The graph.
        attempt: Runs a function that opens a node, and may return something else if it fails.
        inside: The passes to run on the operations of a layer, before the layers in it are opened.
        given_rows: The rows of inputs that have more than one for each sample, see `Rows`.

    Returns:
        A graph whose layers all have a rule; the graph itself if none had to be opened.

    Raises:
        UnsupportedLayerError: If a layer cannot be traced.
    """
    opened: dict[int, dict[Hashable, Graph]] = {}
    rows = Rows(given_rows)
    for name in graph.inputs:
        rows.add(graph.nodes[name])

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        def make() -> Replacement:
            opening = _Opening(rewriting.graph(), inside, rows)
            return splice(node, _opened(node, opening, opened), rewriting)

        made = attempt(node, make) if _is_opened(node) else None
        for each in (node,) if made is None else made.nodes:
            rows.add(each)
        return made

    made = replace_nodes(graph, write)
    return graph if made is graph else with_known_shapes(made)


@dataclasses.dataclass(frozen=True)
class _Opening:
    """The surroundings of a layer that is opened: the graph, the passes inside, and the rows."""

    graph: Graph
    inside: Sequence[Pass]
    rows: Rows


def _opened(node: Node, opening: _Opening, opened: dict[int, dict[Hashable, Graph]]) -> Graph:
    """Traces a layer. Equal calls get the same operations, to share its weights."""
    graph = opening.graph
    rows = tuple(map(opening.rows.of, node.inputs))
    known, call = opened.setdefault(id(node.head), {}), (graph.signature(node), rows)
    if call in known:
        return known[call]
    try:
        inner = _traced(node, opening)
    except UnsupportedLayerError as error:
        inner = _inlined(node, opening, error)
    if known and not _has_all_weights(inner, node.head):
        shared = with_operations_of(inner, next(iter(known.values())))
    else:
        shared = inner
    if shared is None:
        raise UnsupportedLayerError(
            "A shared layer computes in different ways for its inputs, so its weights would not "
            "stay shared.",
            layer=node.name,
            received=f"a {type(node.head).__name__}, here with tensors of shape "
            f"{[graph.shape(edge) for edge in node.inputs]}",
            fix="Call it with one shape and the same arguments, or register a rule for it "
            "(`keras_qat.register`).",
        )
    known[call] = shared
    return shared


def _traced(
    node: Node, opening: _Opening, is_inlined: Callable[[Any], bool] | None = None
) -> Graph:
    rows = opening.rows.of
    traced = trace_layer(node, opening.graph, call_of(node.head), is_inlined, rows)
    for error in training_errors(traced):
        raise error
    given = dict(zip(traced.inputs, map(rows, dict.fromkeys(node.inputs)), strict=True))
    last = functools.partial(open_layers, inside=opening.inside, given_rows=given)
    return functools.reduce(lambda graph, rewrite: rewrite(graph), (*opening.inside, last), traced)


def _inlined(node: Node, opening: _Opening, error: UnsupportedLayerError) -> Graph:
    """Traces a layer with the operations of its inner layers, or raises the given error.

    The batch of an inner layer may be a multiple of the model's, it may take weights or return
    None, and a model may be called on other shapes than it was built for. These layers are not
    nodes of a graph.
    """
    if not any(map(_is_inlined, layers_of(node.head, include_self=False))):
        raise error
    try:
        return _traced(node, opening, _is_inlined)
    except UnsupportedLayerError as other:
        # An error of the layer's own `call` does not tell what else is not supported.
        is_own = error.__cause__ is not None and error.layer == node.name
        raise (other if is_own else error) from None


def _is_inlined(layer: Any) -> bool:
    """Returns whether the operations of an inner layer may become part of the layer around it."""
    is_own = type(layer).__module__.startswith("keras.src.")
    if is_model(layer):
        return True
    return not is_own and not is_written_in_ops(layer) and find_rule((layer,)) is None


def _has_all_weights(inner: Graph, layer: keras.layers.Layer) -> bool:
    """Returns whether all weights of a layer belong to layers inside it, which all calls share."""
    found = {
        id(variable)
        for node in inner.nodes.values()
        for variable in getattr(node.head, "trainable_variables", ())
    }
    return found.issuperset(map(id, layer.trainable_variables))


def _is_opened(node: Node) -> bool:
    is_layer = isinstance(node.head, keras.layers.Layer)
    if not is_layer or (isinstance(node.head, QuantizedLayer) and node.head.activation_bits):
        return False
    if is_written_in_ops(node.head):
        args, kwargs = node.arguments
        given = inspect.signature(node.head.call).bind(*args, **kwargs).arguments
        return given.get("mask") is not None or find_rule(node.operations) is None
    if _has_training_mode(node.head) or activation_name(node.head) == "linear":
        return False
    return find_rule(node.operations) is None and refusal(node.head) is None


def _has_training_mode(layer: keras.layers.Layer) -> bool:
    """Returns whether one of Keras's own layers computes something else at training."""
    is_own = type(layer).__module__.startswith("keras.src.")
    return is_own and "training" in inspect.signature(layer.call).parameters
