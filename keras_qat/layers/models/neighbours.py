"""Gives each layer the quantization parameters of the tensors around it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from keras_qat.errors import InvalidGraphError
from keras_qat.graph import Edge, Graph
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import Parameters
from keras_qat.layers.models.missing_ranges import listing
from keras_qat.layers.models.range_groups import (
    RangeGroup,
    fixed_parameters,
    is_contradictory,
    makers,
    range_groups,
)
from keras_qat.layers.models.table_groups import scale_adjustments
from keras_qat.quantizers import RangeParameters


def assign_params(graph: Graph) -> None:
    """Gives each layer the quantization parameters of its inputs and its output.

    Args:
        graph: A graph in which each node but the inputs is one quantized layer.

    Raises:
        InvalidGraphError: If a node is something else, or tensors with prescribed parameters
            would have to share them with others.
    """
    for node in graph.nodes.values():
        if not node.is_input and not isinstance(node.head, QuantizedLayer):
            raise InvalidGraphError(
                "A quantized model has a layer that is not quantized.",
                layer=node.name,
                received=type(node.head).__name__,
                fix="Make the model with `keras_qat.quantize_model`.",
            )
    groups, least_scales = range_groups(graph), _least_scales(graph)
    adjustments = scale_adjustments(graph, groups)
    parameters: dict[int, Parameters | None] = {}
    for group in groups.values():
        if id(group) not in parameters:
            made = _group_parameters(graph, group, least_scales, adjustments.get(group))
            parameters[id(group)] = made
    for node in graph.nodes.values():
        if not node.is_input:
            inputs = [parameters[id(groups[edge])] for edge in node.inputs]
            node.head.assign_params(inputs, parameters[id(groups[Edge(node.name)])])


def _least_scales(graph: Graph) -> Mapping[Edge, float]:
    """Returns the least scale of each tensor that the operators after it accept."""
    least: dict[Edge, float] = defaultdict(float)
    for node in graph.nodes.values():
        for edge in node.inputs:
            least[edge] = max(least[edge], node.head.least_input_scale)
    return least


def _group_parameters(
    graph: Graph,
    group: RangeGroup,
    least_scales: Mapping[Edge, float],
    adjust: Callable[[Any, Any], Any] | None,
) -> Parameters | None:
    found = makers(graph, group)
    fixed = [node for node in found if fixed_parameters(node) is not None]
    if is_contradictory(graph, group):
        raise InvalidGraphError(
            f"The tensors {listing(map(str, group.edges))} have to share one range, but LiteRT "
            "prescribes that of some of them.",
            layer=fixed[0].head.name,
            fix="Make the model with `keras_qat.quantize_model`, which puts a `Requantize` there.",
        )
    if fixed or not found:
        return fixed_parameters(fixed[0]) if fixed else None
    layers = [node.head for node in found]
    least_scale = max(map(least_scales.__getitem__, group.edges))
    sources = [layer.range_source for layer in layers]
    return RangeParameters(layers[0].scheme, sources, least_scale, adjust)
