"""Cross-layer equalization: moves factors of channels from one layer's weights to the next's."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import on_one_replica
from keras_qat.calibration.observing import check_width
from keras_qat.data.batches import Batch
from keras_qat.graph import Edge, Graph, Node, read_model
from keras_qat.graph.reading import tensors_by_edge
from keras_qat.layers import (
    QAveragePooling1D,
    QAveragePooling2D,
    QDropout,
    QGaussianDropout,
    QGlobalAveragePooling1D,
    QGlobalAveragePooling2D,
    QGlobalMaxPooling1D,
    QGlobalMaxPooling2D,
    QLeakyReLU,
    QMaxPooling1D,
    QMaxPooling2D,
    QPad,
    QPReLU,
    QReLU,
    QSpatialDropout1D,
    QSpatialDropout2D,
    QuantizedModel,
)
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.modes import float_mode
from keras_qat.layers.kernels.integer_weights import channel_shape, summed_axes
from keras_qat.layers.kernels.rescaling import output_variables, scale_inputs, scale_outputs
from keras_qat.layers.kernels.weighted import WeightedLayer

# Layers without a kernel that pass a positive factor of a channel on to their output. An activation
# of the layer may prevent this, see `_cap`.
_HOMOGENEOUS = (
    QAveragePooling1D,
    QAveragePooling2D,
    QDropout,
    QGaussianDropout,
    QGlobalAveragePooling1D,
    QGlobalAveragePooling2D,
    QGlobalMaxPooling1D,
    QGlobalMaxPooling2D,
    QLeakyReLU,
    QMaxPooling1D,
    QMaxPooling2D,
    QPReLU,
    QPad,
    QReLU,
    QSpatialDropout1D,
    QSpatialDropout2D,
)
# The largest value that an activation passes on unchanged.
_CAPS = {"linear": np.inf, "relu": np.inf, "relu6": 6.0}
_MOST_ROUNDS = 30
_CONVERGED = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """Two layers with a kernel, with nothing between them that mixes or caps channels.

    Attributes:
        first: The layer whose output channels are divided.
        second: The layer whose input channels are multiplied.
        edge: The output of the first layer.
        cap: The largest value that the activations between both pass on, infinite without a cap.
    """

    first: WeightedLayer
    second: WeightedLayer
    edge: Edge
    cap: float


def equalize(model: QuantizedModel, data: Iterable[Batch]) -> None:
    """Gives the channels between consecutive layers with a kernel ranges of similar size.

    A channel is divided by a factor in the first layer, and multiplied by it in the weights of the
    second. The float function of the model stays the same, also at training. The factor of a
    channel is the root of the ratio of both ranges of weights, as in "Data-Free Quantization
    through Weight Equalization and Bias Correction" (Nagel et al. 2019,
    https://arxiv.org/abs/1906.04721). A chain of layers is balanced by repetition.

    The data limits the factors in two ways. No channel becomes larger than the largest one of its
    tensor was. Under a ReLU6, no channel that stays below 6 on the data gets beyond it, and a
    channel that reaches 6 keeps its size.

    Args:
        model: A quantized model.
        data: Batches of its inputs.

    Raises:
        InvalidDataError: If the values of a tensor overflow float32. The model is not changed.
    """
    pairs = list(find_pairs(read_model(model)))
    if not pairs:
        return
    sizes = _channel_sizes(model, [pair.edge for pair in pairs], data)
    factors = _factors(pairs, sizes)
    for pair, factor in zip(pairs, factors, strict=True):
        scale_outputs(pair.first, 1.0 / factor)
        scale_inputs(pair.second, factor)


def find_pairs(graph: Graph) -> Iterator[Pair]:
    """Yields the pairs of layers that can be equalized, in the order of the graph.

    Both layers are quantized. The tensors between them have no other consumer, and no other layer
    uses the variables of the two.

    Args:
        graph: A graph of quantized layers.
    """
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    layers = [node.head for node in graph.nodes.values() if not node.is_input]
    uses = Counter(id(variable) for layer in layers for variable in layer.variables)
    for node in graph.nodes.values():
        first, edge = node.head, Edge(node.name)
        cap = _cap(node)
        if not _is_quantized(first) or not output_variables(first):
            continue
        while cap and edge not in outputs and len(consumers.get(edge, ())) == 1:
            (taker,) = consumers[edge]
            second = taker.head
            if isinstance(second, WeightedLayer):
                if (
                    _is_quantized(second)
                    and _takes_factors(second)
                    and not _shares([first, second], uses)
                ):
                    yield Pair(first, second, Edge(node.name), cap)
                break
            cap, edge = min(cap, _cap(taker)), Edge(taker.name)


def _cap(node: Node) -> float:
    """Returns the largest value that a layer passes on, or 0 if factors do not pass through it."""
    layer = node.head
    is_padded = isinstance(layer, QPad) and layer.value
    if not isinstance(layer, (WeightedLayer, *_HOMOGENEOUS)) or is_padded:
        return 0.0
    activation = keras.activations.get(getattr(layer, "activation", None))
    return _CAPS.get(function_name(activation), 0.0)


def _is_quantized(layer: Any) -> bool:
    return isinstance(layer, WeightedLayer) and layer.scheme is not None


def _takes_factors(layer: WeightedLayer) -> bool:
    """Returns whether a layer has a variable that multiplies its input, and no offset before it."""
    is_variable = any(layer.kernel is variable for variable in layer.variables)
    return is_variable and layer.input_affine is None


def _shares(layers: list[Any], uses: Counter[int]) -> bool:
    """Returns whether other layers use a variable of these layers."""
    return any(uses[id(variable)] > 1 for layer in layers for variable in layer.variables)


class _ChannelSizes(keras.layers.Layer):
    """The largest magnitude of each channel over a batch."""

    def call(self, inputs):
        """Reduces all axes but the last."""
        return ops.max(ops.abs(inputs), axis=tuple(range(len(inputs.shape) - 1)))


def _channel_sizes(
    model: QuantizedModel, edges: list[Edge], data: Iterable[Batch]
) -> list[np.ndarray]:
    """Returns the largest magnitude of each channel of some tensors, in float."""
    tensors = tensors_by_edge(model)
    sizes_of = [
        _ChannelSizes(dtype="float32", name=f"keras_qat_sizes_{i}")(tensors[edge])
        for i, edge in enumerate(edges)
    ]
    sizes: list[np.ndarray] = []
    with float_mode():
        compute = on_one_replica(keras.Model(model.inputs, sizes_of))
        for batch in data:
            found = [np.asarray(each, "float64") for each in keras.tree.flatten(compute([*batch]))]
            sizes = found if not sizes else list(map(np.maximum, sizes, found))
    for edge, size in zip(edges, sizes, strict=True):
        check_width(edge.node, 0.0, size.max())
    return sizes


def _factors(pairs: list[Pair], sizes: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the factor of each channel of each pair."""
    layers = {layer for pair in pairs for layer in (pair.first, pair.second)}
    weights = {layer: _magnitudes(layer) for layer in layers}
    factors = [np.ones_like(size) for size in sizes]
    for _ in range(_MOST_ROUNDS):
        largest = 0.0
        for pair, size, factor in zip(pairs, sizes, factors, strict=True):
            step = _step(pair, weights, size, factor)
            factor *= step
            largest = max(largest, np.abs(np.log(step)).max())
            shape = channel_shape(weights[pair.first], pair.first.channel_axes)
            weights[pair.first] /= step.reshape(shape)
            weights[pair.second] *= pair.second.kernel_operator.spread_inputs(pair.second, step)
        if largest < _CONVERGED:
            break
    return factors


