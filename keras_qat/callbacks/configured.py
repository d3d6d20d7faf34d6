"""The base class of the callbacks: arguments that are saved, and the layers of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from keras_qat.errors import InvalidTrainingError
from keras_qat.graph.keras_internals import layers_of
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.kernels.weighted import WeightedLayer


class ConfiguredCallback(keras.callbacks.Callback):
    """A callback with a configuration, so that Keras can serialize it.

    Args:
        **config: The arguments of the subclass.
    """

    def __init__(self, **config: Any):
        super().__init__()
        self._config = config

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return dict(self._config)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ConfiguredCallback:
        """Makes the callback of a configuration."""
        return cls(**config)

    def quantized_layers(self) -> Iterator[QuantizedLayer]:
        """Yields the quantized layers of the model in training, also of models inside it."""
        for layer in layers_of(self.model):
            if isinstance(layer, QuantizedLayer) and layer.scheme is not None:
                yield layer

    def trained_kernels(self) -> Iterator[WeightedLayer]:
        """Yields the quantized layers whose kernels are trained."""
        for layer in self.quantized_layers():
            is_own = isinstance(layer, WeightedLayer) and isinstance(layer.kernel, keras.Variable)
            if is_own and layer.trainable and layer.kernel.trainable:
                yield layer


def check_between(name: str, value: Any, low: float, high: float) -> None:
    """Raises if an argument of a callback is not in (low, high].

    Args:
        name: Name of the argument.
        value: Its value.
        low: The lower limit.
        high: The upper limit.

    Raises:
        InvalidTrainingError: If the value is not within the limits.
    """
    if not isinstance(value, int | float) or not low < value <= high:
        raise InvalidTrainingError(
            "An argument of the callback is out of its limits.",
            received=f"{name}={value!r}",
            expected=f"{low} < {name} <= {high}",
            fix=f"Leave `{name}` out, or pass a number within the limits.",
        )
