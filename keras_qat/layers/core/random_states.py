"""The state of a layer's random numbers, which Keras does not save."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import keras


def save_random_states(layer: keras.layers.Layer, store: MutableMapping[str, Any]) -> None:
    """Saves the state of a layer's random numbers.

    Args:
        layer: The layer.
        store: The argument of `save_own_variables`.
    """
    for name, state in _random_states(layer):
        store[name] = state


def load_random_states(layer: keras.layers.Layer, store: Any) -> None:
    """Loads the state of a layer's random numbers, if the file has it.

    Args:
        layer: The layer.
        store: The argument of `load_own_variables`.
    """
    for name, state in _random_states(layer):
        if name in set(store.keys()):  # the store of a file does not support `in`
            state.assign(store[name])


def _random_states(layer: keras.layers.Layer) -> Iterator[tuple[str, keras.Variable]]:
    """Yields the states that Keras counts as variables, but not as weights."""
    weights = {id(weight) for weight in layer.weights}
    states = [each for each in layer.variables if id(each) not in weights]
    for position, state in enumerate(states):
        yield f"random_state_{position}", state