def _magnitudes(layer: WeightedLayer) -> np.ndarray:
    """Returns the magnitudes of the folded weights."""
    return np.abs(ops.convert_to_numpy(layer.folded_weights().kernel)).astype("float64")


def _step(pair: Pair, weights: dict, size: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Returns the factors that balance a pair, starting from its present factors."""
    first, second = weights[pair.first], weights[pair.second]
    before = first.max(axis=summed_axes(first, pair.first.channel_axes)).reshape(-1)
    after = _largest_by_input(pair.second, second, len(before))
    is_free = (before > 0) & (after > 0)
    ratio = np.where(is_free, before, 1.0) / np.where(is_free, after, 1.0)
    step = np.sqrt(ratio)
    step /= np.exp(np.log(step[is_free]).mean()) if is_free.any() else 1.0
    # `size` is that of the original weights.
    least = size / min(pair.cap, size.max() or 1.0) / factor
    return np.where(is_free & (size < pair.cap), np.maximum(step, least), 1.0)


def _largest_by_input(layer: WeightedLayer, weights: np.ndarray, channels: int) -> np.ndarray:
    """Returns the largest weight of each input channel."""
    places = layer.kernel_operator.spread_inputs(layer, np.arange(channels))
    found = np.zeros(channels)
    np.maximum.at(found, np.broadcast_to(places, weights.shape), weights)
    return found
