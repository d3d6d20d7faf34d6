"""Computes the signal-to-noise ratio at the outputs of a model after rounding one tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_qat.checking.computing import computed
from keras_qat.checking.linking import LinkedModel
from keras_qat.graph import Node
from keras_qat.layers.core.modes import float_mode

# Share of the values that count, the smallest ones. Rare outliers could be most of the signal.
_MOST = 0.95
# Smaller variations, relative to an output's largest value, are rounding errors of a constant.
_CONSTANT = 1e-6


class Rounding:
    """Rounds one tensor of a model at a time, and compares the outputs with the float outputs.

    Args:
        linked: The model, with a batch of data.
    """

    def __init__(self, linked: LinkedModel):
        self._linked = linked
        self._reference: list[np.ndarray] | None = None

    def signal_to_noise(self, layer: Any) -> float:
        """Returns the smallest ratio of all outputs, in decibels.

        Signal and noise are measured channel by channel, as mean squares of the 95 % smallest
        values. All channels have the same weight, except constant ones, which are left out.

        Args:
            layer: The layer whose output is rounded to the steps of its range, without clipping.
        """
        scale = float(layer.neighbours.output.grid().scale)

        def rounded(node: Node, result: Any) -> Any:
            """Rounds the output of the layer to the steps of its range."""
            return ops.round(result / scale) * scale if node.head is layer else result

        if self._reference is None:
            self._reference = self._outputs(None)
        pairs = zip(self._reference, self._outputs(rounded), strict=True)
        noise = max((_noise(*pair) for pair in pairs), default=0.0)
        return float("inf") if noise == 0 else -10 * float(np.log10(noise))

    def _outputs(self, change: Callable[[Node, Any], Any] | None) -> list[np.ndarray]:
        """Computes the outputs of the model, with one tensor changed."""
        graph, sample = self._linked.graph, self._linked.sample
        names = {edge.node for edge in graph.output_edges}
        with float_mode():
            return [
                _by_channel(result)
                for node, _, _, result in computed(graph, sample or (), change)
                if node.name in names
            ]


def _by_channel(tensor: Any) -> np.ndarray:
    """Reshapes a tensor to (values, channels)."""
    values = ops.convert_to_numpy(tensor).astype("float64")
    return values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)


def _noise(exact: np.ndarray, rounded: np.ndarray) -> float:
    """Returns the mean ratio of noise to signal over the channels of an output."""
    center = exact.mean(axis=0) if len(exact) > 1 else 0.0
    signal, noise = _usual_square(exact - center), _usual_square(rounded - exact)
    varies = signal > (_CONSTANT * np.abs(exact).max(initial=0.0)) ** 2
    return float((noise[varies] / signal[varies]).mean()) if varies.any() else 0.0


def _usual_square(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the smallest squares of each channel."""
    count = int(np.ceil(_MOST * len(values)))
    return np.mean(np.sort(values**2, axis=0)[:count], axis=0)
