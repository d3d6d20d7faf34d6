"""Builds a Keras 3 model from a Keras 2 configuration: makes each layer, then calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import tree

from keras_qat.errors import InvalidFileError
from keras_qat.graph.keras_internals import mask_of
from keras_qat.graph.naming import name_operations
from keras_qat.loading.files.budget import check_sizes
from keras_qat.loading.files.failures import about_layer
from keras_qat.loading.files.source import Source
from keras_qat.loading.keras2.calls import Output, map_outputs, read_call, read_output
from keras_qat.loading.keras2.layers import (
    FUNCTION_LAYERS,
    GRAPHS,
    LayerMaker,
    is_model,
    make_function,
)
from keras_qat.loading.keras2.masks import Masks, warn_of_lost_mask
from keras_qat.loading.keras2.migrations import RECURRENT, clean_name

_DEEPEST = 64


def build_old_model(config: Any, source: Source, depth: int = 0) -> keras.Model:
    """Builds a Keras 3 model from the configuration of a Keras 1 or 2 model.

    Args:
        config: The configuration, as read from JSON.
        source: The file.
        depth: The number of models around this one.

    Returns:
        The model, with initial weights.

    Raises:
        InvalidFileError: If no model can be built from the configuration.
        UnsafeFileError: If the configuration would run code of the file.
    """
    class_name, inner = _parts(config)
    if depth > _DEEPEST:
        raise InvalidFileError("Its models are nested too deeply.", received=f"{depth} levels")
    if class_name == "Sequential":
        return _build_sequential(inner, source, depth)
    if not isinstance(inner, dict):
        raise _no_model(class_name)
    model_class: Any = keras.Model
    if class_name not in GRAPHS:
        model_class = source.custom(class_name)
        if model_class is None:
            raise InvalidFileError(
                "The class of the model is unknown.",
                received=str(class_name)[:80],
                fix="Pass the class in `custom_objects`, or save a functional model.",
            )
    return _Graph(inner, source, depth).build(model_class)


def _parts(config: Any) -> tuple[Any, Any]:
    """Returns the class name and the configuration of a serialized object."""
    if not isinstance(config, dict) or "class_name" not in config or "config" not in config:
        raise _no_model(type(config).__name__)
    return config["class_name"], config["config"]


def _no_model(received: Any) -> InvalidFileError:
    return InvalidFileError("Its configuration does not describe a model.", received=str(received))


def _entries(layers: Any) -> list[dict[str, Any]]:
    if not isinstance(layers, list) or not all(isinstance(entry, dict) for entry in layers):
        raise _no_model("layers that are not a list of layers")
    for entry in layers:
        if not isinstance(entry.get("config"), dict | list):
            raise _no_model(f"a {str(entry.get('class_name'))[:80]} without arguments")
    return layers


def _build_sequential(config: Any, source: Source, depth: int) -> keras.Model:
    """Builds a `Sequential`. Keras 1 and 2.0 write a list of layers, later versions a dict."""
    whole = config if isinstance(config, dict) else {"layers": config}
    entries = _entries(whole.get("layers"))
    if not entries:
        raise _no_model("a Sequential without layers")
    steps: list[Any] = []
    if entries[0].get("class_name") != "InputLayer":
        shape = _first_shape(entries[0]["config"]) or whole.get("build_input_shape")
        if shape is not None:
            steps.append(_input({"batch_input_shape": shape}, entries[0]["config"]))
    for entry in entries:
        if entry.get("class_name") == "InputLayer":
            steps.append(_input(entry["config"], {}))
        else:
            steps.append(_step(entry, source, depth))
    name = None if whole.get("name") is None else clean_name(whole["name"])
    with about_layer(name, "The layers of this model do not fit together."):
        if all(isinstance(step, keras.KerasTensor | keras.layers.Layer) for step in steps):
            return keras.Sequential(steps, name=name)
        x = steps[0]
        for step in steps[1:]:
            x = step(x)
        return keras.Model(steps[0], x, name=name)


def _step(entry: dict[str, Any], source: Source, depth: int) -> Callable[..., Any]:
    """Makes the function or the layer that an entry describes."""
    if entry.get("class_name") in FUNCTION_LAYERS:
        return make_function(entry["class_name"], entry["config"])
    maker = LayerMaker(source, lambda config: build_old_model(config, source, depth + 1))
    return maker.make(entry.get("class_name"), entry["config"])


def _first_shape(config: Any) -> Any:
    return config.get("batch_input_shape") if isinstance(config, dict) else None


def _input(config: Any, like: Any) -> Any:
    """Returns a symbolic tensor for an `InputLayer`, or for the input shape of a first layer."""
    shape = config.get("batch_input_shape", config.get("batch_shape"))
    dtype = config.get("dtype", like.get("dtype") if isinstance(like, dict) else None)
    name = config.get("name")
    sizes = shape if isinstance(shape, list | tuple) else ()
    if not sizes or not all(size is None or (type(size) is int and size > 0) for size in sizes):
        raise InvalidFileError(
            "An input has no shape.",
            layer=None if name is None else str(name),
            received=repr(shape)[:80],
            expected="sizes such as [null, 32, 32, 3]",
        )
    if config.get("ragged"):
        raise InvalidFileError("Keras 3 has no ragged inputs like this one.", layer=str(name))
    with about_layer(name, "Keras 3 cannot make this input."):
        tensor = keras.Input(
            batch_shape=tuple(sizes),
            dtype=dtype if isinstance(dtype, str) else None,
            sparse=bool(config.get("sparse")) or None,
            name=None if name is None else clean_name(name),
        )
    check_sizes(name, tensor)
    return tensor


class _Graph:
    """The calls of a functional model, executed in order."""

    def __init__(self, config: dict[str, Any], source: Source, depth: int):
        self.config, self.source, self.depth = config, source, depth
        self.entries = {_name(entry): entry for entry in _entries(config.get("layers"))}
        if len(self.entries) != len(config["layers"]):
            raise InvalidFileError("Two of its layers have the same name.")
        self.calls = {
            name: [read_call(data, self.entries, name) for data in _nodes(entry, name)]
            for name, entry in self.entries.items()
        }
        self.results = [self._ends(key) for key in ("input_layers", "output_layers")]
        self.first = self._first_calls()
        self.tensors: dict[Output, Any] = {}
        self.masks = Masks()
        self.taken = {name.replace("/", "_") for name in self.entries}

    def build(self, model_class: Any) -> keras.Model:
        """Calls each layer as soon as all its inputs exist."""
        waiting: list[tuple[str, int, Any]] = []
        for name, entry in self.entries.items():
            if entry.get("class_name") == "InputLayer":
                self._keep(name, 0, _input(entry["config"], {}))
                continue
            step = _step(entry, self.source, self.depth)
            waiting += [(name, number, step) for number in range(len(self.calls[name]))]
        while waiting:
            left = [call for call in waiting if not self._make(*call)]
            if len(left) == len(waiting):
                raise InvalidFileError(
                    "The input of a layer is missing: the file is damaged.",
                    received=", ".join(sorted({name for name, *_ in left})[:5]),
                )
            waiting = left
        inputs, outputs = (map_outputs(ends, self._tensor) for ends in self.results)
        own = self.config.get("name")
        with about_layer(own, "No model can be made of its inputs and outputs."):
            model = model_class(inputs, outputs, name=None if own is None else clean_name(own))
            model.trainable = bool(self.config.get("trainable", True))
        return model

    def _make(self, name: str, number: int, step: Any) -> bool:
        """Executes a call if its inputs exist. Returns whether they exist."""
        call = self.calls[name][number]
        if not all(output in self.tensors for output in call.outputs()):
            return False
        inputs, kwargs = map_outputs((call.inputs, call.kwargs), self._tensor)
        with about_layer(name, "This layer cannot be called with its inputs."):
            if isinstance(step, keras.layers.Layer):
                inputs, kwargs = _as_keras_3(self.entries[name], inputs, kwargs)
                self._check_states(name, step, inputs)
                result = self.masks.call(step, inputs, kwargs)
            else:
                result = self.masks.call(step, inputs, kwargs)
                if _keeps_mask(self.entries[name], inputs, result):
                    self.masks.keep(result, mask_of(tree.flatten(inputs)[0]))
                if number == 0:
                    self.taken.discard(clean_name(name))  # the name was reserved for this layer
                name_operations(result, list(self.tensors.values()), clean_name(name), self.taken)
        check_sizes(name, result)
        self._keep(name, number + self.first[name], result)
        return True

    def _check_states(self, name: str, step: Any, inputs: Any) -> None:
        """Warns if recurrent layers of a nested model do not get the mask of its inputs."""
        is_masked = any(mask_of(tensor) is not None for tensor in tree.flatten(inputs))
        if isinstance(step, keras.Model) and is_masked and _has_states(self.entries[name]):
            warn_of_lost_mask(name)

    def _keep(self, name: str, number: int, result: Any) -> None:
        """Stores the outputs of a call of a layer."""
        is_sizes = isinstance(result, list) and not any(hasattr(x, "shape") for x in result)
        flat = [result] if is_sizes or result is None else tree.flatten(result)
        for index, tensor in enumerate(flat):
            self.tensors[Output(name, number, index)] = tensor

    def _tensor(self, output: Output) -> Any:
        if output not in self.tensors:
            raise InvalidFileError(
                "An output of the model is missing: the file is damaged.",
                received=str(list(output)),
            )
        return self.tensors[output]

    def _ends(self, key: str) -> Any:
        """Returns the inputs or outputs of the model, a single one without a list around it."""

        def read(part: Any) -> Any:
            """Reads nested outputs of layers."""
            if isinstance(part, dict):
                return {name: read(value) for name, value in part.items()}
            if isinstance(part, list) and part and not isinstance(part[0], str):
                return [read(each) for each in part]
            return read_output(part, key)

        ends = read(self.config.get(key))
        return ends[0] if isinstance(ends, list) and len(ends) == 1 else ends

    def _first_calls(self) -> dict[str, int]:
        """Returns the number of each layer's first call. Nested models count their creation too."""
        used: dict[str, set[int]] = {name: set() for name in self.entries}
        outputs: list[Output] = []
        map_outputs(self.results, outputs.append)
        for call in [call for calls in self.calls.values() for call in calls]:
            outputs += call.outputs()
        for output in outputs:
            used.setdefault(output.layer, set()).add(output.call)
        return {
            name: int(is_model(entry) and 0 not in used[name])
            for name, entry in self.entries.items()
        }


