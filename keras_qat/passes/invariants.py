"""The invariants of the graph after each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras

from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.reading import is_model
from keras_qat.layers import ObserveRange, Quantize, QuantizedLayer, QuantizeInput
from keras_qat.layers.core.registry import find_rule
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.layers.models.range_groups import (
    is_contradictory,
    makers,
    output_specification,
    range_groups,
)
from keras_qat.passes.split_activations import has_activation
from keras_qat.passes.split_merges import is_merge_of_many
from keras_qat.passes.split_outputs import IS_SPLIT
from keras_qat.passes.split_separables import is_separable
from keras_qat.passes.stages import Invariant

# Layers that take real values into integers, or observe them.
_CONVERSIONS = (ObserveRange, Quantize, QuantizeInput)


def _no_node(text: str, matches: Callable[[Node], bool]) -> Invariant:
    """Makes the invariant that no node, except inputs, matches."""

    def violations(graph: Graph) -> Iterator[str]:
        calls = (node for node in graph.nodes.values() if not node.is_input)
        return (node.name for node in calls if matches(node))

    return Invariant(text, violations)


def _was_rewritten(node: Node) -> bool:
    return len(node.operations) > 1


def _has_moved_axis(node: Node) -> bool:
    return type(node.head) is keras.layers.BatchNormalization and not BATCH_NORM(node.head)


def _is_fused_without_slice(node: Node) -> bool:
    return len(node.operations) > 1 and find_rule(node.operations) is None


def _is_no_layer(node: Node) -> bool:
    is_one = len(node.operations) == 1 and len(node.shapes) == 1
    return not is_one or not isinstance(node.head, QuantizedLayer)


def _mixed_types(graph: Graph) -> Iterator[str]:
    """Yields the nodes whose integers are signed if those of the first node are not, or not."""
    schemes = {node.name: node.scheme for node in graph.nodes.values() if node.scheme is not None}
    first = next((scheme.is_signed for scheme in schemes.values()), None)
    return (name for name, scheme in schemes.items() if scheme.is_signed != first)


def _without_conversion(graph: Graph) -> Iterator[str]:
    """Yields the integer layers that take a tensor of real values."""
    for node in graph.nodes.values():
        if node.is_input or node.head.scheme is None or isinstance(node.head, _CONVERSIONS):
            continue
        real = [] if node.head.takes_indices else [e for e in node.inputs if not graph.is_plain(e)]
        makers = [graph.nodes[edge.node] for edge in real]
        if any(maker.is_input or maker.head.scheme is None for maker in makers):
            yield node.name


def _without_range(graph: Graph) -> Iterator[str]:
    """Yields the integer tensors that neither have a range nor share one, or share two."""
    groups = range_groups(graph)
    for node in graph.nodes.values():
        group = groups[Edge(node.name)]
        is_ranged = makers(graph, group) and not is_contradictory(graph, group)
        is_real = not graph.is_plain(Edge(node.name))
        if is_real and output_specification(node) is not None and not is_ranged:
            yield node.name


AS_WRITTEN = _no_node("Each node is one operation, as the user wrote it.", _was_rewritten)
ONE_INTEGER_TYPE = Invariant("All nodes have signed integers, or none has.", _mixed_types)
NO_NESTED_MODEL = _no_node("No node is a nested model.", lambda node: is_model(node.head))
NO_SEPARABLE = _no_node("No node is a separable convolution.", is_separable)
LINEAR_KERNELS = _no_node("No layer with a kernel has an activation of its own.", has_activation)
LAST_AXIS = _no_node("Each batch normalization is over the last axis.", _has_moved_axis)
ONE_OUTPUT = _no_node("No node splits a tensor into several.", lambda node: IS_SPLIT(node.head))
MERGES_OF_TWO = _no_node("Each sum, product or maximum takes two tensors.", is_merge_of_many)
FUSED_HAVE_SLICES = _no_node(
    "Operations that became one node have one layer that computes them.", _is_fused_without_slice
)
ONE_LAYER_EACH = _no_node(
    "Each node is the call of one layer of `keras_qat`, which makes one tensor.", _is_no_layer
)
CONVERTED = Invariant(
    "An integer layer takes integers: real values pass a `QuantizeInput` or a `Quantize` first.",
    _without_conversion,
)
RANGED = Invariant(
    "Each integer tensor has one range, which is observed, prescribed, of a weight, or shared.",
    _without_range,
)
