"""The penalties that regularizers of weights add to the loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_qat.graph.graph import Parameter

# Sums over the numbers of a weight, whose order, signs and parts they do not depend on.
PENALTIES = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)


def regularizer_of(operand: Any, size: int) -> keras.regularizers.Regularizer | None:
    """Returns the regularizer for a weight that has the numbers of an operand.

    Args:
        operand: A constant operand, for example a `Parameter`.
        size: How many numbers the weight has.

    Returns:
        L1, L2 or L1L2, if the operand is a variable with this regularizer, or a part of one, and
        the weight has as many numbers; else None.

    Example:
    >>> regularizer_of(1.0, 1) is None
    True
    """
    if not isinstance(operand, Parameter) or operand.positions is None or not operand.variables:
        return None
    found = operand.variables[0].regularizer
    is_whole = operand.trainable and operand.value.size == size
    return found if is_whole and type(found) in PENALTIES else None


class Lost(NamedTuple):
    """Weights whose regularizer or constraint a new model lacks.

    Attributes:
        what: `"regularizer"` or `"constraint"`.
        weights: Paths of the weights of the other model that may have lost theirs.
    """

    what: str
    weights: list[str]


def lost_in(model: keras.Model, new: keras.Model) -> Iterator[Lost]:
    """Yields the weights whose regularizer or constraint a new model lacks.

    Args:
        model: The model that the new one was made from.
        new: The new model, with the same values of the weights.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> list(lost_in(model, model))
    []
    """
    for what in ("regularizer", "constraint"):
        before, after = _weights_by(what, model), _weights_by(what, new)
        weights: list[str] = []
        for config, variables in before.items():
            kept = after.get(config, [])
            is_same = what == "constraint" or _is_same_penalty(variables, kept)
            if len(kept) < len(variables) or not is_same:
                weights += [variable.path for variable in variables]
        if weights:
            yield Lost(what, weights)


def _weights_by(what: str, model: keras.Model) -> dict[str, list[Any]]:
    """Returns the trained weights with a regularizer or constraint, by its configuration."""
    found: dict[str, list[Any]] = {}
    for variable in model.trainable_variables:
        rule = getattr(variable, what, None)
        if rule is not None:
            found.setdefault(f"{type(rule).__name__} {rule.get_config()}", []).append(variable)
    return found


def _is_same_penalty(before: list[Any], after: list[Any]) -> bool:
    """Returns whether regularizers add the same to the loss, up to rounding."""
    own, other = (
        sum(float(ops.convert_to_numpy(each.regularizer(each))) for each in variables)
        for variables in (before, after)
    )
    return abs(own - other) <= 1e-3 * max(abs(own), abs(other))
