"""The element types of tensors, and their sizes in bytes."""

import math
from collections.abc import Iterable

from keras_qat.litert.format.schema_enums import name_of

# Bits of an element, by the schema's TensorType. None if elements have no fixed size.
BITS = {
    "float64": 64,
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "float8_e4m3fn": 8,
    "float8_e5m2": 8,
    "complex64": 64,
    "complex128": 128,
    "int64": 64,
    "int32": 32,
    "int16": 16,
    "int8": 8,
    "int4": 4,
    "int2": 2,
    "uint64": 64,
    "uint32": 32,
    "uint16": 16,
    "uint8": 8,
    "uint4": 4,
    "bool": 8,
    "string": None,
    "resource": None,
    "variant": None,
}


def element_type(number: int) -> str:
    """Returns the name of an element type.

    Args:
        number: Number in the schema's `TensorType`.

    Returns:
        The schema's name in lower case, or `"unknown(99)"` for a number that is not in the schema
        of the installed `ai-edge-litert`.

    Example:
        >>> from keras_qat.litert.format.element_types import element_type
        >>> element_type(9), element_type(99)
        ('int8', 'unknown(99)')
    """
    return name_of("TensorType", number).lower()


def dense_bytes(shape: Iterable[int], dtype: str) -> int | None:
    """Returns the size of a dense tensor in bytes. Elements of less than a byte are packed.

    Args:
        shape: Dimensions of the tensor.
        dtype: Name of its element type.

    Returns:
        The number of bytes, or `None` if elements of that type have no fixed or known size.

    Example:
        >>> from keras_qat.litert.format.element_types import dense_bytes
        >>> dense_bytes((3, 3), "int16"), dense_bytes((3, 3), "int4"), dense_bytes((2,), "string")
        (18, 5, None)
    """
    bits = BITS.get(dtype)
    return None if bits is None else (math.prod(int(n) for n in shape) * bits + 7) // 8
