"""The kernels of LiteRT's interpreter in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert.reading.reader import read
from keras_qat.litert.running.measured_tables import needs_tables, with_measured_tables
from keras_qat.litert.running.tensor_details import all_details


class DefaultKernels:
    """LiteRT's default kernels: XNNPACK, and optimized kernels for other operators.

    Args:
        content: The file's content, which was checked before.
        num_threads: Number of threads that the kernels may use.

    Attributes:
        inputs: `TensorDetails` of each input, in the file's order.
        outputs: `TensorDetails` of each output, in the file's order.
    """

    resolver = "AUTO"

    def __init__(self, content: bytes, num_threads: int):
        self._interpreter = load_interpreter(content, self.resolver, num_threads)
        self.inputs = all_details(self._interpreter.get_input_details)
        self.outputs = all_details(self._interpreter.get_output_details)
        self._allocated: list[tuple[int, ...]] | None = None

    def run(self, pieces: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
        """Runs the file once for each piece of the data.

        Args:
            pieces: For each run one array for each input, of the input's dtype.

        Returns:
            For each run one array for each output.

        Raises:
            LiteRTFormatError: If a kernel fails.
        """
        try:
            return [self._run(piece) for piece in pieces]
        except (RuntimeError, ValueError) as error:
            raise LiteRTFormatError(f"LiteRT cannot run the file: {error}") from error

    def _run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        shapes = [array.shape for array in arrays]
        if shapes != self._allocated:
            self._allocate(shapes)
        for details, array in zip(self.inputs, arrays, strict=True):
            self._interpreter.set_tensor(details.index, array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(details.index) for details in self.outputs]

    def _allocate(self, shapes: list[tuple[int, ...]]) -> None:
        self._allocated = None  # stays None if a kernel refuses the shapes
        for details, shape in zip(self.inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(details.index, shape)
        self._interpreter.allocate_tensors()
        self._allocated = shapes


class ReferenceKernels(DefaultKernels):
    """LiteRT's reference kernels, and tables for the operators that lack such a kernel.

    Args:
        content: The file's content, which was checked before.
        num_threads: Number of threads that the kernels may use.
    """

    resolver = "BUILTIN_REF"

    def __init__(self, content: bytes, num_threads: int):
        replaced = with_measured_tables(content) if needs_tables(read(content)) else content
        super().__init__(replaced, num_threads)


def load_interpreter(content: bytes, resolver: str, num_threads: int) -> Any:
    """Returns LiteRT's interpreter of a file. Its tensors are not allocated.

    Args:
        content: The file's content, which was checked before.
        resolver: A member of the interpreter's `OpResolverType`.
        num_threads: Number of threads that the kernels may use.

    Raises:
        LiteRTFormatError: If LiteRT refuses the file.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        return Interpreter(
            model_content=content,
            num_threads=num_threads,
            experimental_op_resolver_type=OpResolverType[resolver],
        )
    except (RuntimeError, ValueError) as error:
        raise LiteRTFormatError(f"LiteRT cannot load the file: {error}") from error
