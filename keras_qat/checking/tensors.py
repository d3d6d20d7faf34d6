"""Findings about the values of weights, biases and sums."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_qat.checking.findings import WARNING, Finding, error_finding, listing
from keras_qat.checking.linking import LinkedModel
from keras_qat.checking.statistics import Statistics, may_be_positive
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.channel_affine import ChannelAffine
from keras_qat.layers.kernels.batch_normalization import batch_norm_of
from keras_qat.layers.kernels.integer_weights import (
    FoldedWeights,
    bias_pressure,
    scaled_axes,
    summed_axes,
)
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.quantizers import RangeObserver, RangeParameters

# 16 of 256 steps are 4 of 8 bits. Rounding to fewer steps gives an error of 3 % or more.
_FEW_STEPS = 16
# A factor of 2 halves the number of steps, which costs one bit of the weights.
_LARGEST_FACTOR = 2.0
# One scale for all channels would round smaller weights to 0.
_HARDLY_ANY = 1.0 / 256
# With fewer values, a channel that is seldom active would look dead.
_ENOUGH_VALUES = 1000


class _Channels(NamedTuple):
    """The folded weights of a layer, channel by channel.

    Attributes:
        folded: The weights.
        extremes: The folded weights, with only the smallest and the largest weight of each channel.
        low: float32 array, smallest weight of each output channel.
        high: float32 array, largest weight of each output channel.
    """

    folded: FoldedWeights
    extremes: FoldedWeights
    low: np.ndarray
    high: np.ndarray

    @property
    def is_zero(self) -> np.ndarray:
        """Whether all weights of each channel are 0."""
        return (self.low == 0) & (self.high == 0)


def weight_findings(linked: LinkedModel) -> Iterator[Finding]:
    """Finds channels that compute nothing, and scales that are too large for their weights.

    Args:
        linked: The model.

    Yields:
        At most one finding of each code for each layer.
    """
    for layer in linked.layers():
        if isinstance(layer, WeightedLayer):
            channels = _channels(layer)
            yield from _dead_channels(layer, channels, linked.statistics.get(layer.observer))
            yield from _wasted_range(layer, channels)
            yield from _saturating_bias(layer, channels)


def _channels(layer: Any) -> _Channels:
    folded = layer.folded_weights()
    axes = summed_axes(folded.kernel, folded.channel_axes)
    ends = [function(folded.kernel, axis=axes, keepdims=True) for function in (ops.min, ops.max)]
    low, high = map(ops.convert_to_numpy, ends)
    # The scales of a kernel follow from its extremes.
    extremes = folded._replace(kernel=np.concatenate([low, high], axis=axes[0]))
    return _Channels(folded, extremes, low.reshape(-1), high.reshape(-1))


def _dead_channels(layer: Any, channels: _Channels, known: Statistics | None) -> Iterator[Finding]:
    """Finds output channels that are constant."""
    reasons = []
    zero = np.flatnonzero(channels.is_zero & ~_is_constant(layer))
    if zero.size:
        reasons.append(f"only zero weights, with batch normalization: {channel_numbers(zero)}")
    if function_name(layer.activation) in ("relu", "relu6"):
        silent, why = _silent(layer, known)
        silent = np.flatnonzero(silent & ~channels.is_zero)
        if silent.size:
            reasons.append(f"{why}: {channel_numbers(silent)}")
    if reasons:
        yield Finding(
            WARNING,
            "dead-channel",
            layer.name,
            layer.name,
            f"Of {len(channels.low)} output channels some are constant: {'; '.join(reasons)}.",
            "Remove them from the layer and from its consumers, or train the model until they "
            "are used: they cost as much as other channels.",
        )


def _is_constant(layer: Any) -> bool:
    """Returns whether the model itself multiplies by 0, to make a constant for each sample."""
    norm = batch_norm_of(layer)
    is_affine = isinstance(norm, ChannelAffine) and not norm.trainable_scale
    return is_affine and not np.any(ops.convert_to_numpy(norm.gamma))


def _silent(layer: Any, known: Statistics | None) -> tuple[Any, str]:
    """Returns the channels that are never above 0, and the evidence.

    Batch normalizations have statistics of more data than `check` has, so they are used too.
    """
    if known is None or (known.is_observed and known.count < _ENOUGH_VALUES):
        return False, ""
    silent = known.channel_maximum <= 0
    if not known.is_observed:
        reason = "according to the batch normalization (beta + 6 |gamma| <= 0)"
        return silent, f"never above 0 {reason}"
    why, likely = f"never above 0 in {known.count:,} observed values", may_be_positive(layer, 3)
    if likely is None:
        return silent, why
    reason = "and according to the batch normalization (beta + 3 |gamma| <= 0)"
    return silent & ~likely, f"{why} {reason}"


def _wasted_range(layer: Any, channels: _Channels) -> Iterator[Finding]:
    """Finds a scale for all channels that the widest channel makes too large for the others."""
    folded, scheme = channels.folded, layer.scheme
    is_single = scaled_axes(folded.kernel, folded.channel_axes, scheme) is None
    live = ~channels.is_zero
    if not is_single or not live.any():
        return
    if scheme.weight_symmetric:
        widths = np.maximum(-channels.low, channels.high)
        whole = widths.max()
    else:
        low, high = np.minimum(channels.low, 0), np.maximum(channels.high, 0)
        widths, whole = high - low, high.max() - low.min()
    narrow = np.quantile(widths[live], 0.5, method="lower")  # not the mean of two channels
    steps = float(narrow / whole * scheme.weight_steps)
    if steps < _FEW_STEPS:
        widest = int(widths.argmax())
        yield Finding(
            WARNING,
            "wasted-weight-range",
            layer.name,
            f"{layer.name}/kernel",
            f"The weights have one scale, and channel {widest}, with weights from "
            f"{channels.low[widest]:.4g} to {channels.high[widest]:.4g}, is so wide that half of "
            f"the channels get no more than {steps:.1f} of {scheme.weight_steps} steps.",
            f'Quantize with scheme="int8", which has a scale for each channel; or make the weights '
            f"of channel {widest} smaller, and the factor after it larger.",
        )


def _saturating_bias(layer: Any, channels: _Channels) -> Iterator[Finding]:
    """Finds a bias that makes the scale of the weights larger than the weights need.

    Channels do not count if their weights cannot change the output by a step and are tiny compared
    with the weights of other channels. Such channels lose nothing.
    """
    source, output = layer.neighbours.inputs[0], layer.neighbours.output
    if not is_known(source) or not is_known(output):
        return
    scales = source.grid().scale, output.grid().scale
    factor = bias_pressure(channels.extremes, *scales, layer.scheme).factor
    if factor.max() <= _LARGEST_FACTOR:
        return
    axes = summed_axes(channels.folded.kernel, channels.folded.channel_axes)
    total = np.reshape(ops.sum(ops.abs(channels.folded.kernel), axis=axes), -1)
    moved = total * (steps_of(layer) * float(scales[0]) / float(scales[1]))
    is_used = (moved >= 1) | (total > total.max() * _HARDLY_ANY)
    raised = np.flatnonzero((factor > _LARGEST_FACTOR) & is_used)
    if raised.size:
        factor = np.broadcast_to(factor, total.shape)[raised].max()
        bias = np.abs(ops.convert_to_numpy(channels.folded.offset + channels.folded.shifted))
        worst = int(bias.argmax())
        yield Finding(
            WARNING,
            "bias-saturates",
            layer.name,
            f"{layer.name}/bias",
            f"A bias as large as {bias[worst]:.4g} (channel {worst}) does not fit in 32 bits at "
            f"the scale that the weights need. It makes the scale {factor:.3g} times larger, which "
            f"leaves that many times fewer steps for the weights of {channel_numbers(raised)}.",
            'Leave the bias out (the rewrite "drop_bias"), or scale the input of the layer up.',
        )


def sums_too_large(linked: LinkedModel) -> Iterator[Finding]:
    """Finds layers that would make an export fail with the observed ranges.

    Args:
        linked: The model.

    Yields:
        One error for each layer.
    """
    for layer in linked.layers():
        if not isinstance(layer, WeightedLayer):
            continue
        known = linked.statistics.get(layer.observer)
        is_observed = linked.is_quantized or (known is not None and known.is_observed)
        if (
            is_observed
            and is_known(layer.neighbours.inputs[0])
            and is_known(layer.neighbours.output)
        ):
            try:
                layer.lower_weights()
            except UnsupportedLayerError as error:
                yield error_finding(error)


def steps_of(layer: Any) -> int:
    """Returns the number of steps in the range of an activation."""
    return layer.scheme.activation_high - layer.scheme.activation_low


def is_known(parameters: Any) -> bool:
    """Returns whether the range of a tensor is known: measured, estimated or prescribed.

    Args:
        parameters: Its quantization parameters; None for a tensor that is not quantized.
    """
    if not isinstance(parameters, RangeParameters):
        return parameters is not None
    sources = [source for source in parameters.observers if isinstance(source, RangeObserver)]
    return all(source.is_observed or source.is_default for source in sources)


def channel_numbers(channels: np.ndarray) -> str:
    """Returns a list of channels as text."""
    noun = "channel" if channels.size == 1 else f"{channels.size} channels,"
    return f"{noun} {listing(channels.tolist())}"
