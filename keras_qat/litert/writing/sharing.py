"""Stores equal parts of a file once. A FlatBuffer may refer to one object from many places."""

from typing import Any

import numpy as np
from flatbuffers.builder import Builder


class SharingBuilder(Builder):
    """A FlatBuffers builder that stores equal numpy vectors once.

    Per-channel quantization has many equal vectors: all zero points are vectors of zeros.

    Example:
        >>> import numpy as np
        >>> from keras_qat.litert.writing.sharing import SharingBuilder
        >>> builder = SharingBuilder(1024)
        >>> first = builder.CreateNumpyVector(np.zeros(64, "int64"))
        >>> first == builder.CreateNumpyVector(np.zeros(64, "int64"))
        True
    """

    def __init__(self, initialSize: int = 1024):  # the name in flatbuffers
        super().__init__(initialSize)
        self._vectors: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # the name in flatbuffers
        """Stores a vector, or finds an equal vector.

        Args:
            x: The vector, of numbers.

        Returns:
            The offset of the vector.
        """
        key = x.dtype.str, x.tobytes()
        if key not in self._vectors:
            self._vectors[key] = super().CreateNumpyVector(x)
        return self._vectors[key]


class SharedTable:
    """An object-API table that several tables refer to, and that is stored once.

    Args:
        table: The table.
    """

    def __init__(self, table: Any):
        self.table = table
        self._packed: tuple[Builder, int] | None = None

    def Pack(self, builder: Builder) -> int:  # the name in the schema's object API
        """Stores the table if this builder has not stored it yet.

        Args:
            builder: The builder of the file.

        Returns:
            The offset of the table.
        """
        if self._packed is None or self._packed[0] is not builder:
            self._packed = builder, self.table.Pack(builder)
        return self._packed[1]
