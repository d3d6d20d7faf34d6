"""The sizes of files: the bytes of weights, and the flash on the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_qat.layers import QuantizedModel
from keras_qat.litert import Model, Operator, Tensor, read, to_bytes
from keras_qat.litert.writing.buffers import ALIGNMENT, constant_bytes
from keras_qat.lowering import lower_model
from keras_qat.lowering.io_names import name_tensors
from keras_qat.mixed_precision.owners import Owner
from keras_qat.targets.vela import flash_by_vela

# The target whose compiler compresses weights.
_COMPRESSED = "ethos-u"


class FileSize(NamedTuple):
    """The size of a file, or of the part of a layer.

    Attributes:
        weights: Bytes of the constants, as `inspect_litert` counts them: `weight_bytes`.
        flash: Bytes of flash: of the whole `.tflite` file, or of what vela makes of it. 0 if it was
            not asked for.
    """

    weights: int
    flash: int


@dataclasses.dataclass(frozen=True)
class Scales:
    """Measures the files of quantized models for a target.

    Attributes:
        target: Name of the target.
        has_flash: Whether the flash is measured, which takes seconds with vela.
    """

    target: str
    has_flash: bool

    @property
    def uses_vela(self) -> bool:
        """Whether the flash is what vela measures."""
        return self.has_flash and self.target == _COMPRESSED

    def lowered(self, model: QuantizedModel) -> Model:
        """Returns the file in memory. For vela all shapes are constant."""
        return lower_model(model, batch_size=1 if self.target == _COMPRESSED else None)

    def whole(self, model: QuantizedModel) -> FileSize:
        """Measures the file of a model with ranges."""
        content = to_bytes(name_tensors(self.lowered(model)))
        flash = len(content) if self.has_flash else 0
        if self.uses_vela:
            (flash,) = flash_by_vela([content])
        return FileSize(read(content).weight_bytes, flash)

    def parts(self, lowered: Model, owners: Sequence[Owner]) -> list[FileSize]:
        """Measures the part of each owner's layers in a file."""
        parts = [_operators(lowered, owner) for owner in owners]
        weights = [[len(constant_bytes(x)) for x in _constants(part)] for part in parts]
        flash = [sum(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes) for sizes in weights]
        if not self.has_flash:
            flash = [0] * len(parts)
        elif self.uses_vela and parts:
            flash = flash_by_vela([to_bytes(_file(part)) for part in parts])
        return [FileSize(sum(w), f) for w, f in zip(weights, flash, strict=True)]


def _operators(lowered: Model, owner: Owner) -> list[Operator]:
    """Returns the operators of an owner's layers: their outputs have the layers' names."""
    return [op for op in lowered.operators if op.outputs[0].name.split("/")[0] in owner.layers]


def _constants(operators: Sequence[Operator]) -> list[np.ndarray]:
    """Returns the different constants that operators read."""
    tensors = dict.fromkeys(x for op in operators for x in op.inputs if x is not None)
    return [tensor.data for tensor in tensors if tensor.data is not None]


def _file(operators: Sequence[Operator]) -> Model:
    """Returns a file of some operators of another file."""
    made = {x: None for op in operators for x in op.outputs}
    read_ = dict.fromkeys(x for op in operators for x in op.inputs if x is not None)
    used: set[Tensor] = set(read_)
    inputs = [x for x in read_ if x.data is None and x not in made and not x.is_variable]
    outputs = [x for x in made if x not in used]
    return Model({x.name: x for x in inputs}, {x.name: x for x in outputs}, tuple(operators))
