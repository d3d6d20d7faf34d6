"""The profiles of targets: data files of the package, read once."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from importlib import resources

from keras_qat.errors import InvalidTargetError
from keras_qat.targets.limits import Limit, OperatorLimits, Source, read_limits

# The names that users pass.
TARGETS = ("edgetpu", "ethos-u", "litert", "tflite-micro")


@dataclasses.dataclass(frozen=True)
class Target:
    """What runs on one kind of device.

    Attributes:
        name: What users pass, such as `"ethos-u"`.
        title: What it is, with its version.
        sources: Where the lists come from.
        operators: The limits of each operator that it runs, by the operator's name.
        every: The limits of all operators.
        consequence: What becomes of an operator that it does not run.
        fallback: The target that runs such an operator; None if nothing does.
        fallback_loads_all: Whether the whole file has to be one that the fallback runs, and not
            only what is left to it.
        factors: How many times as long as an int8 ADD of as many elements those operators take
            that the target does not have, by operator and type.
        measured: Where the factors were measured, and when.
    """

    name: str
    title: str
    sources: tuple[Source, ...]
    operators: Mapping[str, OperatorLimits]
    every: tuple[Limit, ...]
    consequence: str
    fallback: Target | None
    fallback_loads_all: bool
    factors: Mapping[str, float]
    measured: str

    def limits_of(self, code: str) -> tuple[Limit, ...] | None:
        """Returns all limits of an operator, None if the target does not have it."""
        known = self.operators.get(code)
        return None if known is None else (*self.every, *known.limits)


def get_target(target: str) -> Target:
    """Returns the profile of a target.

    Args:
        target: `"litert"` (phones and PCs), `"tflite-micro"` (microcontrollers), `"ethos-u"` (NPUs
            of Arm, compiled by vela) or `"edgetpu"` (Google Coral).

    Returns:
        The `Target`.

    Raises:
        InvalidTargetError: If there is none of that name.

    Example:
    >>> micro = get_target("tflite-micro")
    >>> "CONV_2D" in micro.operators, "TILE" in micro.operators
    (True, False)
    """
    if not isinstance(target, str) or target not in TARGETS:
        raise InvalidTargetError(
            "Unknown target.",
            received=repr(target),
            expected=f"one of {list(TARGETS)}",
            fix='Pass one of these, such as target="tflite-micro"; docs/targets.md describes them.',
        )
    return _read(target)


def fast_kernels(target: Target | None) -> Target | None:
    """Returns the profile of the fast kernels of a target; None if there is no list of them.

    Args:
        target: The target; None for LiteRT.
    """
    return _read("xnnpack") if target is None or target.name == "litert" else None


@functools.cache
def _read(name: str) -> Target:
    file = f"{name.replace('-', '_').replace('.', '_')}.toml"
    path = resources.files("keras_qat.targets") / file
    content = tomllib.loads(path.read_text())
    fallback = content.get("fallback", {})
    return Target(
        name=content["name"],
        title=content["title"],
        sources=tuple(Source(**source) for source in content["sources"]),
        operators={
            code: OperatorLimits(code, read_limits(table))
            for code, table in content["operators"].items()
        },
        every=read_limits(content.get("every", {})),
        consequence=content["consequence"],
        fallback=_read(fallback["target"]) if fallback else None,
        fallback_loads_all=fallback.get("loads_all", False),
        factors=content.get("factors", {}),
        measured=content.get("measured", ""),
    )
