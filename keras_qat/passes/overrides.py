"""Finds the layers that the user wants in another scheme than the rest, or in float."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from keras_qat.errors import InvalidOverrideError, InvalidSchemeError
from keras_qat.graph import Graph, read_model
from keras_qat.graph.reading import is_model
from keras_qat.passes.inline_models import inline_models
from keras_qat.scheme import Scheme, get_scheme

# The key of an override: the name of a layer, a regular expression, a class or its name.
Key = str | type
# The word for the first and the last layers with kernels in int8.
ENDS_INT8 = "ends_int8"


class Overrides:
    """Finds the scheme of each operation of a model.

    Args:
        overrides: Key to scheme, name of a scheme, or None for float. A key is the name of a layer,
            a regular expression that matches whole names, or a layer class or its name. A name has
            priority over the others; among these the first key that matches counts. The word
            `"ends_int8"` instead of a mapping gives `"int8"` to each layer with a kernel before or
            after which there is no other one.

    Raises:
        InvalidOverrideError: If a key is neither a string nor a class, a value is not a scheme, or
            the word is unknown.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> list(Overrides({"he.d": None}).schemes(read_model(model)).values())
    [None]
    """

    def __init__(self, overrides: Mapping[Key, Any] | str):
        self._schemes: dict[Key, Scheme | None] = {}
        self._has_wide_ends = overrides == ENDS_INT8
        if isinstance(overrides, str) and self._has_wide_ends:
            return
        if not isinstance(overrides, Mapping):
            raise InvalidOverrideError(
                "`overrides` must be a mapping from layers to schemes.",
                received=repr(overrides),
                expected=f"a dict, or {ENDS_INT8!r}",
                fix='Write `overrides={"name of a layer": None}`.',
            )
        self._schemes = {_checked_key(key): _scheme(key, value) for key, value in overrides.items()}

    def schemes(self, graph: Graph) -> dict[int, Scheme | None]:
        """Finds the scheme of each operation that a key matches, in nested models too.

        Args:
            graph: The user's model, as it was read. The key of a nested model applies to all its
                layers, except to layers that another key names.

        Returns:
            Scheme, None for float, by the `id` of the operation.

        Raises:
            InvalidOverrideError: If a key matches nothing.
        """
        if self._has_wide_ends:
            return {id(operation): get_scheme("int8") for operation in _ends(graph)}
        calls = list(_calls(graph, ()))
        operations = [operation for call in calls for operation in call]
        for key in self._schemes:
            if not any(_fits(key, operation) for operation in operations):
                raise _unmatched(key, operations)
        found: dict[int, Scheme | None] = {}
        for call in calls:
            key = self._key_of(call)
            if key is not None:
                found.setdefault(id(call[0]), self._schemes[key])
        return found

    def _key_of(self, call: tuple[Any, ...]) -> Key | None:
        """The key that counts: a name, innermost first, or else the first key that matches."""
        for operation in call:
            if operation.name in self._schemes:
                return operation.name
        for operation in call:
            for key in self._schemes:
                if _fits(key, operation):
                    return key
        return None


def as_mapping(overrides: Mapping[Key, Any] | str, graph: Graph) -> Mapping[Key, Any]:
    """Returns overrides as a mapping, also if they are a word.

    Args:
        overrides: The argument of `quantize_model`.
        graph: The user's model, as it was read.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    >>> list(as_mapping("ends_int8", read_model(model)))
    ['head']
    """
    if isinstance(overrides, str):
        Overrides(overrides)  # raises for another word
        return {operation.name: get_scheme("int8") for operation in _ends(graph)}
    return overrides


def _calls(graph: Graph, around: tuple[Any, ...]):
    """Yields each operation with the nested models around it, the innermost first."""
    for node in graph.nodes.values():
        if node.is_input:
            continue
        call = (node.head, *around)
        if is_model(node.head):
            yield from _calls(read_model(node.head), call)
        else:
            yield call


def _ends(graph: Graph) -> list[Any]:
    """Returns the operations with a kernel that have no such operation before or after them."""
    nodes = inline_models(graph).nodes
    before = {name: {edge.node for edge in node.inputs} for name, node in nodes.items()}
    after: dict[str, set[str]] = {name: set() for name in nodes}
    for name, sources in before.items():
        for source in sources:
            after[source].add(name)
    weighted = {name for name, node in nodes.items() if _has_kernel(node.head)}
    first = _without_others(list(nodes), before, weighted)
    last = _without_others(list(nodes)[::-1], after, weighted)
    return [nodes[name].head for name in (*first, *last)]


def _without_others(
    order: list[str], neighbours: Mapping[str, set[str]], weighted: set[str]
) -> list[str]:
    """Returns the weighted nodes that no other one reaches, in an order of the graph."""
    reached: set[str] = set()
    for name in order:
        if not neighbours[name].isdisjoint(reached | weighted):
            reached.add(name)
    return [name for name in order if name in weighted - reached]


def _has_kernel(operation: Any) -> bool:
    """Returns whether an operation has weights that multiply its input, such as a convolution."""
    return any(each.name.endswith("kernel") for each in getattr(operation, "weights", ()))


def _fits(key: Key, operation: Any) -> bool:
    """Returns whether a key of `overrides` matches an operation."""
    if isinstance(key, type):
        return isinstance(operation, key)
    if key == operation.name or any(cls.__name__ == key for cls in type(operation).__mro__):
        return True
    return re.fullmatch(key, operation.name) is not None


def _checked_key(key: Any) -> Key:
    if not isinstance(key, str | type):
        raise InvalidOverrideError(
            "A key of `overrides` must name layers.",
            received=repr(key),
            expected="the name of a layer, a regular expression, or a layer class or its name",
            fix="Use the layer's name, `layer.name`.",
        )
    if isinstance(key, str):
        try:
            re.compile(key)
        except re.error as error:
            raise InvalidOverrideError(
                f"A key of `overrides` is not a regular expression: {error}.",
                received=repr(key),
                expected="a name, or an expression that matches whole names",
                fix="Escape it with `re.escape`.",
            ) from error
    return key


def _scheme(key: Key, value: Any) -> Scheme | None:
    try:
        return None if value is None else get_scheme(value)
    except InvalidSchemeError as error:
        raise InvalidOverrideError(
            f"`overrides[{_shown(key)}]` is not a scheme. {error}",
            received=repr(value),
            expected="None for float, a scheme's name, or a `Scheme`",
        ) from error


def _unmatched(key: Key, operations: list[Any]) -> InvalidOverrideError:
    names = list(dict.fromkeys(op.name for op in operations))
    classes = list(dict.fromkeys(type(op).__name__ for op in operations))
    if isinstance(key, type):
        close = difflib.get_close_matches(key.__name__, classes, n=3) or classes[:3]
    else:
        close = difflib.get_close_matches(key, names + classes, n=3) or names[:3]
    return InvalidOverrideError(
        "A key of `overrides` matches no layer of the model.",
        received=_shown(key),
        expected=f"a name, a regular expression for whole names, or a class, such as {close}",
        fix="`model.summary()` lists the names. Names of nested models and their layers are valid.",
    )


def _shown(key: Key) -> str:
    return f"'{key}'" if isinstance(key, str) else f"the class {key.__name__}"
