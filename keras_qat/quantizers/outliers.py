"""Samples of calibration data that are far larger than all others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

# At most one sample in this number is left out.
_RARE = 100
# Fewer samples do not show the usual size.
_ENOUGH = 16
# A range that is wider than necessary by a smaller factor costs less than two bits.
_FAR = 4.0


@dataclasses.dataclass(frozen=True)
class Outliers:
    """Samples of calibration that are far larger than all others in one tensor.

    Attributes:
        input: Name of the tensor: an input, or the layer that computes it.
        count: The number of such samples.
        samples: The number of all samples.
        largest: The largest magnitude in them.
        others: The largest magnitude in the other samples.
        is_kept: Whether the range covers them: calibration leaves out samples by their inputs only.
    """

    input: str
    count: int
    samples: int
    largest: float
    others: float
    is_kept: bool = False

    def __str__(self):
        share = 100 * self.count / self.samples
        if self.is_kept:
            return (
                f"The range of '{self.input}' is made by {self.count} of {self.samples} samples "
                f"({share:.2g} %): they reach {self.largest:.4g}, all others {self.others:.4g}."
            )
        return (
            f"Calibration set aside {self.count} of {self.samples} samples ({share:.2g} %): in the "
            f"input '{self.input}' they reach {self.largest:.4g}, all others {self.others:.4g}."
        )

    @property
    def fix(self) -> str:
        """The suggested fix."""
        if self.is_kept:
            return (
                "Remove them from the calibration data if such samples do not matter; or bound the "
                "values, with relu6 or a penalty (`activity_regularizer`)."
            )
        return (
            "Remove them from the data if they are faulty. If such inputs matter, calibrate with "
            '`keras_qat.calibrate(model, data, range_rule="minmax")`.'
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as a dict that JSON can hold."""
        return dataclasses.asdict(self)


def find_outliers(
    sizes: Mapping[str, np.ndarray], allowed: Mapping[str, float]
) -> tuple[list[Outliers], np.ndarray]:
    """Finds the samples that are far larger than all others in an input of a model.

    Args:
        sizes: The largest magnitude of each sample, a float64 array for each input.
        allowed: A magnitude of each input up to which no sample is an outlier.

    Returns:
        The outliers of each input that has any, and a bool array of the samples to keep.

    Example:
    >>> sizes = np.array([1.0] * 40 + [100.0])
    >>> found, kept = find_outliers({"x": sizes}, {"x": 0.0})
    >>> found[0].count, int(kept.sum())
    (1, 40)
    """
    outlying = {name: _outlying(own) & (own > allowed[name]) for name, own in sizes.items()}
    found = [
        Outliers(
            name, int(out.sum()), len(out), float(own.max()), float(own[~out].max(initial=0.0))
        )
        for (name, out), own in zip(outlying.items(), sizes.values(), strict=True)
        if out.any()
    ]
    return found, ~np.any(list(outlying.values()), axis=0)


def _outlying(sizes: np.ndarray) -> np.ndarray:
    """Returns for each sample whether it is far larger than the next hundredth of the samples.

    The factor depends on the spread of the sizes: with heavy tails, the largest is many times the
    median. Samples of zeros do not count for the spread.
    """
    ordered = np.sort(sizes[sizes > 0])
    if len(ordered) < _ENOUGH:
        return np.zeros(len(sizes), bool)
    usual = ordered[-max(1, len(ordered) // _RARE) - 1]
    spread = max(_FAR, usual / np.median(ordered))
    return sizes > usual * spread * (1 + _RARE / len(ordered))
