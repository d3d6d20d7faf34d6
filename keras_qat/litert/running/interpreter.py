"""Runs a `.tflite` file with one of several sets of kernels, in batches."""

import os
from collections.abc import Sequence

import numpy as np

from keras_qat.errors import InvalidDataError, LiteRTFormatError
from keras_qat.litert.reading.reader import read
from keras_qat.litert.reading.runnable import check_runnable
from keras_qat.litert.running.expose import expose_tensors
from keras_qat.litert.running.kernels import kernels_named
from keras_qat.litert.running.tensor_details import TensorDetails


class Runner:
    """A `.tflite` file, ready to run on batches of any size.

    Args:
        content_or_path: The file's content, or its path.
        kernels: `"default"` for the kernels that LiteRT runs on phones and PCs: XNNPACK and
            optimized kernels. `"reference"` for the reference kernels, which TFLite Micro's kernels
            follow. These lack int8 ELU. Its 256 results are measured with LiteRT's own kernel, see
            `keras_qat.litert.running.measured_tables`. `"tflite-micro"` runs TensorFlow Lite Micro,
            sample by sample, and `"arm64"` the default kernels on an emulated ARM64 processor.
            These two run in a separate process, once for each `run`.
        num_threads: Number of threads that LiteRT's kernels in this process may use.
        expose_all: Whether `tensors()` returns every tensor. The outputs keep their integers.

    Attributes:
        inputs: `TensorDetails` of each input, in the file's order.
        outputs: `TensorDetails` of each output, in the file's order.
        details: `TensorDetails` by name, of every readable tensor.

    Raises:
        LiteRTFormatError: for an unknown name of kernels, or a file that cannot be read or run. The
            interpreter gets only bytes that were checked before (see the modules
            `reader` and `runnable` of `keras_qat.litert.reading`).
        MissingPackageError: If `kernels` needs a package or an emulator that is not installed.

    Example:
        >>> import numpy as np
        >>> from keras_qat.litert import Model, Operator, Runner, Tensor, to_bytes
        >>> x, y = Tensor("x", (None, 2), "float32"), Tensor("y", (None, 2), "float32")
        >>> content = to_bytes(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)))
        >>> Runner(content).run([np.float32([[-1, 2], [3, -4], [5, 6]])])[0].tolist()
        [[0.0, 2.0], [3.0, 0.0], [5.0, 6.0]]
    """

    def __init__(
        self,
        content_or_path: bytes | str | os.PathLike[str],
        *,
        kernels: str = "default",
        num_threads: int = 1,
        expose_all: bool = False,
    ):
        make = kernels_named(kernels)
        file = read(content_or_path)
        check_runnable(file)
        content = expose_tensors(file.content) if expose_all else file.content
        self._kernels = make(content, num_threads)
        self.inputs, self._read = self._kernels.inputs, self._kernels.outputs
        # Exposed tensors come after the file's own outputs.
        self.outputs = self._read[: len(file.model["subgraphs"][0]["outputs"])]
        self.details = {details.name: details for details in self.inputs + self._read}
        self._expose_all = expose_all
        self._tensors: dict[str, np.ndarray] = {}
        self._piecewise: list[dict[str, np.ndarray]] = []

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs the model once over whole arrays.

        A dynamic dimension takes the arrays' size. If the batch (the first dimension) is fixed in
        the file, the arrays are split into pieces of that size and the results joined. The last
        piece is filled up with copies of its last sample, whose results are dropped.

        Args:
            arrays: One array for each of `inputs`, with exactly its dtype, and its shape except for
                dynamic dimensions and the batch.

        Returns:
            One array for each of `outputs`.

        Raises:
            InvalidDataError: if the arrays do not fit the inputs, or are empty.
            LiteRTFormatError: if a kernel fails.

        Example:
            >>> import numpy as np
            >>> from keras_qat.litert import Model, Operator, Runner, Tensor, to_bytes
            >>> x, y = Tensor("x", (1, 2), "float32"), Tensor("y", (1, 2), "float32")
            >>> content = to_bytes(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)))
            >>> Runner(content).run([np.float32([[-1, 2], [3, -4]])])[0].tolist()
            [[0.0, 2.0], [3.0, 0.0]]
        """
        arrays = [np.asarray(array) for array in arrays]
        self._check(arrays)
        given = self._pieces(arrays)
        pieces = self._kernels.run(given)
        results = [self._cut(_joined(parts), arrays) for parts in zip(*pieces, strict=True)]
        if self._expose_all:
            names = [details.name for details in self.inputs + self._read]
            self._tensors = dict(zip(names, arrays + results, strict=True))
            values = [[*ours, *theirs] for ours, theirs in zip(given, pieces, strict=True)]
            self._piecewise = [dict(zip(names, each, strict=True)) for each in values]
        return results[: len(self.outputs)]

    def tensors(self) -> dict[str, np.ndarray]:
        """Returns the values that all tensors except constants had in the last `run`.

        Returns:
            Arrays by the tensors' names in the file: the inputs, and all outputs of all operators.

        Raises:
            LiteRTFormatError: without `expose_all=True`, or before the first `run`.

        Example:
            >>> import numpy as np
            >>> from keras_qat.litert import Model, Operator, Runner, Tensor, to_bytes
            >>> x, y, z = (Tensor(name, (1, 2), "float32") for name in "xyz")
            >>> ops = (Operator("RELU", (x,), (y,)), Operator("TANH", (y,), (z,)))
            >>> runner = Runner(to_bytes(Model({"x": x}, {"z": z}, ops)), expose_all=True)
            >>> _ = runner.run([np.float32([[-1, 2]])])
            >>> runner.tensors()["y"].tolist()
            [[0.0, 2.0]]
        """
        if not self._tensors:
            raise LiteRTFormatError(
                "There are no tensors to return.",
                received=f"expose_all={self._expose_all}",
                fix="Make the Runner with expose_all=True, and call run() first.",
            )
        return dict(self._tensors)

    def pieces(self) -> list[dict[str, np.ndarray]]:
        """Returns the tensors of each piece of the last `run`, in the form of `tensors`.

        If the batch is not fixed in the file, there is one piece. With a fixed batch, the last
        piece may be filled up with copies of its last sample.
        """
        return list(self._piecewise)

    def _check(self, arrays: list[np.ndarray]) -> None:
        if len(arrays) != len(self.inputs):
            raise InvalidDataError(
                "Each input takes one array.",
                expected=f"{len(self.inputs)} arrays",
                received=f"{len(arrays)} arrays",
            )
        for details, array in zip(self.inputs, arrays, strict=True):
            if not (array.size and array.dtype == details.dtype and _fits(array, details)):
                raise InvalidDataError(
                    f"The array for input {details.name!r} does not fit it.",
                    expected=f"shape={details.shape}, dtype={details.dtype}",
                    received=f"shape={array.shape}, dtype={array.dtype}",
                )

    def _pieces(self, arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Splits arrays into pieces of the file's batch size, if that is fixed."""
        wanted = [details.shape[:1] for details in self.inputs]
        given = [array.shape[:1] for array in arrays]
        if all(want in ((None,), got) for want, got in zip(wanted, given, strict=True)):
            return [arrays]
        sizes = {size for want in wanted for size in want if size is not None}
        size = min(sizes)
        total: int = max(array.shape[0] for array in arrays if array.ndim)
        if len(sizes) > 1 or set(given) != {(total,)} or size < 1:
            raise InvalidDataError(
                "The file's batch is fixed.",
                expected=f"as many samples for all inputs: {[d.shape for d in self.inputs]}",
                received=f"shapes {[array.shape for array in arrays]}",
            )
        # Positions past the end hold the last sample again.
        rows = np.minimum(np.arange(total + -total % size), total - 1).reshape(-1, size)
        return [[array[piece] for array in arrays] for piece in rows]

    def _cut(self, result: np.ndarray, arrays: list[np.ndarray]) -> np.ndarray:
        """Drops the results of samples that only fill up the last piece."""
        size = next((d.shape[0] for d in self.inputs if d.shape and d.shape[0]), 1)
        if not arrays or not arrays[0].ndim or not len(arrays[0]) % size:
            return result
        total = len(arrays[0])
        rows, rest = divmod(len(result) * total, total + -total % size)
        return result if rest else result[:rows]


def _fits(array: np.ndarray, details: TensorDetails) -> bool:
    """Returns whether the shape of an array fits an input, except for the batch."""
    if array.ndim != len(details.shape):
        return False
    inner = zip(details.shape[1:], array.shape[1:], strict=True)  # `_pieces` checks the batch
    return all(want in (None, got) for want, got in inner)


def _joined(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate([np.atleast_1d(p) for p in parts])
