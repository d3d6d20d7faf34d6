"""Constant data in the file, aligned as microcontroller runtimes need it."""

from typing import Any

import ml_dtypes
import numpy as np

ALIGNMENT = 16
_NARROW = {"int2": 2, "int4": 4}  # bits of an element


class AlignedBuffer:
    """Replaces the schema's `BufferT`, whose own packing does not align data.

    The data starts at a multiple of 16 bytes from the start of the file
    (`force_align: 16` in the schema). Microcontrollers need this alignment, x86 does not.

    Args:
        data: The bytes, or `None` for the empty buffer that activations share.

    Example:
        >>> import flatbuffers
        >>> from keras_qat.litert.writing.buffers import AlignedBuffer
        >>> builder = flatbuffers.Builder()
        >>> _ = builder.Finish(AlignedBuffer(b"keras_qat").Pack(builder))
        >>> bytes(builder.Output()).index(b"keras_qat") % 16
        0
    """

    def __init__(self, data: bytes | None = None):
        self.data = data

    def Pack(self, builder: Any) -> int:  # the name in the schema's object API
        """Appends the buffer to a file under construction.

        Args:
            builder: The `flatbuffers.Builder` of the file.

        Returns:
            The offset of the `Buffer` table.
        """
        from ai_edge_litert import schema_py_generated as schema

        vector = None if self.data is None else _aligned_vector(builder, self.data)
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


def _aligned_vector(builder: Any, data: bytes) -> int:
    builder.StartVector(1, len(data), ALIGNMENT)
    builder.head = builder.Head() - len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return builder.EndVector()


def constant_bytes(data: np.ndarray) -> bytes:
    r"""Returns the bytes of an array in the file, row-major and little-endian on every host.

    Two int4 or four int2 elements are packed in a byte, the first one in the lowest bits.

    Args:
        data: Any array of a fixed-size dtype.

    Returns:
        The bytes of the elements.

    Example:
        >>> import numpy as np
        >>> from keras_qat.litert.writing.buffers import constant_bytes
        >>> constant_bytes(np.int16([1, -2]))
        b'\x01\x00\xfe\xff'
    """
    if data.dtype.name in _NARROW:
        return _packed(data)
    return np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes()


def _packed(data: np.ndarray) -> bytes:
    bits = _NARROW[data.dtype.name]
    shifts = np.arange(0, 8, bits, dtype="uint8")
    fields = np.ravel(data).astype("int8").view("uint8") & (2**bits - 1)
    filler = np.zeros(-fields.size % len(shifts), "uint8")
    groups = np.append(fields, filler).reshape(-1, len(shifts)) << shifts
    return np.bitwise_or.reduce(groups, axis=1).astype("uint8").tobytes()


def unpacked(data: bytes | memoryview, count: int, dtype: str = "int4") -> np.ndarray:
    r"""Unpacks the elements of 2 or 4 bits that a file stores, several in a byte.

    Args:
        data: The bytes.
        count: Number of elements.
        dtype: `"int2"` or `"int4"`.

    Example:
        >>> from keras_qat.litert.writing.buffers import unpacked
        >>> unpacked(b"\x7f\x01", 3).astype("int8").tolist()
        [-1, 7, 1]
    """
    bits = _NARROW[dtype]
    shifts, sign = np.arange(0, 8, bits, dtype="uint8"), 2 ** (bits - 1)
    fields = (np.frombuffer(data, "uint8")[:, None] >> shifts).ravel()[:count] & (2**bits - 1)
    return ((fields.astype("int8") ^ sign) - sign).astype(getattr(ml_dtypes, dtype))
