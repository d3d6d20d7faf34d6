"""Finds operators that would not run on the target of a file."""

from __future__ import annotations

from keras_qat.checking.findings import WARNING, Finding, listing
from keras_qat.litert import Model
from keras_qat.targets import SlowOperators, Target, slow_operators, violations


def target_findings(lowered: Model, target: Target) -> list[Finding]:
    """Finds operators that a target does not run.

    Args:
        lowered: The file's contents.
        target: The target.

    Returns:
        One finding for each layer, operator and limit: an error if the file would not run there, a
        warning if the operator would run on the CPU.
    """
    found: dict[tuple[str, ...], Finding] = {}
    for each in violations(lowered, target):
        key = each.layer, each.operator, each.expected
        finding = Finding(each.level, each.code, each.layer, each.tensor, each.what, each.action)
        found.setdefault(key, finding)
    return list(found.values())


_OTHER = "If its time matters, choose a layer without it."


def slow_findings(lowered: Model, kernels: Target) -> list[Finding]:
    """Finds operators that the fast kernels do not support.

    Args:
        lowered: The file's contents.
        kernels: The profile of the fast kernels.

    Returns:
        One finding for each operator and type, with its measured cost.
    """
    return [_slow(each, kernels) for each in slow_operators(lowered, kernels)]


def _slow(each: SlowOperators, kernels: Target) -> Finding:
    cost = "its cost was not measured"
    if each.factor is not None:
        times = f"{each.factor:.1f}" if each.factor < 10 else f"{each.factor:.0f}"
        cost = f"measured, {times} times the time of an ADD of as many elements"
    message = (
        f"{each.operator} of {each.type} {kernels.consequence}: {cost}; {each.elements:,} elements "
        f"in {listing(each.layers)}."
    )
    fix = kernels.advice.get(each.operator, _OTHER)
    return Finding(WARNING, "slow-operator", each.layers[0], each.tensor, message, fix, each.layers)