def _name(entry: dict[str, Any]) -> str:
    config = entry.get("config")
    name = entry.get("name", config.get("name") if isinstance(config, dict) else None)
    clean_name(name)
    return str(name)


def _nodes(entry: dict[str, Any], name: str) -> list[Any]:
    nodes = entry.get("inbound_nodes", [])
    if not isinstance(nodes, list):
        raise InvalidFileError("The calls of a layer are not a list.", layer=name)
    return nodes


def _has_states(entry: dict[str, Any]) -> bool:
    """Whether a recurrent layer, perhaps in a nested model, gets states as further inputs."""
    inner = entry["config"].get("layers", ()) if isinstance(entry["config"], dict) else ()
    calls = entry.get("inbound_nodes", ()) if entry.get("class_name") in RECURRENT else ()
    return any(len(call) > 1 for call in calls) or any(map(_has_states, inner))


def _keeps_mask(entry: dict[str, Any], inputs: Any, result: Any) -> bool:
    """Whether a function is a layer in Keras 2, or returns the very tensor that it is given."""
    is_cast = str(entry["config"].get("function")).removeprefix("compat.v1.") == "cast"
    is_idle = is_cast and result.dtype == tree.flatten(inputs)[0].dtype
    return entry["class_name"] == "ThresholdedReLU" or is_idle


def _as_keras_3(entry: dict[str, Any], inputs: Any, kwargs: dict[str, Any]) -> tuple[Any, dict]:
    """Returns the arguments of a layer's call in Keras 3."""
    given = {key: value for key, value in kwargs.items() if value is not None}
    if isinstance(inputs, list) and len(inputs) == 1:
        inputs = inputs[0]
    if entry.get("class_name") in RECURRENT and isinstance(inputs, list):
        inputs, given = inputs[0], {**given, "initial_state": inputs[1:]}
    return inputs, given
