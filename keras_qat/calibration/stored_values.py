"""The values of tensors between layers, in files."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


class StoredValues(Sequence[np.ndarray]):
    """The values of a tensor, an array for each batch, each in a file.

    Bias correction and AdaRound compute all samples of a layer before the next layer. In memory is
    only the batch that is read.

    Args:
        folder: The folder of the files.
        arrays: The first arrays.

    Example:
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [each.tolist() for each in StoredValues(folder, [np.arange(2), np.arange(3)])]
    [[0, 1], [0, 1, 2]]
    """

    def __init__(self, folder: str, arrays: Iterable[np.ndarray] = ()):
        self._folder = folder
        self._files: list[pathlib.Path] = []
        for array in arrays:
            self.append(array)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: Any) -> Any:
        return np.load(self._files[index])

    def append(self, array: np.ndarray) -> None:
        """Writes the array of another batch."""
        with tempfile.NamedTemporaryFile(suffix=".npy", dir=self._folder, delete=False) as file:
            np.save(file, array)
        self._files.append(pathlib.Path(file.name))

    def remove(self) -> None:
        """Removes the files."""
        while self._files:
            self._files.pop().unlink()
