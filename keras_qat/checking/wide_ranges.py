"""Findings about ranges of activations that are too wide for most of their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_qat.checking.findings import WARNING, Finding, listing
from keras_qat.checking.linking import LinkedModel
from keras_qat.checking.rounding import Rounding
from keras_qat.checking.statistics import Statistics
from keras_qat.checking.tensors import channel_numbers, is_known, steps_of
from keras_qat.graph import Edge, Graph, Node
from keras_qat.layers import QuantizeInput, Requantize
from keras_qat.layers.models.range_groups import is_shared
from keras_qat.quantizers import RangeParameters

# 16 of 256 steps are 4 of 8 bits. Rounding to fewer steps gives an error of 3 % or more.
_FEW_STEPS = 16
# 8 steps of a channel are 3 of 8 bits. Rounding to fewer steps gives an error of 6 % or more.
_FEW_CHANNEL_STEPS = 8
# In decibels: the noise is a tenth of the deviation of an output.
_LOUD = 20.0
# Each measurement takes a forward pass. More wide ranges mean that data or weights are wrong.
_MOST_MEASURED = 16


class _Wide(NamedTuple):
    """A tensor whose usual values, or whole channels, take few steps of the range.

    Attributes:
        layer: The layer that makes the tensor.
        steps: Number of steps that these values take, divided by the limit for a finding.
        message: The problem.
        fix: A way to fix it.
    """

    layer: Any
    steps: float
    message: str
    fix: str


def wide_activations(linked: LinkedModel) -> Iterator[Finding]:
    """Finds tensors with a range so wide that the outputs lose accuracy.

    Few steps do no harm to a tensor that hardly affects the outputs. With data, each of the found
    tensors is rounded alone. It is reported only if the outputs then have a poor signal-to-noise
    ratio.

    Args:
        linked: The model.

    Yields:
        At most one finding for each tensor.
    """
    found = [wide for layer in linked.layers() for wide in _wide_range(linked, layer)]
    if linked.sample is not None:
        found = list(_loud(linked, found))
    for wide in found:
        place = place_of(linked.graph, wide.layer).user_name, wide.layer.name
        yield Finding(WARNING, "wide-activation-range", *place, wide.message, wide.fix)


def _loud(linked: LinkedModel, found: list[_Wide]) -> Iterator[_Wide]:
    """Measures the most suspect tensors. Yields those that add much noise to the outputs."""
    rounding = Rounding(linked)
    last = sorted(wide.steps for wide in found)[:_MOST_MEASURED]
    for wide in found:
        if wide.steps > last[-1]:
            continue
        ratio = rounding.signal_to_noise(wide.layer)
        if ratio < _LOUD:
            text = f"{wide.message} Rounding it alone leaves the outputs {ratio:.0f} dB of "
            yield wide._replace(message=text + "signal to noise.")


def _wide_range(linked: LinkedModel, layer: Any) -> Iterator[_Wide]:
    """Yields at most one problem of the range of a layer's output."""
    known, parameters = linked.statistics.get(layer.observer), layer.neighbours.output
    if known is None or not isinstance(parameters, RangeParameters) or not is_known(parameters):
        return
    scale = float(parameters.grid().scale)
    steps = known.typical_width / scale
    joint = _joint(linked.graph, layer.name)
    own_steps = (max(known.maximum, 0.0) - min(known.minimum, 0.0)) / scale
    if joint is not None and 0 < own_steps < _FEW_STEPS:
        yield _of_part(linked.graph, layer, *joint, own_steps)
    elif 0 < steps < _FEW_STEPS:
        yield _of_values(layer, known, steps)
    elif known.channel_width is not None:
        yield from _of_channels(linked.graph, layer, known.channel_width, scale)


def _of_part(graph: Graph, layer: Any, joint: Node, branch: str, steps: float) -> _Wide:
    """Describes a tensor that takes few steps of a range that it shares with others."""
    part = place_of(graph, layer).user_name
    others = [graph.nodes[edge.node].user_name for edge in joint.inputs if edge.node != branch]
    return _Wide(
        layer,
        steps / _FEW_STEPS,
        f"'{part}' takes {steps:.1f} of {steps_of(layer)} steps of the range that it shares with "
        f"{listing(others)}.",
        _way_out(graph, joint, [part, joint.user_name], _is_output(graph, joint)),
    )


