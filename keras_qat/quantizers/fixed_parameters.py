"""Quantization parameters of a tensor that do not depend on its values."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from keras import ops


class Grid(NamedTuple):
    """The quantization parameters of a tensor at one moment.

    Attributes:
        scale: float32 scalar tensor, the real size of one step.
        zero_point: int32 scalar tensor, the integer that stands for 0.0.
    """

    scale: Any
    zero_point: Any


@dataclasses.dataclass(frozen=True)
class FixedParameters:
    """Parameters that the kernel prescribes, such as 1/256 and -128 for SOFTMAX.

    Attributes:
        scale_value: Real size of one step.
        zero_point_value: Integer that stands for 0.0.
        low: Smallest integer of the type.
    """

    scale_value: float
    zero_point_value: int
    low: int = -128

    learns = False

    def grid(self) -> Grid:
        """Returns the scale and the zero point as tensors."""
        return Grid(
            ops.convert_to_tensor(np.float32(self.scale_value)),
            ops.convert_to_tensor(np.int32(self.zero_point_value)),
        )
