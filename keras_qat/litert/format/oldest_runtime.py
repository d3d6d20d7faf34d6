"""The oldest runtime that loads the operators of a file, and a change that lowers it.

releases.toml has the versions of operators that each runtime adds, measured by loading files in
TensorFlow Lite 2.7 to 2.18 and LiteRT 1.0 to 2.3. LiteRT is TensorFlow Lite under a new name: its
first release has all operators of TensorFlow Lite 2.18. For runtimes before 2.7 the table of
operators.toml is used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from keras_qat.litert.format.custom_options import custom_name
from keras_qat.litert.format.operator_versions import lowered_version
from keras_qat.litert.format.operators import declaration_of
from keras_qat.litert.format.types import Operator

LITERT, TFLITE = "LiteRT", "TensorFlow Lite"


@dataclass(frozen=True)
class OldestRuntime:
    """The oldest runtime that has all operators of a file. `print` it for a sentence.

    A runtime that loads a file may still round differently, see docs/runtimes.md.

    Attributes:
        name: The runtime, such as `"TensorFlow Lite 2.17"` or `"LiteRT 1.2.0"`. Empty if the first
            runtime of an operator is not known, as for custom operators.
        because: The operators that need this runtime, such as `"FULLY_CONNECTED version 12"`, or
            the operators whose first runtime is not known.
        has: The property of these operators that needs the version; empty if no change lowers it.
        fix: The change that lowers the version, to be pasted; empty if none is known.
        fixed: The oldest runtime after this change; empty if none is known.
        faults: Releases that load the file and compute wrong values, one sentence each.
    """

    name: str
    because: tuple[str, ...] = ()
    has: str = ""
    fix: str = ""
    fixed: str = ""
    faults: tuple[str, ...] = ()

    def __str__(self):
        return " ".join([self._loads(), *self.faults])

    def _loads(self) -> str:
        operators = " and ".join(self.because)
        if not self.name:
            reason = f", because of {operators}" if operators else ""
            return f"Oldest runtime that loads it: not known{reason}."
        newer = "" if self.name.startswith(LITERT) else " (all releases of LiteRT are newer)"
        text = f"Oldest runtime that loads it: {self.name}{newer}, because of {operators}."
        if not self.fixed:
            return text
        return f"{text} The cause is {self.has}; {self.fix} lowers it to {self.fixed}."


def oldest_runtime(operators: Iterable[Operator]) -> OldestRuntime:
    """Finds the oldest runtime that has each version of each operator.

    Args:
        operators: The operators of a file, with their versions.

    Example:
        >>> from keras_qat.litert import Operator, Tensor
        >>> from keras_qat.litert.format.oldest_runtime import oldest_runtime
        >>> x, y = Tensor("x", (1, 8), "int8"), Tensor("y", (1, 8), "int8")
        >>> operators = [Operator(code, (x,), (y,), 2) for code in ("RELU", "GELU")]
        >>> oldest_runtime(operators).name, oldest_runtime(operators).because
        ('TensorFlow Lite 2.9', ('GELU version 2',))
    """
    operators = tuple(operators)
    pairs = dict.fromkeys((each.code, each.version) for each in operators)
    faults = tuple(dict.fromkeys(fault for each in operators for fault in _faults(each)))
    unknown = tuple(_text(*pair) for pair in pairs if first_runtime(*pair) is None)
    name = _newest(pairs)
    if unknown or name is None:
        return OldestRuntime("", unknown, faults=faults)
    needing = [each for each in operators if first_runtime(each.code, each.version) == name]
    because = tuple(dict.fromkeys(_text(each.code, each.version) for each in needing))
    lower = declaration_of(needing[0].code).lower
    fixed = _newest(_after_change(each, needing[0].code) for each in operators)
    if lower is None or fixed is None or _order(fixed) >= _order(name):
        return OldestRuntime(name, because, faults=faults)
    return OldestRuntime(name, because, lower.has, lower.fix, fixed, faults)


def _faults(operator: Operator) -> Iterator[str]:
    """Yields a sentence for each fault of older kernels of an operator."""
    for fault in declaration_of(operator.code).faults:
        if any(tensor.dtype == fault.output for tensor in operator.outputs):
            yield f"{operator.code} to {fault.output} computes wrong values {fault.runtimes}."


def first_runtime(code: str, version: int) -> str | None:
    """Returns the first runtime that has a version of an operator, or None if it is not known.

    Args:
        code: Name of the operator.
        version: The version.

    Example:
        >>> from keras_qat.litert.format.oldest_runtime import first_runtime
        >>> first_runtime("CONV_2D", 3), first_runtime("TRANSPOSE", 7)
        ('TensorFlow Lite 1.14', 'LiteRT 1.2.0')
    """
    measured = _measured().get((code, version))
    releases = declaration_of(code).releases
    # releases.toml has no custom operators.
    is_older = measured == _oldest_measured() or custom_name(code) is not None
    if is_older and version <= len(releases):
        return f"{TFLITE} {releases[version - 1].rpartition('.')[0]}"
    return measured


def _after_change(operator: Operator, code: str) -> tuple[str, int]:
    """Returns an operator's code and version after the change for the operators of a code."""
    version = lowered_version(operator) if operator.code == code else None
    return operator.code, operator.version if version is None else version


def _newest(pairs: Iterable[tuple[str, int]]) -> str | None:
    """Returns the oldest runtime that has all operators; None if no runtime is known for them."""
    runtimes = {first_runtime(*pair) for pair in pairs}
    return max(filter(None, runtimes), key=_order, default=None)


def _order(runtime: str) -> tuple[bool, Sequence[int]]:
    name, _, version = runtime.rpartition(" ")
    return name == LITERT, [int(part) for part in version.split(".")]


def _text(code: str, version: int) -> str:
    return f"{code} version {version}"


@cache
def _measured() -> Mapping[tuple[str, int], str]:
    """Returns the first runtime of each version of each operator, from releases.toml."""
    return {
        (code, version): runtime
        for runtime, added in _table().items()
        for code, versions in added.items()
        for version in versions
    }


@cache
def _table() -> Mapping[str, Mapping[str, Sequence[int]]]:
    path = resources.files("keras_qat.litert.format") / "releases.toml"
    return tomllib.loads(path.read_text())


def _oldest_measured() -> str:
    return next(iter(_table()))
