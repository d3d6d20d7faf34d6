"""The profiles of targets: data files of the package, read once."""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from keras_qat.errors import InvalidTargetError
from keras_qat.targets.limits import Limit, OperatorLimits, Source, read_limits

# Names of the targets in the public API.
TARGETS = ("edgetpu", "ethos-u", "litert", "litert-arm64", "reference", "tflite-micro")
# The target of models that are quantized without one.
DEFAULT_TARGET = "litert"


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of device, and the operators that it runs.

    Attributes:
        name: Name in the public API, such as `"ethos-u"`.
        title: Name of the device and its software, with the version.
        sources: Sources of the lists.
        operators: Limits of each operator that the target runs, by the operator's name.
        every: Limits of all operators.
        kernels: Name of the kernels that compute the operators: a key of `integer` in
            operators.toml.
        interpreter: The argument `kernels` of `verify` that runs these kernels.
        delegate: Name of the profile of the fast kernels that take what they can before; empty
            without such.
        consequence: The effect of an operator that the target does not run, as a verb phrase.
        fallback: The target that runs such an operator, or None.
        fallback_loads_all: Whether the fallback must run the whole file, and not only the operators
            that the target leaves to the fallback.
        factors: Time of operators that the target does not have, by operator and type, as a
            multiple of an int8 ADD of as many elements.
        releases: Releases of LiteRT whose kernels were measured to compute the integers of Keras,
            oldest first. Empty if no release was measured.
        measured: Place and date of the measurement of the factors.
        preferred: Operators that compute a whole layer better than the several operators that the
            layer is made of for other targets.
        advice: A way to avoid an operator that the target does not have, by the operator.
    """

    name: str
    title: str
    sources: tuple[Source, ...]
    operators: Mapping[str, OperatorLimits]
    every: tuple[Limit, ...]
    kernels: str
    interpreter: str
    delegate: str
    consequence: str
    fallback: Target | None
    fallback_loads_all: bool
    factors: Mapping[str, float]
    releases: tuple[str, ...]
    measured: str
    preferred: frozenset[str]
    advice: Mapping[str, str]

    def runs(self, code: str, dtype: str) -> bool:
        """Returns whether the target or its fallback has an operator for a type of data.

        Args:
            code: Name of the operator.
            dtype: Type of the data.
        """
        limits = self.limits_of(code)
        if limits is not None and all(each.holds({"type": dtype}.get) for each in limits):
            return True
        return self.fallback is not None and self.fallback.runs(code, dtype)

    def limits_of(self, code: str) -> tuple[Limit, ...] | None:
        """Returns all limits of an operator, or None if the target does not have the operator."""
        known = self.operators.get(code)
        return None if known is None else (*self.every, *known.limits)


def get_target(target: str) -> Target:
    """Returns the profile of a target.

    Args:
        target: `"litert"` (PCs), `"litert-arm64"` (phones), `"reference"` (LiteRT's reference
            kernels), `"tflite-micro"` (microcontrollers), `"ethos-u"` (NPUs of Arm, compiled by
            vela) or `"edgetpu"` (Google Coral).

    Returns:
        The `Target`.

    Raises:
        InvalidTargetError: If no target has that name.

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


def fast_kernels(target: Target) -> Target | None:
    """Returns the profile of the fast kernels of a target, or None if there is no list of them.

    Args:
        target: The target.
    """
    return _read(target.delegate) if target.delegate else None


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
        operators=_operators(content),
        every=_every(content),
        kernels=content["kernels"],
        interpreter=content["interpreter"],
        delegate=content.get("delegate", ""),
        consequence=content["consequence"],
        fallback=_read(fallback["target"]) if fallback else None,
        fallback_loads_all=fallback.get("loads_all", False),
        factors=content.get("factors", {}),
        releases=tuple(content.get("releases", ())),
        measured=content.get("measured", ""),
        preferred=frozenset(content.get("preferred", ())),
        advice=content.get("advice", {}),
    )


def _every(content: Mapping[str, Any]) -> tuple[Limit, ...]:
    """Returns the limits of all operators, those of the profile that is extended too."""
    inherited = _read(content["extends"]).every if "extends" in content else ()
    return (*inherited, *read_limits(content.get("every", {})))


def _operators(content: Mapping[str, Any]) -> dict[str, OperatorLimits]:
    """Returns the limits of a profile's operators; `extends` names a profile that has most."""
    known = dict(_read(content["extends"]).operators) if "extends" in content else {}
    own = {
        code: OperatorLimits(code, read_limits(table))
        for code, table in content.get("operators", {}).items()
    }
    left = known | own
    return {code: left[code] for code in left if code not in content.get("without", ())}
