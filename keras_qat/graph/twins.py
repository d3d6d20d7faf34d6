"""Copies of layers that have symbolic tensors in place of their variables."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import keras

from keras_qat.graph.reading import is_model
from keras_qat.graph.symbols import Lookup


def _attributes(value: object) -> dict[str, Any]:
    return vars(value)


def _type_of(value: object) -> Any:
    return type(value)


# The attributes of any layer, in which Keras keeps its lists of variables and of inner layers.
_KEPT = frozenset(_attributes(keras.layers.Layer()))


class Twins:
    """Copies layers, with a symbolic tensor in place of each variable that is an attribute.

    A copy shares everything else with its layer. Keras's own copy would save and load the layer.

    Args:
        is_inlined: Tells which inner layers are copied, too. Their copies run `call` when they are
            called, so that they make no node of their own, and may return anything.
    """

    def __init__(self, is_inlined: Callable[[Any], bool] | None = None):
        self._is_inlined = is_inlined
        self._symbols: dict[int, tuple[Any, keras.Variable]] = {}
        self._twins: dict[int, Any] = {}

    @property
    def symbols(self) -> list[tuple[Any, keras.Variable]]:
        """Pairs of each symbolic tensor and its variable."""
        return list(self._symbols.values())

    def of(self, layer: Any, kind: type | None = None) -> Any:
        """Copies a layer.

        Args:
            layer: The layer. It is not changed.
            kind: The class of the copy, by default that of the layer.
        """
        known = self._twins.get(id(layer))
        if known is not None:
            return known
        attributes = _attributes(layer)
        made: Any = kind or type(layer)
        twin = self._twins[id(layer)] = object.__new__(made)
        copied = _attributes(twin)
        copied |= attributes
        for name, value in attributes.items():
            if getattr(value, "__self__", None) is layer and hasattr(value, "__func__"):
                copied[name] = types.MethodType(value.__func__, twin)
            elif isinstance(value, keras.Variable):
                copied[name] = self._symbol(value)
            elif type(value) is keras.layers.Embedding and value.built:
                copied[name] = Lookup(value, self._symbol(value.embeddings))
            elif name not in _KEPT:
                copied[name] = self._replaced(value)
        return twin

    def _symbol(self, variable: keras.Variable) -> Any:
        if id(variable) not in self._symbols:
            symbol = keras.Input(batch_shape=variable.shape, dtype=variable.dtype)
            self._symbols[id(variable)] = symbol, variable
        return self._symbols[id(variable)][0]

    def _replaced(self, value: Any) -> Any:
        """Returns an attribute with symbols for its variables, and copies of inlined layers."""
        kind = _type_of(value)
        if issubclass(kind, keras.Variable):
            return self._symbol(value)
        if issubclass(kind, keras.layers.Layer):
            return self._inlined(value)
        if issubclass(kind, dict):
            made = {key: self._replaced(each) for key, each in value.items()}
            return made if any(made[key] is not value[key] for key in made) else value
        if issubclass(kind, list) or kind is tuple:
            parts = [self._replaced(each) for each in value]
            if any(a is not b for a, b in zip(parts, value, strict=True)):
                return tuple(parts) if kind is tuple else parts
        return value

    def _inlined(self, layer: Any) -> Any:
        if self._is_inlined is None or not self._is_inlined(layer):
            return layer
        # A subclass of the layer's class, since `call` may ask for the type.
        of_layer = _type_of(layer)
        kind: Any = type(of_layer.__name__, (of_layer,), {"__call__": of_layer.call})
        if not is_model(layer):
            return self.of(layer, kind)
        twin: object = object.__new__(kind)
        attributes = _attributes(twin)
        attributes |= _attributes(layer)
        return twin
