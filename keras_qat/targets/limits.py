"""Limits as data: conditions on quantities of an operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

# A value, a list of alternative values, or {"least": ..., "most": ...}.
Condition = Any


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of a list.

    Attributes:
        what: The text or code that was read.
        url: Address of the source.
        version: Version or commit of the source.
        date: Date of that version, or of reading.
    """

    what: str
    url: str
    version: str
    date: str


@dataclasses.dataclass(frozen=True)
class Limit:
    """One limit of a target for an operator.

    Attributes:
        alternatives: Conditions by the name of a quantity (`keras_qat.targets.quantities`). All
            conditions of at least one mapping must be met.
        is_fatal: Whether the target refuses the whole file if the limit is broken.

    Example:
    >>> limit = Limit(({"pads": False}, {"stride_w": {"most": 3}}))
    >>> limit.holds({"pads": True, "stride_w": 4}.get)
    False
    >>> print(limit)
    pads False, or stride_w at most 3
    """

    alternatives: tuple[Mapping[str, Condition], ...]
    is_fatal: bool = False

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the quantities in the conditions."""
        names = (name for conditions in self.alternatives for name in conditions)
        return tuple(dict.fromkeys(names))

    def holds(self, measure: Callable[[str], Any]) -> bool:
        """Returns whether an operator keeps the limit.

        Args:
            measure: Returns the value of a quantity by its name. None, for a quantity that the
                operator does not have, meets every condition.
        """
        return any(
            all(meets(measure(name), condition) for name, condition in conditions.items())
            for conditions in self.alternatives
        )

    def __str__(self):
        return ", or ".join(
            " and ".join(f"{name} {described(condition)}" for name, condition in conditions.items())
            for conditions in self.alternatives
        )


@dataclasses.dataclass(frozen=True)
class OperatorLimits:
    """The limits of a target for one operator.

    Attributes:
        code: Name in the schema's `BuiltinOperator`, such as `"CONV_2D"`.
        limits: The limits.
    """

    code: str
    limits: tuple[Limit, ...]


def meets(value: Any, condition: Condition) -> bool:
    """Returns whether a quantity meets a condition. None meets every condition.

    Example:
    >>> meets(3, {"least": 1, "most": 3}), meets("int32", ["int8", "int16"]), meets(None, 7)
    (True, False, True)
    """
    if value is None:
        return True
    if isinstance(condition, Mapping):
        least, most = condition.get("least", value), condition.get("most", value)
        return least <= value <= most
    return value in condition if isinstance(condition, list) else value == condition


def described(condition: Condition) -> str:
    """Returns a condition as text.

    Example:
    >>> described({"least": 1, "most": 3}), described(["int8", "int16"]), described({"most": 4})
    ('from 1 to 3', "'int8' or 'int16'", 'at most 4')
    """
    if isinstance(condition, Mapping):
        if len(condition) == 2:
            return f"from {condition['least']} to {condition['most']}"
        return " ".join(f"at {bound} {value}" for bound, value in condition.items())
    return " or ".join(map(repr, condition if isinstance(condition, list) else [condition]))


def read_limits(table: Mapping[str, Any]) -> tuple[Limit, ...]:
    """Reads the limits in one table of a profile.

    Args:
        table: Conditions by quantity; `any`, a list of lists of alternatives; `fatal`, conditions
            without which the target refuses the whole file.

    Returns:
        The limits.

    Example:
    >>> [str(limit) for limit in read_limits({"rank": {"most": 4}, "any": [[{"batch": 1}]]})]
    ['rank at most 4', 'batch 1']
    """
    plain = {name: value for name, value in table.items() if name not in ("any", "fatal")}
    return (
        *(Limit(({name: value},), True) for name, value in table.get("fatal", {}).items()),
        *(Limit(({name: value},)) for name, value in plain.items()),
        *(Limit(tuple(alternatives)) for alternatives in table.get("any", ())),
    )
