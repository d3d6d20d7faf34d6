"""Conversion of one layer of a Keras 2 file to a layer of Keras 3."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import keras

from keras_qat.errors import InvalidFileError, InvalidFileWarning, warn_user
from keras_qat.loading.files.failures import about_layer
from keras_qat.loading.files.lambdas import lambda_config
from keras_qat.loading.files.safety import check_class
from keras_qat.loading.files.source import Source
from keras_qat.loading.keras2.activations import CHANGED, thresholded_relu
from keras_qat.loading.keras2.migrations import migrate
from keras_qat.loading.tensorflow.operations import function_named
from keras_qat.loading.tensorflow.operators import operator_function

# Layers that call functions. They become operations of `keras.ops`, and keep lists of one input.
FUNCTION_LAYERS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "ThresholdedReLU")
# Layers that `model.add_loss` and `model.add_metric` left in the graph. They return their input.
_ENDPOINTS = ("AddLoss", "AddMetric")
FUNCTION_LAYERS += _ENDPOINTS
# Classes of functional models in the versions of Keras.
GRAPHS = ("Container", "Functional", "Model", "Network")
_FIX = "See docs/loading.md for what is read of old files."
_ACTIVATIONS = ("activation", "recurrent_activation")
_LAYERS = ("layer", "backward_layer", "cell")
_GETTERS = {
    "_initializer": keras.initializers.get,
    "_regularizer": keras.regularizers.get,
    "_constraint": keras.constraints.get,
}
_TAKES_LISTS = ("concat", "stack", "math.add_n")


def make_function(class_name: str, config: dict[str, Any]) -> Callable[..., Any]:
    """Returns the function that a layer of `FUNCTION_LAYERS` stands for."""
    name = str(config.get("name"))
    if class_name == "TensorFlowOpLayer":
        return operator_function(config)
    if class_name == "ThresholdedReLU":
        theta = float(config.get("theta", 1.0))
        return _of_one(lambda inputs, **_: thresholded_relu(inputs, theta))
    if class_name in _ENDPOINTS:
        warn_user(
            f"The loss or metric that layer '{name}' of the file adds is not read: Keras 3 has no "
            "such layer. Add it again before training.",
            InvalidFileWarning,
        )
        return _of_one(lambda inputs, **_: inputs)
    called = config.get("function")
    function = function_named(called, name)
    return function if str(called).removeprefix("compat.v1.") in _TAKES_LISTS else _of_one(function)


def _of_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function to accept a list of one input, as some versions wrote it."""

    def call(inputs: Any, **kwargs: Any) -> Any:
        single = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
        return function(single, **kwargs)

    return call


