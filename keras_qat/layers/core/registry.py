"""The registry of rules: maps chains of Keras operations to quantized layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_qat.errors import InvalidRegistrationError
from keras_qat.graph.patterns import Matcher, layer_of, matches_chain
from keras_qat.graph.tracing import own_call

if TYPE_CHECKING:
    from keras_qat.layers.core.base import QuantizedLayer


@dataclasses.dataclass(frozen=True)
class Rule:
    """One entry of the registry.

    Attributes:
        pattern: The chain of operations, in the order that they apply.
        layer: Class of the quantized layer for the chain.
    """

    pattern: tuple[Matcher, ...]
    layer: type[QuantizedLayer]

    @property
    def head(self) -> Matcher:
        """The matcher of the operation that the layer computes."""
        return next(matcher for matcher in self.pattern if not matcher.optional)

    @property
    def followers(self) -> tuple[Matcher, ...]:
        """The matchers of the operations after it."""
        return self.pattern[self.pattern.index(self.head) + 1 :]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Operations that are known to have no integer form.

    Attributes:
        matcher: Matches the operations.
        reason: The reason, a sentence.
        fix: The replacement to use, a sentence.
    """

    matcher: Matcher
    reason: str
    fix: str


_RULES: list[Rule] = []
_REFUSALS: list[Refusal] = []
_CALLS: dict[type, Callable[..., Any]] = {}


def register(*pattern: Matcher | type):
    """Registers a quantized layer for Keras layers, or a function that computes them.

    Above a `QuantizedLayer`, the pattern is the chain of operations that it replaces. Above a
    function, the pattern is one or more layer classes. The function computes with `keras.ops` the
    same as the `call` of these layers, for layers whose own `call` cannot be traced. The first
    rule that matches a chain determines its quantized layer. Reloading a quantized model needs no
    registration.

    Args:
        *pattern: For a class, one layer class or `keras_qat.graph` matcher for each operation of
            the chain. One must be required. Those after it are followers that the layer can
            absorb. For a function, layer classes.

    Returns:
        A decorator of the class or of a function `(layer, *tensors)` that returns the layer's
        output for symbolic tensors.

    Raises:
        InvalidRegistrationError: If the pattern does not fit the decorated object.

    Example:
    >>> import keras, keras_qat, tensorflow as tf
    >>> class Halved(keras.layers.Layer):
    ...     def call(self, x):
    ...         return tf.multiply(x, 0.5)  # no `keras.ops`
    >>> @keras_qat.register(Halved)
    ... def halved(layer, x):
    ...     return 0.5 * x
    >>> x = keras.Input((3,))
    >>> clone = keras_qat.clone_model(keras.Model(x, Halved()(keras.layers.Dense(2)(x))))
    >>> [type(layer).__name__ for layer in clone.layers]
    ['InputLayer', 'QDense']
    """
    if not pattern:
        raise InvalidRegistrationError(
            "`register` got no layer class or matcher.",
            expected="at least one layer class or matcher",
            fix="Write `@keras_qat.register(YourLayer)`.",
        )

    def decorate(target):
        if isinstance(target, type):
            matchers = (layer_of(part) if isinstance(part, type) else part for part in pattern)
            _RULES.append(Rule(tuple(matchers), target))
            return target
        for part in pattern:
            if not isinstance(part, type):
                raise InvalidRegistrationError(
                    "A function can only be registered for layer classes.",
                    received=f"{part}",
                    expected="classes, such as `@keras_qat.register(YourLayer)`",
                )
            _CALLS[part] = target
        return target

    return decorate


def refuse(matcher: Matcher, *, reason: str, fix: str) -> None:
    """Registers operations that LiteRT cannot compute in integers.

    Passes do not rewrite these operations, and the error for them has the reason and the fix.

    Args:
        matcher: Matches the operations.
        reason: The reason why they have no integer form, a sentence.
        fix: The replacement to use, a sentence.
    """
    _REFUSALS.append(Refusal(matcher, reason, fix))


def refusal(operation: Any) -> Refusal | None:
    """Returns the reason why an operation has no integer form, or None if it is not known.

    Example:
    >>> import keras
    >>> refusal(keras.layers.Conv3DTranspose(2, 3)).reason
    'LiteRT convolves volumes in float only.'
    """
    return next((entry for entry in _REFUSALS if entry.matcher(operation)), None)


def is_written_in_ops(layer: Any) -> bool:
    """Returns whether a function replaces the `call` of a layer, see `register`."""
    return _written(layer) is not None


def _written(layer: Any) -> Callable[..., Any] | None:
    """Returns the function for the class of a layer, or for the class that it has `call` from."""
    for base in type(layer).__mro__:
        if base in _CALLS or "call" in vars(base):
            return _CALLS.get(base)
    return None


def users_function(layer: Any) -> Callable[..., Any] | None:
    """Returns the function that a user registered for a layer, or None."""
    written = _written(layer)
    module = "" if written is None else written.__module__
    return None if module.partition(".")[0] == "keras_qat" else written


def layers_written_in_ops() -> tuple[type, ...]:
    """Returns the layers that a function was registered for."""
    return tuple(_CALLS)


def call_of(layer: Any) -> Callable[..., Any]:
    """Returns the function to trace: the `call` of a layer, or its registered function.

    The function's first argument is the layer, or a copy of the layer.
    """
    written = _written(layer)
    if written is None:
        return own_call

    def call(layer, *args, **kwargs):
        """Calls the function without the arguments that are None."""
        # For example `mask=None`, which Keras adds and which the function need not accept.
        given = {name: value for name, value in kwargs.items() if value is not None}
        return written(layer, *args, **given)

    return call


def registered_rules() -> tuple[Rule, ...]:
    """Returns all rules in the order of registration."""
    return tuple(_RULES)


def registered_refusals() -> tuple[Refusal, ...]:
    """Returns all operations without an integer form, in the order of registration."""
    return tuple(_REFUSALS)


def find_rule(operations: Sequence[Any]) -> Rule | None:
    """Returns the rule that takes exactly this chain of operations, or None."""
    for entry in _RULES:
        if matches_chain(entry.pattern, operations):
            return entry
    return None