def _joint(graph: Graph, name: str) -> tuple[Node, str] | None:
    """Returns the last layer that joins a tensor with others in one range, such as a concatenation.

    Args:
        graph: The graph.
        name: Name of the node that makes the tensor.

    Returns:
        The layer, and the name of its input that has the tensor. None if no layer joins it.
    """
    for node in graph.consumers().get(Edge(name), ()):
        if is_shared(node):
            found = _joint(graph, node.name)
            if found is not None:
                return found
            if len(set(node.inputs)) > 1:
                return node, name
    return None


def _is_output(graph: Graph, node: Node) -> bool:
    return any(edge.node == node.name for edge in graph.output_edges)


def _of_values(layer: Any, known: Statistics, steps: float) -> _Wide:
    """Describes a tensor whose usual values take few steps."""
    channel = int(known.channel_maximum.argmax())
    whose = "98 % of its values"
    if not known.is_observed:
        whose = "half of its channels, according to their batch normalization,"
    return _Wide(
        layer,
        steps / _FEW_STEPS,
        f"The range is so wide that {whose} fall into {steps:.1f} of {steps_of(layer)} steps. "
        f"The largest value, {known.channel_maximum[channel]:.4g}, is in channel {channel}.",
        "Bound the values, with relu6 or a penalty (`activity_regularizer`); or leave "
        "outliers out of the calibration data.",
    )


def _of_channels(graph: Graph, layer: Any, widths: np.ndarray, scale: float) -> Iterator[_Wide]:
    """Finds channels that take only few steps of a range, because other channels make it wide.

    At inputs and outputs of the model one narrow channel is enough. Inside the model many channels
    are seldom active, so at least half of the channels have to be narrow.
    """
    place, live = place_of(graph, layer), widths[widths > 0]
    narrow = (widths > 0) & (widths / scale < _FEW_CHANNEL_STEPS)
    node = next(each for each in graph.nodes.values() if each.head is layer)
    is_output = _is_output(graph, node)
    is_end = place.is_input or is_output
    if not narrow.any() or not (is_end or 2 * narrow.sum() >= live.size):
        return
    steps, widest = float(widths[narrow].min() / scale), int(widths.argmax())
    yield _Wide(
        layer,
        (steps if is_end else float(np.median(live)) / scale) / _FEW_CHANNEL_STEPS,
        f"The channels have one range, and channel {widest}, as wide as {widths[widest]:.4g}, "
        f"makes it so wide that others take few of its {steps_of(layer)} steps, as few as "
        f"{steps:.1f}: {channel_numbers(np.flatnonzero(narrow))}.",
        _way_out(graph, node, [] if place.is_input else [place.user_name], is_output),
    )


def _way_out(graph: Graph, node: Node, makers: list[str], is_output: bool) -> str:
    """Suggests layers to leave in float, or separate outputs."""
    if not is_output:
        floats = ", ".join(f'"{name}": None' for name in (*makers, *_takers(graph, node.name)))
        return f"Leave the layers that scale the channels in float: `overrides={{{floats}}}`."
    if len(set(node.inputs)) > 1:
        parts = dict.fromkeys(graph.nodes[edge.node].user_name for edge in node.inputs)
        outputs = ", ".join(f'model.get_layer("{name}").output' for name in parts)
        return (
            f"Make separate outputs of the tensors that '{node.user_name}' joins: "
            f"`keras.Model(model.inputs, [{outputs}])`."
        )
    return "Compute channels of different size in separate layers, as separate outputs."


def _takers(graph: Graph, name: str) -> Iterator[str]:
    """Yields the names of source layers that round a tensor, or move and round it."""
    for node in graph.consumers().get(Edge(name), ()):
        is_conversion = isinstance(node.head, (QuantizeInput, Requantize))
        affine = getattr(node.head, "input_affine", None)
        if not is_conversion:
            yield node.user_name if affine is None else affine.name
        if is_conversion or is_shared(node):
            yield from _takers(graph, node.name)


def place_of(graph: Graph, layer: Any) -> Node:
    """Returns the node of the source model that makes a tensor: an input, or a layer.

    Args:
        graph: A graph of layers.
        layer: One of the layers. For a conversion between two ranges, the node that makes its input
            is returned.
    """
    node = next(each for each in graph.nodes.values() if each.head is layer)
    while not node.is_input and isinstance(node.head, (QuantizeInput, Requantize)):
        node = graph.nodes[node.inputs[0].node]
    return node
