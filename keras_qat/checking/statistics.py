"""Statistics of tensors: observed on data, or estimated from batch normalizations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.checking.computing import computed
from keras_qat.data.batches import Batch
from keras_qat.graph import Graph
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.modes import float_mode
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.quantizers import RangeObserver

# Number of deviations. One in a billion of normally distributed values is further from the mean.
_DEVIATIONS = 6.0
# Number of values of a tensor that are drawn from each batch for quantiles.
_SAMPLE = 8192
# Share of the values that is left out at each end. These are rare enough to be clipped. It is more
# than one of 128 samples.
_TAIL = 0.01
# A channel with fewer values has no known width.
_FEW_VALUES = 32


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of the values of a tensor.

    Attributes:
        is_observed: Whether the values were observed on data; False for an estimate.
        minimum: Smallest value.
        maximum: Largest value.
        channel_maximum: float32 array, largest value of each channel of the last axis.
        count: Number of observed values of each channel; 0 for an estimate.
        typical_width: Width of the range of 98 % of the values that are not 0, extended to hold 0
            if 0 is among them. For an estimate, the width for half of the channels.
        channel_width: float32 array, width of the range of each channel, extended to hold 0. It is
            0 for a channel with few values other than 0. None for an estimate.
    """

    is_observed: bool
    minimum: float
    maximum: float
    channel_maximum: np.ndarray
    count: int
    typical_width: float
    channel_width: np.ndarray | None = None


def estimated(graph: Graph) -> dict[RangeObserver, Statistics]:
    """Estimates the outputs of batch normalizations from their factors and offsets.

    If the statistics of a batch normalization match its inputs, its outputs have the mean
    `beta` and the deviation `gamma`. Each channel is assumed to reach six deviations from its mean.
    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", 2019, https://arxiv.org/abs/1906.04721.

    Args:
        graph: A graph of built layers.

    Returns:
        Statistics of the outputs of layers with a batch normalization, by their observers.
    """
    heads = (node.head for node in graph.nodes.values())
    return {head.observer: _estimate(head) for head in heads if _is_normalized(head)}


def _is_normalized(layer: Any) -> bool:
    """Returns whether a layer has a batch normalization after its kernel."""
    if not isinstance(layer, WeightedLayer) or layer.observer is None:
        return False
    return type(layer.batch_normalization) is keras.layers.BatchNormalization


def _estimate(layer: Any) -> Statistics:
    """Estimates the statistics of a layer's output from its batch normalization."""
    low, high = _reach(layer, -_DEVIATIONS), _reach(layer, _DEVIATIONS)
    name, unclipped = function_name(layer.activation), high
    if name in ("relu", "relu6"):
        low, high = np.maximum(low, 0), np.maximum(high, 0)
    if name == "relu6":
        low, high = np.minimum(low, 6), np.minimum(high, 6)
    widths = np.maximum(high, 0) - np.minimum(low, 0)
    live = widths[widths > 0]
    return Statistics(
        is_observed=False,
        minimum=float(low.min()),
        maximum=float(high.max()),
        channel_maximum=unclipped,
        count=0,
        typical_width=float(np.median(live)) if live.size else 0.0,
    )


def may_be_positive(layer: Any, deviations: float) -> np.ndarray | None:
    """Returns whether the batch normalization of each channel gives values above 0.

    Args:
        layer: A built layer.
        deviations: The number of deviations from its mean that a channel reaches.

    Returns:
        Array of booleans, or None for a layer without a batch normalization.
    """
    return _reach(layer, deviations) > 0 if _is_normalized(layer) else None


def _reach(layer: Any, deviations: float) -> np.ndarray:
    """Returns the value that is a number of deviations above the mean, for each channel."""
    norm = layer.batch_normalization
    channels = norm.moving_variance.shape
    mean = ops.convert_to_numpy(norm.beta) if norm.center else np.zeros(channels, "float32")
    deviation = np.abs(ops.convert_to_numpy(norm.gamma)) if norm.scale else np.ones(channels)
    return mean + deviations * deviation


def observed(graph: Graph, data: Iterable[Batch]) -> dict[RangeObserver, Statistics]:
    """Observes the tensors that layers of a graph compute in float.

    Args:
        graph: A graph of built layers.
        data: Batches of its inputs.

    Returns:
        Statistics of each tensor that has an observer.
    """
    found: dict[RangeObserver, _Observed] = {}
    with float_mode():
        for batch in data:
            for observer, values in _observable(graph, batch):
                if observer not in found:
                    found[observer] = _Observed(values.shape[-1])
                found[observer].add(values)
    return {observer: each.statistics() for observer, each in found.items()}


class _Observed:
    """Collects the statistics of a tensor over batches."""

    def __init__(self, channels: int):
        self._lows = np.full(channels, np.inf, "float32")
        self._highs = np.full(channels, -np.inf, "float32")
        self._nonzeros = np.zeros(channels, "int64")
        self._count, self._has_zeros = 0, False
        self._samples: list[np.ndarray] = []
        self._rng = np.random.default_rng(0)

    def add(self, values: np.ndarray) -> None:
        """Adds a batch, with channels on the last axis."""
        by_channel = values.reshape(-1, values.shape[-1])
        self._lows = np.minimum(self._lows, by_channel.min(axis=0))
        self._highs = np.maximum(self._highs, by_channel.max(axis=0))
        self._nonzeros += np.count_nonzero(by_channel, axis=0)
        self._count += values.size // values.shape[-1]
        sample = values.ravel()[self._rng.integers(0, values.size, _SAMPLE)]
        self._has_zeros = self._has_zeros or not sample.all()
        self._samples.append(sample[(sample != 0) & np.isfinite(sample)])

    def statistics(self) -> Statistics:
        values = np.concatenate(self._samples)
        ends = np.quantile(values, [_TAIL, 1 - _TAIL]) if values.size else np.zeros(2)
        if self._has_zeros:
            ends = np.append(ends, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):  # values may have overflowed
            widths = np.maximum(self._highs, 0) - np.minimum(self._lows, 0)
        return Statistics(
            is_observed=True,
            minimum=float(self._lows.min()),
            maximum=float(self._highs.max()),
            channel_maximum=self._highs,
            count=self._count,
            typical_width=float(ends.max() - ends.min()),
            channel_width=np.where(self._nonzeros >= _FEW_VALUES, widths, 0),
        )


def _observable(graph: Graph, batch: Batch) -> Iterator[tuple[RangeObserver, np.ndarray]]:
    """Yields each tensor that has an observer."""
    for node, args, kwargs, result in computed(graph, batch):
        for name, observer in node.head.observers().items():
            is_output = name == "output"
            value = result if is_output else node.head.inner_tensor(name, *args, **kwargs)
            yield observer, ops.convert_to_numpy(value)
