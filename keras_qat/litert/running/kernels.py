"""The sets of kernels that can run a file, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert.running.litert_kernels import DefaultKernels, ReferenceKernels
from keras_qat.litert.running.separate_process import Arm64Kernels, MicroKernels
from keras_qat.litert.running.tensor_details import TensorDetails


class Kernels(Protocol):
    """A file and the kernels that run it.

    Attributes:
        inputs: `TensorDetails` of each input, in the file's order.
        outputs: `TensorDetails` of each output, in the file's order.
    """

    inputs: tuple[TensorDetails, ...]
    outputs: tuple[TensorDetails, ...]

    def __init__(self, content: bytes, num_threads: int): ...

    def run(self, pieces: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """Runs the file once for each piece of the data."""
        ...


KERNELS: Mapping[str, type[Kernels]] = {
    "arm64": Arm64Kernels,
    "default": DefaultKernels,
    "reference": ReferenceKernels,
    "tflite-micro": MicroKernels,
}


def kernels_named(name: str) -> type[Kernels]:
    """Returns the class of a set of kernels.

    Args:
        name: A key of `KERNELS`.

    Raises:
        LiteRTFormatError: If the name is unknown.
    """
    if name not in KERNELS:
        raise LiteRTFormatError(
            "There are no kernels of that name.",
            expected=f"one of {sorted(KERNELS)}",
            received=f"kernels={name!r}",
        )
    return KERNELS[name]
