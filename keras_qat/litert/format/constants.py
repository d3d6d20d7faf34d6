"""Finds the data of constants in a file, and checks its size."""

import math

import numpy as np

from keras_qat.litert.format.element_types import dense_bytes, element_type
from keras_qat.litert.format.flatbuffer import Damage, Record

_CSR = 1  # DimensionType.SPARSE_CSR


def buffer_data(buffer: Record, content: bytes) -> memoryview | None:
    """Returns the bytes of a buffer, from its table or after all tables, or None if it is empty.

    Args:
        buffer: The `Buffer` table.
        content: The whole file.

    Raises:
        Damage: if the bytes lie outside the file.
    """
    if buffer["data"] is not None and buffer["data"].size:
        return memoryview(buffer["data"])
    start, size = buffer["offset"], buffer["size"]
    if start <= 1 or not size:  # some converters write 1 as a placeholder
        return None
    if start + size > len(content):
        raise Damage("Buffer", f"bytes {start} to {start + size} of {len(content)} are asked for")
    return memoryview(content)[start : start + size]


def check_constant(tensor: Record, data: memoryview, where: str) -> None:
    """Checks that a constant has the number of bytes that its shape, type and sparsity need.

    Follows LiteRT's own verifier
    (https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/core/tools/verifier.cc).

    Args:
        tensor: The `Tensor` table, whose shape has been checked.
        data: Bytes of the constant.
        where: Name of the tensor, for messages.

    Raises:
        Damage: if the number of bytes differs.
    """
    dtype = element_type(tensor["type"])
    if dtype == "string":
        _check_strings(np.frombuffer(data, np.uint8), where)
        return
    shape = () if tensor["shape"] is None else tensor["shape"].tolist()
    if tensor["sparsity"] is not None:
        shape = (_sparse_elements(tensor["sparsity"], list(shape), f"{where}.sparsity"),)
    needed = dense_bytes(shape, dtype)
    if needed is not None and needed != len(data):
        raise Damage(where, f"{list(shape)} of {dtype} need {needed} bytes, not {len(data)}")


def _check_strings(data: np.ndarray, where: str) -> None:
    """Checks the count of strings, their offsets and the end, each an int32, then the strings."""
    words = data[: data.size // 4 * 4].view("<u4")
    count = int(words[0]) if words.size else 0
    if count + 2 > words.size:
        raise Damage(where, f"{data.size} bytes cannot hold {count} strings")
    offsets = words[1 : count + 2].astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    if first != 4 * (count + 2) or last != data.size or (np.diff(offsets) < 0).any():
        raise Damage(where, "the offsets of its strings are not valid")


def _sparse_elements(sparsity: Record, shape: list[int], where: str) -> int:
    """Returns the number of elements that a sparse tensor stores, and checks each level."""
    order, levels = sparsity["traversal_order"], sparsity["dim_metadata"]
    if order is None or levels is None or order.size != len(levels) or order.size < len(shape):
        raise Damage(where, "its levels do not fit the rank of the tensor")
    dimensions: list[int] = order.tolist()
    sizes = _expanded_sizes(sparsity, dimensions, shape, where)
    elements = 1
    for level, dimension in zip(levels, dimensions, strict=True):
        if level["format"] == _CSR:
            elements = _stored_indices(level, elements, sizes[dimension], where)
        elif level["format"] != 0 or level["dense_size"] != sizes[dimension]:
            raise Damage(where, f"dimension {dimension} is not dense, of size {sizes[dimension]}")
        else:
            elements *= level["dense_size"]
    return elements


def _expanded_sizes(sparsity: Record, order: list[int], shape: list[int], where: str) -> list[int]:
    """Returns the sizes of the dimensions, divided into blocks, and the sizes of the blocks."""
    rank = len(shape)
    block_map = sparsity["block_map"]
    blocks: list[int] = [] if block_map is None else block_map.tolist()
    permuted = sorted(order[:rank]) + sorted(order[rank:])
    if permuted != list(range(len(order))) or len(blocks) != len(order) - rank:
        raise Damage(where, f"traversal_order {order} with block_map {blocks} is not valid")
    sizes = shape + [0] * len(blocks)
    for i, mapped in enumerate(blocks):
        size = sparsity["dim_metadata"][rank + i]["dense_size"]
        if size < 1 or not 0 <= mapped < rank or sizes[mapped] % size:
            raise Damage(where, f"block {i} of size {size} does not divide dimension {mapped}")
        sizes[order[rank + i]] = size
        sizes[mapped] //= size
    return sizes


def _stored_indices(level: Record, rows: int, size: int, where: str) -> int:
    """Returns the number of elements of a compressed level, and checks its indices."""
    segments, indices = (
        table["values"] if table is not None and "values" in table else None
        for table in (level["array_segments"], level["array_indices"])
    )
    if segments is None or indices is None or segments.size != rows + 1:
        raise Damage(where, f"a compressed dimension needs {rows + 1} segments, and indices")
    ends = segments.astype(np.int64)
    if ends[0] or (np.diff(ends) < 0).any() or ends[-1] != indices.size:
        raise Damage(where, "the segments of a compressed dimension are not valid")
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        raise Damage(where, f"an index of a compressed dimension is not below {size}")
    return indices.size


def is_empty(tensor: Record) -> bool:
    """Returns whether a tensor has no elements, and therefore needs no data."""
    return tensor["shape"] is not None and math.prod(tensor["shape"].tolist()) == 0