class LayerMaker:
    """Makes the layers of one file.

    Args:
        source: The file.
        make_model: Builds a model from a configuration, for layers that contain a model.
    """

    def __init__(self, source: Source, make_model: Callable[[Any], keras.Model]):
        self.source, self.make_model = source, make_model

    def make(self, class_name: Any, config: Any) -> keras.layers.Layer:
        """Makes a layer of Keras 3.

        Args:
            class_name: Class of the layer in the file.
            config: The arguments in the file. They are not changed.

        Raises:
            InvalidFileError: If Keras 3 has no such layer, or rejects the arguments.
            UnsafeFileError: If the layer would run code of the file.
        """
        if is_model({"class_name": class_name, "config": config}):
            return self.make_model({"class_name": class_name, "config": config})
        if not isinstance(class_name, str) or not isinstance(config, dict):
            raise InvalidFileError(
                "The description of a layer is malformed: the file is damaged.",
                received=f"{str(class_name)[:80]!r} with {type(config).__name__}",
            )
        source, config = self.source, copy.deepcopy(config)
        custom = source.custom(class_name) or source.custom(class_name.rpartition(">")[2])
        if custom is None:
            class_name, config = migrate(class_name, config)
        if class_name == "Lambda":
            config = lambda_config(config, source)
        layer_class = custom or _keras_class(class_name, config.get("name"))
        check_class(class_name, config, source)
        with about_layer(config.get("name"), "Keras 3 cannot make this layer.", _FIX):
            with keras.saving.custom_object_scope(dict(source.custom_objects)):
                name = config.get("name")
                config = {key: self._value(key, value, name) for key, value in config.items()}
            return _deserialized(layer_class, class_name, config, source)

    def _value(self, key: str, value: Any, layer: Any) -> Any:
        """Returns an argument of a layer, with the objects that it describes."""
        if key in _ACTIVATIONS:
            return self._activation(value, layer)
        if key in _LAYERS and isinstance(value, dict):
            return keras.saving.serialize_keras_object(self._inner(value))
        if key == "cells" and isinstance(value, list):
            return [keras.saving.serialize_keras_object(self._inner(cell)) for cell in value]
        for ending, get in _GETTERS.items():
            if key.endswith(ending) and value is not None:
                made = self.source.made(value)
                return get(_known(value, ending, layer) if made is None else made)
        return value

    def _activation(self, value: Any, layer: Any) -> Any:
        """Returns an activation as Keras 3 takes it."""
        if isinstance(value, dict) and hasattr(keras.layers, str(value.get("class_name"))):
            return self._inner(value)
        made = self.source.made(value)
        if made is not None:
            return made
        if isinstance(value, dict) and isinstance(value.get("config"), str):
            value = value["config"]  # a function
        if isinstance(value, dict) and "value" in value and "class_name" not in value:
            value = "<lambda>"  # stands for bytecode of an anonymous function
        if not isinstance(value, str):
            return value
        if not hasattr(keras.activations, value):
            raise _unknown(value, layer)
        return CHANGED.get(value, value)

    def _inner(self, value: dict[str, Any]) -> keras.layers.Layer:
        return self.make(value.get("class_name"), value.get("config"))


def is_model(entry: Any) -> bool:
    """Whether an entry in a list of layers is a model."""
    class_name, config = entry.get("class_name"), entry.get("config")
    has_layers = isinstance(config, dict) and "layers" in config and "input_layers" in config
    return class_name in ("Sequential", *GRAPHS) or (has_layers and class_name != "Merge")


def _deserialized(layer_class: Any, class_name: str, config: dict, source: Source) -> Any:
    """Creates the layer with Keras, under Keras's safe mode."""
    own = {class_name: layer_class}
    whole = {"class_name": class_name, "config": config, "registered_name": class_name}
    layer = keras.saving.deserialize_keras_object(
        {**whole, "module": None},
        custom_objects={**source.custom_objects, **own},
        safe_mode=source.safe_mode,
    )
    if not isinstance(layer, keras.layers.Layer):
        raise InvalidFileError("This object is not a layer.", received=type(layer).__name__)
    return layer


def _keras_class(class_name: str, name: Any) -> Any:
    found = getattr(keras.layers, class_name, None) if class_name.isidentifier() else None
    if not isinstance(found, type) or not issubclass(found, keras.layers.Layer):
        raise InvalidFileError(
            "Keras 3 has no layer of this class.",
            layer=None if name is None else str(name),
            received=f"a {class_name}",
            fix=f'Pass it: `load_model(path, custom_objects={{"{class_name}": ...}})`.',
        )
    return found


def _known(value: Any, ending: str, layer: Any) -> Any:
    """Returns an initializer, regularizer or constraint. Raises if Keras does not know it."""
    name = value.get("class_name") if isinstance(value, dict) else value
    module = getattr(keras, f"{ending.removeprefix('_')}s")
    if isinstance(name, str) and not hasattr(module, name):
        try:
            _GETTERS[ending](name)  # Keras knows more names than it exports
        except Exception as error:  # Keras raises various types for unknown names
            raise _unknown(name, layer) from error
    return _object(value)


def _unknown(name: str, layer: Any) -> InvalidFileError:
    return InvalidFileError(
        "The file has a class or function that is not Keras's.",
        layer=None if layer is None else str(layer),
        received=name[:80],
        fix=f'Pass it: `load_model(path, custom_objects={{"{name}": ...}})`.',
    )


def _object(value: Any) -> Any:
    """Removes arguments of an initializer, regularizer or constraint that Keras 3 does not have."""
    if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
        return value
    config = {key: part for key, part in value["config"].items() if key != "dtype"}
    return {"class_name": value.get("class_name"), "config": config}
