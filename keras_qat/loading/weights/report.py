"""The report of `load_weights`."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Mismatch(NamedTuple):
    """A weight that has another shape in the model than in the file.

    Attributes:
        variable: Path of the model's variable.
        expected: Its shape.
        received: The shape in the file.
    """

    variable: str
    expected: tuple[int, ...]
    received: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class WeightsReport:
    """The report of `load_weights`. `print` shows it.

    Attributes:
        path: The file.
        loaded: Paths of the variables that were loaded.
        missing: Paths of the variables that have no weights in the file. They were not changed.
        unexpected: Names of the weights in the file that have no variable in the model.
        mismatched: Weights of another shape, which `skip_mismatch` left out.

    Example:
    >>> print(WeightsReport("old.h5", ("conv/kernel",), missing=("head/kernel",)))
    old.h5: 1 loaded, 1 missing, 0 unexpected, 0 of another shape
      missing: head/kernel
    """

    path: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()

    def __str__(self):
        counts = f"{len(self.loaded)} loaded, {len(self.missing)} missing"
        counts += f", {len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        lines = [f"{self.path}: {counts}"]
        lines += [f"  missing: {name}" for name in self.missing]
        lines += [f"  unexpected: {name}" for name in self.unexpected]
        lines += [
            f"  of another shape: {each.variable} {each.expected}, in the file {each.received}"
            for each in self.mismatched
        ]
        return "\n".join(lines)
