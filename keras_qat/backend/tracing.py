"""Functions of `keras.ops` that TensorFlow traces once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_qat.backend.rules import IN_RULE, Rule, traced_rule


def compiled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes TensorFlow run a rule of arithmetic as one function, traced once for all shapes.

    A rule is dozens of small element-wise operations. TensorFlow would dispatch each of them from
    Python, and build a node for each wherever the rule is used. As a function the rule is one
    operation. For tensors of many values XLA fuses the rule into one loop; it compiles when the
    function first runs on them. For few values that would take longer than it saves. In a graph
    of an unknown batch size, the size of a usual batch decides.

    The other backends compile whole programs. There, and for symbolic `KerasTensor`s, `fn` itself
    is called. Inside another rule it is a `part`. It is for inference: no gradient flows through
    it.

    Args:
        fn: A function of tensors, written with `keras.ops`, that creates no variables. Its
            positional arguments are tensors (or convert to tensors) of any shape. Its keyword
            arguments are hashable Python options. An output has the shape that the arguments of
            its rank broadcast to, or a shape that does not depend on the arguments.

    Returns:
        The function with the same signature and the same values. It is traced once for each
        combination of options, and of the dtypes and ranks of the tensors.

    Example:
    >>> @compiled
    ... def scaled(x, *, by):
    ...     return x * by
    >>> scaled(keras.ops.array([1, 2], "int32"), by=3).numpy()
    array([3, 6], dtype=int32)
    """
    return _wrapped(
        fn,
        _is_traced,
        lambda rule, inputs: rule.inlined(inputs) if IN_RULE.get() else rule(inputs),
    )


def traced_once(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes TensorFlow trace a function once for all shapes.

    A model calls such a function for each of its tensors, and Python takes about a millisecond for
    each operation of a graph. Unlike with `compiled`, XLA does not compile the function by itself,
    which it does no better than TensorFlow for minima and maxima.

    Args:
        fn: A function like those of `compiled`.

    Returns:
        The function with the same signature and the same values.

    Example:
    >>> @traced_once
    ... def extremes(x):
    ...     return keras.ops.stack([keras.ops.min(x), keras.ops.max(x)])
    >>> extremes(keras.ops.array([3.0, 1.0])).numpy().tolist()
    [1.0, 3.0]
    """
    return _wrapped(fn, _is_traced, lambda rule, inputs: rule.unfused(inputs))


def part(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the rules of `compiled` share one trace of a function that they call many times.

    TensorFlow takes about a millisecond of Python to trace an operation, and a rule may multiply
    by a quantized multiplier a dozen times. TensorFlow inlines the function when it prepares a
    rule. Outside of rules and on other backends `fn` itself is called.

    Args:
        fn: A function like those of `compiled`.

    Returns:
        The function with the same signature and the same values.

    Example:
    >>> @part
    ... def squared(x):
    ...     return x * x
    >>> @compiled
    ... def distance(x, y):
    ...     return squared(x) + squared(y)
    >>> int(distance(3, 4))
    25
    """
    return _wrapped(fn, lambda _: IN_RULE.get(), lambda rule, inputs: rule.inlined(inputs))


def _wrapped(
    fn: Callable[..., Any],
    is_rule: Callable[[Sequence[Any]], bool],
    run: Callable[[Any, list[Any]], Any],
) -> Callable[..., Any]:
    """Returns a function that runs as a rule.

    Args:
        fn: The function.
        is_rule: Whether tensors are given to the rule of their dtypes and ranks, or to `fn` itself.
        run: Runs the rule on tensors.
    """

    @functools.wraps(fn)
    def wrapper(*tensors: Any, **options: Any) -> Any:
        """Calls the function, with its own arguments."""
        if not is_rule(tensors):
            return fn(*tensors, **options)
        return run(*_rule_for(fn, tensors, options))

    return wrapper


def _is_traced(tensors: Sequence[Any]) -> bool:
    """Returns whether a function of tensors runs as a TensorFlow function of its own."""
    is_symbolic = any(isinstance(tensor, keras.KerasTensor) for tensor in tensors)
    return not is_symbolic and keras.backend.backend() == "tensorflow"


def _rule_for(
    fn: Callable[..., Any], tensors: Sequence[Any], options: dict[str, Any]
) -> tuple[Rule, list[Any]]:
    """Returns the rule for the dtypes and ranks of tensors, and the tensors."""
    inputs = [keras.ops.convert_to_tensor(_value(tensor)) for tensor in tensors]
    kinds = tuple((tensor.dtype, tensor.shape.rank) for tensor in inputs)
    return traced_rule(fn, tuple(sorted(options.items())), kinds), inputs


def _value(tensor: Any) -> Any:
    """A variable's value: `convert_to_tensor` would return the variable itself."""
    return tensor.value if isinstance(tensor, keras.Variable) else tensor
