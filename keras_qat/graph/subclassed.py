"""Reads a subclassed model by tracing its `call` into a graph of layers."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, cast

import keras
from keras import tree

from keras_qat.errors import InvalidModelError
from keras_qat.graph.graph import Edge, Graph, unique_name
from keras_qat.graph.reading import is_model, read_model
from keras_qat.graph.tracing import batch_size_for, trace_call


def read_any_model(model: keras.Model) -> Graph:
    """Reads a functional, sequential or subclassed model.

    The `call` of a subclassed model runs once on symbolic tensors of the shapes that the model
    was built with, in inference mode (`training=None`). Inputs are named after the argument of
    `call`, or the keys of a dictionary. Layers keep their names.

    Args:
        model: A built model.

    Returns:
        The checked `Graph`.

    Raises:
        InvalidModelError: If the model is not built, or Keras does not know its input shapes.
        UnsupportedLayerError: If `call` does something that cannot be traced.

    Example:
    >>> class Model(keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.head = keras.layers.Dense(2, name="head")
    ...     def call(self, x):
    ...         return keras.ops.relu(self.head(x))
    >>> model = Model()
    >>> y = model(keras.ops.ones((1, 4)))
    >>> list(read_any_model(model).nodes)[:2]
    ['x', 'head']
    """
    if not isinstance(model, keras.Model) or is_model(model):
        return read_model(model)
    taken = {layer.name for layer in model.layers}
    shapes = _shapes(model)
    batch = batch_size_for(model, _flat(shapes))
    inputs = {
        argument: _symbolic(each, argument, taken, batch) for argument, each in shapes.items()
    }
    _check_arguments(model, inputs)
    symbols = tree.flatten(list(inputs.values()))
    graph = trace_call(model, lambda twin: twin.call(**inputs), symbols, model.name, batch)
    structures = list(inputs.values())
    structure = structures[0] if len(structures) == 1 else structures
    edges = dict(zip(map(id, symbols), map(Edge, graph.inputs), strict=True))

    def to_edge(symbol: keras.KerasTensor) -> Edge:
        return edges[id(symbol)]

    structure = tree.map_structure(to_edge, structure)
    return dataclasses.replace(graph, input_structure=structure).check()


def _shapes(model: keras.Model) -> dict[str, Any]:
    """Returns the shapes that the model was built with, by argument of `call`."""
    if not model.built:
        raise InvalidModelError(
            "The model is not built: its weights do not exist yet.",
            layer=model.name,
            received=f"a {type(model).__name__}",
            fix="Call it once, on data or on `keras.Input(shape)`.",
        )
    config: Mapping[str, Any] = model.get_build_config() or {}
    if "shapes_dict" in config:
        by_argument: Mapping[str, Any] = config["shapes_dict"]
        return {key.removesuffix("_shape"): shape for key, shape in by_argument.items()}
    if "input_shape" in config:
        return {next(iter(inspect.signature(model.call).parameters)): config["input_shape"]}
    raise InvalidModelError(
        "Keras does not know the input shapes of this subclassed model: it could not run `call` "
        "on symbolic tensors.",
        layer=model.name,
        received=f"a {type(model).__name__}",
        fix="Call `model.build((None, ...))` with the shape of a batch, and pass the model again. "
        "The next error then names the reason why `call` cannot be traced.",
    )


def _symbolic(shapes: Any, name: str, taken: set[str], batch: int) -> Any:
    """Returns symbolic tensors in the structure of the shapes, whose first size is the batch's."""
    if _is_shape(shapes):
        name = unique_name(name, taken)
        taken.add(name)
        return keras.Input(batch_shape=(batch, *shapes[1:]), name=name)
    if isinstance(shapes, dict):
        named = cast("dict[str, Any]", shapes)
        return {key: _symbolic(shape, key, taken, batch) for key, shape in named.items()}
    return [_symbolic(shape, f"{name}_{i}", taken, batch) for i, shape in enumerate(shapes)]


def _flat(shapes: Any) -> list[Any]:
    """Returns the shapes in a structure, in a list."""
    if _is_shape(shapes):
        return [shapes]
    named = cast("dict[str, Any]", shapes)
    parts: Any = named.values() if isinstance(shapes, dict) else shapes
    return [shape for part in parts for shape in _flat(part)]


def _is_shape(shapes: Any) -> bool:
    return not isinstance(shapes, dict) and all(isinstance(size, int | None) for size in shapes)


def _check_arguments(model: keras.Model, inputs: dict[str, Any]) -> None:
    """Raises if `call` needs more arguments than the tensors whose shapes are known."""
    signature = inspect.signature(model.call)
    needed = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    missing = [name for name in needed if name not in inputs]
    if missing:
        raise InvalidModelError(
            "Keras knows the shape of the first argument of `call` only.",
            layer=model.name,
            received=f"{type(model).__name__}.call{signature}",
            expected="one argument, which may be a list or a dictionary of tensors",
            fix=f"Move {missing} into the first argument too, or write a `build` that takes the "
            "shape of each: `def build(self, a_shape, b_shape)` for `def call(self, a, b)`.",
        )
