"""Describes the origin of the quantization parameters of each tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from keras_qat.checking.statistics import Statistics
from keras_qat.graph import Edge, Graph, Node
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.models.observed_ranges import tensor_name
from keras_qat.layers.models.range_groups import (
    RangeGroup,
    fixed_parameters,
    makers,
    output_specification,
    range_groups,
)
from keras_qat.quantizers import Derived, FixedParameters, RangeObserver


@dataclasses.dataclass(frozen=True)
class TensorRange:
    """The origin of the range of a tensor.

    Attributes:
        tensor: Name of the tensor, which is the name of the layer that makes it.
        source: The origin. `"calibration"`: data will set the range. `"observed"`: `check` has
            observed it on data. `"calibrated"`: calibration or training of a quantized model has
            set it. `"default"`: a quantized model has a default range. `"lacking"`: a quantized
            model has no range for it. `"fixed"`: the kernel prescribes the range. `"weights"`: it
            is the range of a table of weights. `"shared"`: it is the range of other tensors.
            `"float"`: the tensor is not quantized.
        minimum: Smallest value, if observed, calibrated or a default.
        maximum: Largest value.
        shared_with: The tensors that have the same range and are computed, not moved.
        fixed_by: The layer that prescribes a fixed range, with scale and zero point.
    """

    tensor: str
    source: str
    minimum: float | None = None
    maximum: float | None = None
    shared_with: tuple[str, ...] = ()
    fixed_by: str = ""

    def __str__(self):
        others = ", ".join(f"'{name}'" for name in self.shared_with)
        if self.source == "shared":
            return f"shared with {others}"
        own = self.source
        if self.source == "calibration":
            own = "from calibration"
        elif self.source == "weights":
            own = "from the weights"
        elif self.source == "fixed":
            own = f"fixed by {self.fixed_by}"
        elif self.source == "default":
            own = f"default ({self.minimum:.4g}, {self.maximum:.4g})"
        elif self.minimum is not None:
            own = f"{self.source} ({self.minimum:.4g}..{self.maximum:.4g})"
        return f"{own}, shared with {others}" if others else own


def tensor_ranges(
    graph: Graph, statistics: Mapping[RangeObserver, Statistics], is_quantized: bool
) -> dict[str, tuple[TensorRange, ...]]:
    """Returns the origin of the range of each tensor.

    Args:
        graph: A graph of layers. Layers of a quantized model are built.
        statistics: The observed statistics.
        is_quantized: Whether the graph is that of a quantized model, whose ranges are used.

    Returns:
        By the name of each node except inputs: the range of its output, then the ranges of the
        tensors between the operators of its layer.
    """
    groups = range_groups(graph)

    def of_observer(
        name: str, observer: RangeObserver | None, others: tuple[str, ...] = ()
    ) -> TensorRange:
        """Returns the range of a tensor, and where it comes from."""
        if observer is None:  # the layer is not built, because the model is refused
            return TensorRange(name, "calibration", shared_with=others)
        if is_quantized:
            return _at_hand(name, observer, others)
        known = statistics.get(observer)
        if known is None or not known.is_observed:
            return TensorRange(name, "calibration", shared_with=others)
        return TensorRange(name, "observed", known.minimum, known.maximum, others)

    def ranges(node: Node) -> Iterator[TensorRange]:
        """Yields the ranges of a node's output and of the tensors inside its layer."""
        others = _others(graph, groups[Edge(node.name)], node)
        known = _without_observer(graph, node, others)
        if known is not None:
            yield known
        made = node.head.observers()
        for tensor in _observed(node.head):
            observer = made.get(tensor)
            if tensor != "output":
                yield of_observer(tensor_name(node.name, tensor), observer)
            elif known is None:
                yield of_observer(node.name, observer, others)

    nodes = [node for node in graph.nodes.values() if isinstance(node.head, QuantizedLayer)]
    return {node.name: tuple(ranges(node)) for node in nodes}


def _observed(layer: QuantizedLayer) -> list[str]:
    """Returns the names of the tensors of a layer that are observed."""
    specifications = {} if layer.scheme is None else layer.specifications()
    found = specifications.items()
    return [name for name, own in found if own is not None and own.observed is not None]


def _without_observer(graph: Graph, node: Node, others: tuple[str, ...]) -> TensorRange | None:
    """Returns the origin of an output's range, or None if the output has an observer."""
    own, fixed = output_specification(node), fixed_parameters(node)
    if own is None:
        return TensorRange(node.name, "float")
    if fixed is not None:
        by = _prescriber(graph, node, fixed)
        return TensorRange(node.name, "fixed", shared_with=others, fixed_by=by)
    if own.observed is None:
        source = "weights" if isinstance(own, Derived) else "shared"
        return TensorRange(node.name, source, shared_with=others)
    return None


def _at_hand(name: str, observer: RangeObserver, others: tuple[str, ...]) -> TensorRange:
    """Describes a range that a quantized model has, or lacks."""
    source = "default" if observer.is_default else "calibrated"
    if not observer.is_default and not observer.is_observed:
        return TensorRange(name, "lacking", shared_with=others)
    return TensorRange(name, source, *observer.limits, others)


def _others(graph: Graph, group: RangeGroup, node: Node) -> tuple[str, ...]:
    """Returns the other tensors of a group that are computed."""
    return tuple(each.name for each in makers(graph, group) if each.head is not node.head)


def _prescriber(graph: Graph, node: Node, fixed: FixedParameters) -> str:
    """Describes the operator, or the option, that prescribes a range."""
    is_input = graph.nodes[node.inputs[0].node].is_input
    name = "quantized_input_stats" if is_input else node.head.operators[-1]
    denominator = 1 / fixed.scale_value
    is_fraction = denominator >= 2 and denominator == round(denominator)
    scale = f"1/{denominator:.0f}" if is_fraction else f"{fixed.scale_value:.6g}"
    return f"{name}: scale {scale}, zero point {fixed.zero_point_value}"
