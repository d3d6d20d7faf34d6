"""The registry of slices: which chain of Keras operations becomes which quantized layer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_qat.graph.patterns import Matcher, matches_chain

if TYPE_CHECKING:
    from keras_qat.layers.base import QuantizedLayer


@dataclasses.dataclass(frozen=True)
class Slice:
    """One entry of the registry.

    Attributes:
        pattern: The chain that is taken, the first operation first.
        layer: Class of the quantized layer that it becomes.
    """

    pattern: tuple[Matcher, ...]
    layer: type[QuantizedLayer]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Operations that are known to have no integer form.

    Attributes:
        matcher: Which operations.
        reason: Why not, a sentence.
        fix: What to use instead, a sentence.
    """

    matcher: Matcher
    reason: str
    fix: str


_SLICES: list[Slice] = []
_REFUSALS: list[Refusal] = []
_CALLS: dict[type, Callable[..., Any]] = {}


def register(*pattern: Matcher):
    """Registers a quantized layer for a chain of Keras operations.

    Args:
        *pattern: One matcher for each operation of the chain. The first one must be required;
            the others are followers that the layer can absorb.

    Returns:
        A class decorator.

    Example:
    `@register(layer_of(keras.layers.Add), maybe(RELU))` above a `QuantizedLayer` makes it
    stand for an `Add`, with or without a ReLU behind it.
    """

    def decorate(cls):
        _SLICES.append(Slice(tuple(pattern), cls))
        return cls

    return decorate


def refuse(matcher: Matcher, *, reason: str, fix: str) -> None:
    """Registers operations that LiteRT cannot compute in integers.

    No pass may rewrite them into others, and the error for them says why and what to do.

    Args:
        matcher: Which operations.
        reason: Why they have no integer form, a sentence.
        fix: What to use instead, a sentence.
    """
    _REFUSALS.append(Refusal(matcher, reason, fix))


def refusal(operation: Any) -> Refusal | None:
    """Returns why an operation has no integer form, or None if that is not known.

    Example:
    >>> import keras
    >>> refusal(keras.layers.Conv3D(2, 3)).reason
    'LiteRT convolves volumes in float only.'
    """
    return next((entry for entry in _REFUSALS if entry.matcher(operation)), None)


def written_in_ops(layer_class: type):
    """Registers how to write a Keras layer whose own `call` cannot be traced in `keras.ops`.

    Args:
        layer_class: The Keras layer; its subclasses are not meant.

    Returns:
        A decorator of a function of the layer and of the tensors that it is called with.
    """

    def decorate(function):
        _CALLS[layer_class] = function
        return function

    return decorate


def is_written_in_ops(layer: Any) -> bool:
    """Whether a function stands for the `call` of a layer, see `written_in_ops`."""
    return type(layer) in _CALLS


def layers_written_in_ops() -> tuple[type, ...]:
    """Returns the Keras layers that `written_in_ops` was called for."""
    return tuple(_CALLS)


def call_of(layer: Any) -> Callable[..., Any]:
    """Returns what to trace to learn what a layer computes: its `call`, or what stands for it."""
    written = _CALLS.get(type(layer))
    return layer.call if written is None else functools.partial(written, layer)


def registered_slices() -> tuple[Slice, ...]:
    """Returns all slices in the order of registration."""
    return tuple(_SLICES)


def registered_refusals() -> tuple[Refusal, ...]:
    """Returns all that is known to have no integer form, in the order of registration."""
    return tuple(_REFUSALS)


def find_slice(operations: Sequence[Any]) -> Slice | None:
    """Returns the slice that takes exactly this chain of operations, or None."""
    for entry in _SLICES:
        if matches_chain(entry.pattern, operations):
            return entry
    return None
