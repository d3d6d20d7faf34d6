"""Integer operators of a model that the fast kernels of its target do not support."""

from __future__ import annotations

import dataclasses
import math

from keras_qat.litert import Model
from keras_qat.litert.format.operators import declaration_of
from keras_qat.targets.judging import broken_limit, layer_of, measured_operators
from keras_qat.targets.profiles import Target

# So many elements take microseconds.
_FEW_ELEMENTS = 2000
# Operators that take at most as long as this many additions are not reported.
_LEAST_FACTOR = 1.2


@dataclasses.dataclass(frozen=True)
class SlowOperators:
    """All operators of one type that the fast kernels of a target do not support.

    Attributes:
        operator: Name of the operator, such as `"HARD_SWISH"`.
        type: Element type of the data.
        layers: Names of the layers that have the operator.
        tensor: Name of the first of the output tensors.
        elements: Number of elements of all outputs together, for one sample.
        factor: Time as a multiple of an int8 ADD of as many elements; None if it was not measured.
    """

    operator: str
    type: str
    layers: tuple[str, ...]
    tensor: str
    elements: int
    factor: float | None


def slow_operators(model: Model, kernels: Target) -> list[SlowOperators]:
    """Lists the integer operators of a model that fast kernels do not support, by type.

    Types that together have few elements, or take no longer than an addition, are left out.

    Args:
        model: The model, in memory. Nothing is run.
        kernels: The profile of the fast kernels, see `keras_qat.targets.fast_kernels`.

    Example:
    >>> from keras_qat.litert import Operator, Tensor
    >>> from keras_qat.targets import fast_kernels, get_target
    >>> x, y = Tensor("x", (None, 64, 64), "int8"), Tensor("y", (None, 64, 64), "int8")
    >>> model = Model({"x": x}, {"y": y}, (Operator("HARD_SWISH", (x,), (y,)),))
    >>> kernels = fast_kernels(get_target("litert"))
    >>> [(each.operator, each.elements) for each in slow_operators(model, kernels)]
    [('HARD_SWISH', 4096)]
    """
    found: dict[tuple[str, str], list] = {}
    for each in measured_operators(model):
        is_float = "float32" in (each.data.dtype, each.output.dtype)
        if not is_float and broken_limit(each, kernels) is not None:
            found.setdefault((each.code, each.data.dtype), []).append(each)
    slow = []
    for (code, dtype), kind in found.items():
        sizes = [math.prod(each.output_shape) for each in kind]
        if "reads_more" in declaration_of(code).traits:
            sizes = [math.prod(each.data_shape) for each in kind]
        elements = sum(sizes)
        factor = kernels.factors.get(f"{code} {dtype}")
        layers = tuple(dict.fromkeys(layer_of(each.output) for each in kind))
        if elements >= _FEW_ELEMENTS and (factor is None or factor > _LEAST_FACTOR):
            tensor = kind[0].output.name
            slow.append(SlowOperators(code, dtype, layers, tensor, elements, factor))
    return slow
