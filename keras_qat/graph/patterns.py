"""Matchers: which Keras layers and `keras.ops` operations a rule takes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

# Operations whose public name in `keras.ops` differs from the name of their class.
_PUBLIC_NAMES = {
    "GetItem": "x[...]",
    "LayerNorm": "ops.layer_normalization",
    "RMSNorm": "ops.rms_normalization",
    "Resize": "ops.image.resize",
}


@dataclasses.dataclass(frozen=True)
class Matcher:
    """A test on one operation.

    Attributes:
        label: A readable description, such as `"keras.layers.Conv2D or ops.pad"`.
        test: The test.
        optional: Whether a chain may lack it.
    """

    label: str
    test: Callable[[Any], bool]
    optional: bool = False

    def __call__(self, operation: Any) -> bool:
        """Returns whether it matches an operation."""
        return self.test(operation)


def layer_of(*classes: type) -> Matcher:
    """Matches layers of exactly these classes.

    Subclasses are not matched: they may compute something else.

    Example:
    >>> import keras
    >>> layer_of(keras.layers.Flatten)(keras.layers.Flatten())
    True
    """
    label = " or ".join(_layer_name(cls) for cls in classes)
    return Matcher(label, lambda operation: type(operation) in classes)


def _layer_name(cls: type) -> str:
    is_public = getattr(keras.layers, cls.__name__, None) is cls
    return f"keras.layers.{cls.__name__}" if is_public else cls.__name__


def operation_named(*names: str) -> Matcher:
    """Matches `keras.ops` operations by the name of their class.

    The classes are not part of Keras's public API, but their names are stable.

    Example:
    >>> import keras
    >>> from keras_qat.graph import read_model
    >>> x = keras.Input((2,))
    >>> model = keras.Model(x, x + x)
    >>> operation_named("Add")(list(read_model(model).nodes.values())[1].head)
    True
    """
    label = " or ".join(_PUBLIC_NAMES.get(name, f"ops.{_snake_case(name)}") for name in names)

    def test(operation: object) -> bool:
        cls = type(operation)
        return cls.__module__.startswith("keras.src.ops.") and cls.__name__ in names

    return Matcher(label, test)


def label_of(operation: Any) -> str:
    """Returns a readable name: that of an operation in `keras.ops`, or the class of a layer.

    Example:
    >>> label_of(keras.layers.Flatten())
    'Flatten'
    """
    name = type(operation).__name__
    is_of_keras = type(operation).__module__.startswith("keras.src.")
    is_layer = isinstance(operation, keras.layers.Layer)
    return operation_named(name).label if is_of_keras and not is_layer else name


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def any_of(*matchers: Matcher) -> Matcher:
    """Matches operations that at least one of the matchers matches."""
    label = " or ".join(matcher.label for matcher in matchers)
    return Matcher(label, lambda operation: any(matcher(operation) for matcher in matchers))


def maybe(matcher: Matcher) -> Matcher:
    """Makes a matcher optional in a chain."""
    return dataclasses.replace(matcher, optional=True)


def matches_chain(pattern: Sequence[Matcher], operations: Sequence[Any]) -> bool:
    """Returns whether a pattern describes a chain of operations.

    Args:
        pattern: Matchers in order; optional ones may be skipped.
        operations: The chain.

    Returns:
        Whether every operation is matched, in order, and no required matcher is left.
    """
    position = 0
    for matcher in pattern:
        if position < len(operations) and matcher(operations[position]):
            position += 1
        elif not matcher.optional:
            return False
    return position == len(operations)
