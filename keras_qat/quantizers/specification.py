"""Specifications: how the tensors of a layer get their quantization parameters."""

from __future__ import annotations

import dataclasses

from keras_qat.quantizers.fixed_parameters import FixedParameters
from keras_qat.quantizers.range_rule import RangeRule
from keras_qat.quantizers.robust import Robust
from keras_qat.scheme import Scheme


@dataclasses.dataclass(frozen=True)
class Free:
    """The parameters cover the values that the tensor is observed to take.

    Attributes:
        rule: The rule by which training moves the range.
        usual_range: The range (min, max) that the tensor usually has, such as (0, 255) of pixels:
            observed ranges within it become it, unless they are a small part. None if it is not
            known.
        keeps_calibration: Whether training holds a calibrated range even if no sample fits it.
        may_be_missing: Whether a model that was saved without the range can be loaded. The range
            then stands for all values.

    Example:
    >>> Free(keeps_calibration=True).rule
    Robust()
    """

    rule: RangeRule = Robust()
    usual_range: tuple[float, float] | None = None
    keeps_calibration: bool = False
    may_be_missing: bool = False

    @property
    def observed(self) -> Free:
        """The specification itself: the tensor is observed."""
        return self


@dataclasses.dataclass(frozen=True)
class Shared:
    """The tensor has the parameters of the layer's inputs, since the operator copies integers.

    Attributes:
        observed: How the tensor widens the shared range, if the operator adds values of its own,
            such as the constant of a padding; else None.
    """

    observed: Free | None = None


@dataclasses.dataclass(frozen=True)
class Fixed:
    """The kernel, or the user, prescribes the parameters.

    Attributes:
        scale: Real size of one step.
        zero_point: Integer that stands for 0.0 in int8. Other types have the equivalent integer.
        wide_scale: Real size of one step of 16-bit integers, whose zero point is 0.
        observed: How the tensor is observed, although its parameters do not depend on that; None
            if it is not observed.

    Example:
    >>> from keras_qat.scheme import get_scheme
    >>> Fixed(1 / 256, -128).parameters(get_scheme("uint8")).zero_point_value
    0
    """

    scale: float
    zero_point: int
    observed: Free | None = None
    wide_scale: float = 0.0

    def parameters(self, scheme: Scheme) -> FixedParameters:
        """Returns the quantization parameters in the type of a scheme."""
        low = scheme.activation_low
        if scheme.activation_symmetric:
            return FixedParameters(self.wide_scale, 0, low)
        return FixedParameters(self.scale, self.zero_point - _INT8_LOW + low, low)


@dataclasses.dataclass(frozen=True)
class Derived:
    """The parameters cover the values of a weight now, such as a table.

    Attributes:
        source: The attribute of the layer that holds the weight.
        observed: None, since the values of the weight are known.
    """

    source: str
    observed: None = None


Specification = Free | Shared | Fixed | Derived

_INT8_LOW = -128
