"""Checks a LiteRT model against the profile of a target."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Any

from keras_qat.litert import Model, Tensor
from keras_qat.litert.writing.static_shapes import unknown_sizes
from keras_qat.targets.limits import Limit, meets
from keras_qat.targets.measured import Measured
from keras_qat.targets.profiles import Target
from keras_qat.targets.quantities import measure


@dataclasses.dataclass(frozen=True)
class Violation:
    """An operator that a target does not run.

    Attributes:
        level: `"error"`: the target does not run the file. `"warning"`: the operator runs on the
            CPU.
        code: `"target-operator"`: the target lacks the operator; `"target-version"`: the target
            lacks that version; `"target-limit"`: the operator exceeds a limit.
        operator: Name of the LiteRT operator.
        tensor: Name of the operator's output tensor.
        target: Name of the target, or of its fallback, whose limit it is.
        expected: The limit.
        received: The operator's value.
        consequence: The effect on the operator or the file.
        action: How to fix it.
    """

    level: str
    code: str
    operator: str
    tensor: str
    target: str
    expected: str
    received: str
    consequence: str
    action: str

    @property
    def layer(self) -> str:
        """Name of the layer: the part of the tensor's name before a slash."""
        return self.tensor.partition("/")[0]

    @property
    def what(self) -> str:
        """The problem, without the action."""
        return (
            f"{self.operator} ('{self.tensor}') {self.consequence}. {self.target} has "
            f"{self.expected}; received {self.received}."
        )

    def __str__(self):
        return f"{self.what} {self.action}"


def violations(model: Model, target: Target) -> list[Violation]:
    """Lists the operators of a model that a target does not run.

    Args:
        model: The model, in memory. Nothing is run.
        target: The target.

    Returns:
        At most one `Violation` for each operator, in the order of the operators: an error if
        nothing runs the operator there, else a warning.

    Example:
    >>> from keras_qat.litert import Operator
    >>> from keras_qat.targets import get_target
    >>> x, y = Tensor("x", (None, 8), "int8"), Tensor("y", (None, 8), "int8")
    >>> model = Model({"x": x}, {"y": y}, (Operator("GELU", (x,), (y,), 2),))
    >>> violations(model, get_target("litert"))
    []
    >>> violations(model, get_target("tflite-micro"))[0].expected
    'no such operator'
    """
    found = []
    for measured in measured_operators(model):
        found += list(_judge(measured, target))[:1]
    return found


def measured_operators(model: Model) -> list[Measured]:
    """Returns the operators of a model with the roles of their operands.

    Args:
        model: The model.
    """
    sizes = unknown_sizes(model)
    siblings: dict[str, list[str]] = {}
    for operator in model.operators:
        siblings.setdefault(layer_of(operator.outputs[0]), []).append(operator.code)
    return [Measured(each, sizes, siblings[layer_of(each.outputs[0])]) for each in model.operators]


def _judge(measured: Measured, target: Target) -> Iterator[Violation]:
    """Yields the violations of an operator, the worst first."""
    limit = broken_limit(measured, target)
    fallback = target.fallback
    if fallback is None:
        if limit is not None:
            yield _violation(measured, target, limit, "error", target.consequence)
        return
    if isinstance(limit, Limit) and limit.is_fatal:
        yield _violation(measured, target, limit, "error", "makes the target refuse the file")
    if limit is not None or target.fallback_loads_all:
        beyond = broken_limit(measured, fallback)
        if beyond is not None:
            yield _violation(measured, fallback, beyond, "error", fallback.consequence)
    if limit is not None:
        yield _violation(measured, target, limit, "warning", target.consequence)


_MISSING = "no such operator"


def broken_limit(measured: Measured, target: Target) -> Limit | str | None:
    """Returns the first limit of a target that an operator breaks, or None.

    Args:
        measured: The operator.
        target: The target.
    """
    limits = target.limits_of(measured.code)
    if limits is None:
        return _MISSING
    value_of = functools.partial(measure, measured)
    return next((limit for limit in limits if not limit.holds(value_of)), None)


def _violation(
    measured: Measured, target: Target, limit: Limit | str, level: str, consequence: str
) -> Violation:
    """Describes an operator that exceeds a limit."""
    names = limit.quantities if isinstance(limit, Limit) else ()
    kind = "operator" if not names else "version" if names == ("version",) else "limit"
    values = ", ".join(f"{name} {measure(measured, name)!r}" for name in names)
    return Violation(
        level=level,
        code=f"target-{kind}",
        operator=measured.code,
        tensor=measured.output.name,
        target=target.name,
        expected=str(limit),
        received=values or f"{measured.code} version {measured.version}",
        consequence=consequence,
        action=_action(measured, names),
    )


def _action(measured: Measured, names: tuple[str, ...]) -> str:
    """Returns the first entry of actions.toml that applies to the operator."""
    for entry in _actions():
        if measured.code not in entry.get("operators", (measured.code,)):
            continue
        if "limits" in entry and not (names and set(names) <= set(entry["limits"])):
            continue
        conditions = entry.get("when", {})
        if all(meets(measure(measured, name), condition) for name, condition in conditions.items()):
            return entry["do"]
    raise AssertionError("the last entry of actions.toml is for every operator")


@functools.cache
def _actions() -> list[dict[str, Any]]:
    path = resources.files("keras_qat.targets") / "actions.toml"
    return tomllib.loads(path.read_text())["actions"]


def layer_of(tensor: Tensor) -> str:
    """Returns the name of the layer that a tensor belongs to."""
    return tensor.name.partition("/")[0]
