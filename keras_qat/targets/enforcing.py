"""Raises an error for a LiteRT model that its target does not run."""

from __future__ import annotations

from collections.abc import Iterable

from keras_qat.errors import TargetError
from keras_qat.litert import Model
from keras_qat.targets.judging import Violation, violations
from keras_qat.targets.profiles import Target


def check_runs(model: Model, target: Target) -> str | None:
    """Checks that a target runs a model.

    Args:
        model: The model, in memory.
        target: The target.

    Returns:
        The operators that run on the CPU, as text for a warning; None if there are none.

    Raises:
        TargetError: If the target does not run the model, naming all operators that it does not.

    Example:
    >>> from keras_qat.litert import Operator, Tensor
    >>> from keras_qat.targets import get_target
    >>> x, y = Tensor("x", (None, 8), "int8"), Tensor("act", (None, 8), "int8")
    >>> model = Model({"x": x}, {"y": y}, (Operator("HARD_SWISH", (x,), (y,)),))
    >>> check_runs(model, get_target("ethos-u")) is None
    True
    >>> print(check_runs(model, get_target("edgetpu")).partition(":")[0])
    Not all of the model runs on Google Coral Edge TPU, Edge TPU Compiler 16.0
    """
    found = violations(model, target)
    errors = [each for each in found if each.level == "error"]
    if errors:
        raise TargetError(
            f"The model does not run on {target.title}.",
            violations=errors,
            layer=errors[0].layer,
            received=_listed(errors),
            expected="operators within the limits of the target, which docs/targets.md describes",
            fix=" ".join(dict.fromkeys(each.action for each in errors)),
        )
    if not found:
        return None
    actions = " ".join(dict.fromkeys(each.action for each in found))
    return f"Not all of the model runs on {target.title}: {_listed(found)}. {actions}"


def _listed(found: Iterable[Violation]) -> str:
    """Returns one entry for each layer and limit, however many operators of the layer break it."""
    tensors: dict[tuple[str, ...], list[str]] = {}
    for each in found:
        key = each.layer, each.operator, each.consequence, each.target, each.expected
        tensors.setdefault(key, []).append(each.tensor)
    return "; ".join(
        f"{operator}{f' ({len(names)} times)' if len(names) > 1 else ''} of '{layer}' "
        f"{consequence} ({target} has {expected})"
        for (layer, operator, consequence, target, expected), names in tensors.items()
    )
