"""What became of the weights in a file."""

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
    """What `load_weights` did. `print` shows it.

    Attributes:
        path: The file.
        loaded: Paths of the variables that have their values from the file.
        missing: Paths of the variables that the file has nothing for; they are as they were.
        unexpected: Names of the weights in the file that the model has no variable for.
        mismatched: What was left out, as `skip_mismatch` allows: its shape differs.

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
