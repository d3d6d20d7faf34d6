"""Layers with a kernel, an optional batch normalization and an activation, in float."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_qat.errors import InvalidModelError
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.channel_affine import ChannelAffine
from keras_qat.layers.core.drop_in import (
    activation_behind,
    activation_config,
    build_like,
    cannot_take_up,
    copy_by_path,
    quiet_config,
    remade,
)
from keras_qat.layers.kernels.batch_statistics import normalized

_NORM_NAME = "batch_normalization"


class Block(QuantizedLayer):
    """A layer with a kernel, its batch normalization and its activation in one layer.

    With a batch normalization the layer has no bias, since the normalization subtracts it.
    `use_bias=True` adds one.

    Args:
        *args: Arguments of the Keras layer; `activation` is applied last.
        batch_norm: Whether a batch normalization follows the kernel, or the arguments of one.
        activation_name: Name of the activation if it was a separate layer, such as in a cloned
            model.
        trainable_kernel: Whether training changes kernel and bias. If not, the batch normalization
            may still be trained.
        **kwargs: Keyword arguments of the Keras layer.
    """

    activation_bits = ()

    def __init__(
        self,
        *args,
        batch_norm: bool | dict = False,
        activation_name: str | None = None,
        trainable_kernel: bool = True,
        **kwargs,
    ):
        signature = inspect.signature(super().__init__)
        if self.keras_class is not None:
            signature = inspect.signature(self.keras_class)
        given = signature.bind_partial(*args, **kwargs).arguments
        if batch_norm and "use_bias" in signature.parameters and "use_bias" not in given:
            kwargs["use_bias"] = False
        super().__init__(*args, **kwargs)
        self.batch_norm = batch_norm
        self.activation_name = activation_name
        self.trainable_kernel = trainable_kernel
        self.batch_normalization: Any = None
        if batch_norm:
            self.batch_normalization = self._make_batch_norm()

    def _make_batch_norm(self) -> keras.layers.Layer:
        config: Any = {} if self.batch_norm is True else self.batch_norm
        if not isinstance(config, dict):
            raise self._bad_batch_norm(f"a {type(config).__name__}")
        kind = ChannelAffine if "trainable_scale" in config else keras.layers.BatchNormalization
        defaults = {
            "name": _NORM_NAME,
            "axis": 1 if self._is_channels_first() else -1,
            "dtype": self.dtype_policy,
            "trainable": self.trainable,
        }
        try:
            return kind.from_config({**defaults, **config})
        except (TypeError, ValueError) as error:  # as Keras raises for unknown arguments
            raise self._bad_batch_norm(str(error)) from error

    def _bad_batch_norm(self, received: str) -> InvalidModelError:
        return InvalidModelError(
            "`batch_norm` does not describe a batch normalization.",
            layer=self.name,
            received=received,
            expected="True, False, or a dict of arguments of keras.layers.BatchNormalization",
            fix='Write `batch_norm=True`, or for example `batch_norm={"momentum": 0.9}`.',
        )

    def build(self, input_shape):
        """Builds the Keras layer and the batch normalization."""
        super().build(input_shape)
        if not self.trainable_kernel:
            for variable in self.variables:
                variable.trainable = False
        if self.batch_normalization is not None:
            self.batch_normalization.build(self.compute_output_shape(input_shape))

    def finish(self, y, training=None):
        """Applies bias, batch normalization and activation in float.

        Args:
            y: Output of the kernel.
            training: Whether the batch normalization normalizes with the batch.

        Returns:
            float32 tensor.
        """
        if self.use_bias:
            y = y + self._spread(self.bias)
        if self.batch_normalization is not None:
            y = normalized(self.batch_normalization, y, training)
        return self.activation(y)

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns the layer with the kernel, its batch normalization and its activation."""
        norm, config = self.batch_normalization, quiet_config(self, self.keras_class)
        is_apart = norm is not None or self.activation_name is not None
        config |= {"activity_regularizer": None} | ({"activation": None} if is_apart else {})
        layers = [self._with_kernel(config)]
        name = f"{self.name}_{_NORM_NAME}"
        if isinstance(norm, ChannelAffine):
            layers.append(norm.to_keras(name if norm.name == _NORM_NAME else norm.name))
        elif norm is not None:
            name = name if norm.name == _NORM_NAME else norm.name
            behind = remade(type(norm), norm, name=name)
            if norm.built:
                build_like(behind, norm)
                copy_by_path(norm, behind)
            layers.append(behind)
        return layers + (activation_behind(self) if is_apart else [])

    def _with_kernel(self, config: dict[str, Any]) -> keras.layers.Layer:
        """Returns the Keras layer with the kernel."""
        is_trained = self.trainable and self.trainable_kernel
        layer = self.keras_class.from_config({**config, "trainable": is_trained})
        if self.built:
            build_like(layer, self)
            copy_by_path(self, layer)
        return layer

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration for a Keras layer, its batch normalization and activation."""
        config, name = quiet_config(head), function_name(head.activation)
        if name != "custom":
            config["activation"] = name
        for follower in followers:
            is_last = function_name(keras.activations.get(config["activation"])) != "linear"
            is_norm = isinstance(follower, keras.layers.BatchNormalization)
            if is_last or (is_norm and "batch_norm" in config):
                raise cannot_take_up(cls, follower)
            if is_norm:
                config["batch_norm"] = norm_config(follower)
            else:
                config |= activation_config(cls, follower)
        return with_trainable(config)

    def copy_from_keras(self, chain: Sequence[Any]) -> None:
        """Copies kernel, bias and batch normalization."""
        copy_by_path(chain[0], self)
        if self.batch_normalization is not None:
            copy_by_path(chain[1], self.batch_normalization)

    def get_config(self):
        """Returns the constructor's arguments."""
        norm = self.batch_normalization
        return {
            **super().get_config(),
            "batch_norm": False if norm is None else norm.get_config(),
            "trainable_kernel": self.trainable_kernel,
            "activation_name": self.activation_name,
        }

    def _is_channels_first(self) -> bool:
        return getattr(self, "data_format", None) == "channels_first"

    def _spread(self, vector):
        """Reshapes a value for each channel to broadcast against the output."""
        if not self._is_channels_first():
            return vector
        return ops.reshape(vector, (-1, *(1,) * len(self.kernel_size)))


def norm_config(norm: keras.layers.BatchNormalization) -> dict[str, Any]:
    """Returns the configuration of a batch normalization inside a block.

    A penalty on its output belongs to the block.

    Args:
        norm: The batch normalization that the block fuses.
    """
    config = {**quiet_config(norm), "dtype": "float32"}
    config.pop("activity_regularizer", None)
    return config


def with_trainable(config: dict[str, Any]) -> dict[str, Any]:
    """Completes a configuration: whether the batch normalization of a frozen layer is trained.

    Args:
        config: Configuration of the kernel's Keras layer, and under `"batch_norm"` that of its
            batch normalization, if there is one.

    Returns:
        The configuration of the block.
    """
    norm = config.get("batch_norm")
    if config.get("trainable", True) or not norm or not norm.get("trainable", True):
        return config
    if not norm.get("trainable_scale", True) and not norm.get("trainable_shift", True):
        return config  # constants
    return {**config, "trainable": True, "trainable_kernel": False}
