"""Makes the intermediate tensors of a file readable, with any delegate."""

from typing import Any

import numpy as np

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert.reading.reader import read
from keras_qat.litert.writing.buffers import AlignedBuffer
from keras_qat.litert.writing.writer import finish


def expose_tensors(content: bytes) -> bytes:
    """Returns a copy of a file in which every operator's outputs are outputs of the model.

    A delegate such as XNNPACK does not return intermediate tensors, but it returns outputs. The
    original outputs come first, in their order. The signatures do not change. Variables are left
    out.

    Args:
        content: A `.tflite` file with one subgraph.

    Returns:
        The content of the changed file, its constants aligned to 16 bytes.

    Raises:
        LiteRTFormatError: if the content is not a `.tflite` file, has several subgraphs, or holds
            data outside its tables (files over 2 GiB).

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor, expose_tensors, to_bytes
        >>> x, y, z = (Tensor(name, (1, 8), "float32") for name in "xyz")
        >>> ops = (Operator("RELU", (x,), (y,)), Operator("TANH", (y,), (z,)))
        >>> content = to_bytes(Model({"x": x}, {"z": z}, ops))
        >>> from keras_qat.litert import Runner
        >>> [t.name for t in Runner(expose_tensors(content)).outputs]
        ['z', 'y']
    """
    table = unpack(content)
    if len(table.subgraphs) != 1:
        raise LiteRTFormatError(
            "Only files with one subgraph can have their tensors exposed.",
            received=f"{len(table.subgraphs)} subgraphs",
        )
    subgraph = table.subgraphs[0]
    vectors = [op.outputs for op in subgraph.operators or () if op.outputs is not None]
    results = dict.fromkeys(int(i) for vector in vectors for i in vector)
    outputs = [int(i) for i in subgraph.outputs]
    hidden = [i for i in results if subgraph.tensors[i].isVariable]
    subgraph.outputs = outputs + [i for i in results if i not in outputs + hidden]
    return repack(table)


def without_last(content: bytes, code: str) -> bytes:
    """Returns a copy of a file without its last operator, if the operator has a given code.

    The computed inputs of the operator become the outputs of the file, in the order in which they
    are computed. The file then has no signature.

    Args:
        content: A `.tflite` file.
        code: Name of the operator, as in reports.

    Returns:
        The content of the changed file; `content` itself if the last operator is another one.

    Raises:
        LiteRTFormatError: if the content is not a `.tflite` file, or holds data outside its tables
            (files over 2 GiB).

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor, read, to_bytes
        >>> from keras_qat.litert.running.expose import without_last
        >>> x, y, z = (Tensor(name, (1, 8), "float32") for name in "xyz")
        >>> ops = (Operator("RELU", (x,), (y,)), Operator("TANH", (y,), (z,)))
        >>> content = to_bytes(Model({"x": x}, {"z": z}, ops))
        >>> len(read(without_last(content, "TANH")).model["subgraphs"][0]["operators"])
        1
    """
    file = read(content)
    operators = file.model["subgraphs"][0]["operators"] or ()
    if not operators or file.operator_name(operators[-1]) != code:
        return content
    table = unpack(content)
    subgraph = table.subgraphs[0]
    *subgraph.operators, last = subgraph.operators
    made = [int(i) for operator in subgraph.operators for i in operator.outputs]
    wanted = set(map(int, last.inputs))
    subgraph.outputs = [i for i in made if i in wanted]
    table.signatureDefs = []
    return repack(table)


def unpack(content: bytes) -> Any:
    """Reads a file into the schema's object-API tables.

    Args:
        content: A `.tflite` file.

    Returns:
        The `ModelT`.

    Raises:
        LiteRTFormatError: if the content is not a `.tflite` file, or is damaged.

    Example:
        >>> from keras_qat.litert.running.expose import unpack
        >>> from keras_qat.litert import Model, Operator, Tensor, to_bytes
        >>> x, y = Tensor("x", (1, 8), "float32"), Tensor("y", (1, 8), "float32")
        >>> unpack(to_bytes(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)))).version
        3
    """
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(read(content).content)


def repack(table: Any) -> bytes:
    """Packs the tables that `unpack` read.

    Args:
        table: The `ModelT`. Added buffers must be `AlignedBuffer`s.

    Returns:
        The content of the file, its constants aligned to 16 bytes.

    Raises:
        LiteRTFormatError: if the file holds data outside its tables (files over 2 GiB).

    Example:
        >>> from keras_qat.litert.running.expose import repack, unpack
        >>> from keras_qat.litert import Model, Operator, Tensor, to_bytes
        >>> x, y = Tensor("x", (1, 8), "float32"), Tensor("y", (1, 8), "float32")
        >>> content = to_bytes(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)))
        >>> unpack(repack(unpack(content))).version
        3
    """
    table.buffers = [_realigned(buffer) for buffer in table.buffers]
    return finish(table)


def _realigned(buffer: Any) -> AlignedBuffer:
    """Returns a buffer that is written with alignment."""
    if isinstance(buffer, AlignedBuffer):
        return buffer
    if buffer.offset > 1 or buffer.size > 1:  # some converters write 1 as a placeholder
        raise LiteRTFormatError(
            "Files that keep their constants after the tables (over 2 GiB) are not supported."
        )
    if buffer.data is None:
        return AlignedBuffer()
    return AlignedBuffer(np.asarray(buffer.data, np.uint8).tobytes())
