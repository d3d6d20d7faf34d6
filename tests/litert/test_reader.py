import os
import struct

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert import Runner, read, to_bytes, write
from tests.litert import foreign
from tests.litert.conftest import build_conv, build_network

CONV = to_bytes(build_conv())


def subgraph(table):
    return table.subgraphs[0]


def test_read_gives_the_values_of_the_generated_classes():
    """Compares field by field through all tables."""
    for content in (CONV, to_bytes(build_network()), foreign.sparse()):
        _same(read(content).model, foreign.unpacked(content))


def _same(record, table):
    fields = {name.replace("_", "").lower(): value for name, value in record.items()}
    assert fields.keys() >= {name.lower() for name in vars(table)}
    for name, value in vars(table).items():
        mine = fields[name.lower()]
        if hasattr(value, "Pack"):
            _same(mine, value)
        elif isinstance(value, list) and value and hasattr(value[0], "Pack"):
            assert len(mine) == len(value)
            for pair in zip(mine, value, strict=True):
                _same(*pair)
        elif isinstance(value, np.ndarray | list):
            assert np.array_equal(mine, value)
        else:
            assert mine == (value.decode() if isinstance(value, bytes) else value), name


@pytest.mark.parametrize("kind", foreign.KINDS)
def test_read_and_runner_take_files_of_the_converter(kind):
    content = foreign.converted(kind)
    _same(read(content).model, foreign.unpacked(content))
    assert Runner(content).outputs


@pytest.mark.parametrize("kernels", ["reference", "default"])
def test_runner_takes_sparse_and_large_files(kernels):
    large, sparse = (Runner(f(), kernels=kernels) for f in (foreign.large, foreign.sparse))
    assert large.run([np.array([1, 2], np.float32)])[0].tolist() == [11, 22]
    assert (sparse.run([np.ones((3, 4), np.float32)])[0] == foreign.DENSE + 1).all()


def table_change(**fields):
    def change(table):
        for name, value in fields.items():
            setattr(table, name, value)

    return change


def tensor_change(number, **fields):
    return lambda table: table_change(**fields)(subgraph(table).tensors[number])


def operator_change(**fields):
    return lambda table: table_change(**fields)(subgraph(table).operators[0])


def scales(count, zeros, axis=0):
    q = schema.QuantizationParametersT(
        scale=[0.5] * count, zeroPoint=[0] * zeros, quantizedDimension=axis
    )
    return tensor_change(0, quantization=q)


def add_operator(table):
    subgraph(table).operators *= 2


def call(code, options_type, options, *others):
    def change(table):
        table.operatorCodes.append(foreign.builtin(code))
        graph = subgraph(table)
        graph.operators.append(
            schema.OperatorT(
                opcodeIndex=1,
                inputs=[],
                outputs=[],
                builtinOptionsType=options_type,
                builtinOptions=options,
            )
        )

    return change


IF, OPTIONS = schema.BuiltinOperator.IF, schema.BuiltinOptions

INCONSISTENT = {
    "version": (table_change(version=2), r"Model\.version: it is 2, not 3"),
    "no subgraph": (table_change(subgraphs=[]), r"Model\.subgraphs: there are none"),
    "no buffers": (table_change(buffers=[]), r"tensors\[1\] 'w'\.buffer: 1 is not one of 0"),
    "operator code": (operator_change(opcodeIndex=7), r"opcode_index: 7 is not one of 1"),
    "input": (operator_change(inputs=[0, 1, 9]), r"CONV_2D\)\.inputs: 9 is not one of 4"),
    "negative input": (operator_change(inputs=[-2]), r"inputs: -2 is not one of 4"),
    "absent output": (operator_change(outputs=[-1]), r"outputs: -1 is not one of 4"),
    "graph output": (
        lambda t: table_change(outputs=[4])(subgraph(t)),
        r"subgraphs\[0\]\.outputs: 4 is not one of 4",
    ),
    "nobody computes": (operator_change(inputs=[3, 1, 2]), "tensor 3 is not computed before"),
    "computed twice": (add_operator, "tensor 3 has a value already"),
    "constant computed": (operator_change(outputs=[1]), "tensor 1 has a value already"),
    "buffer": (tensor_change(1, buffer=99), r"tensors\[1\] 'w'\.buffer: 99 is not one of"),
    "too little data": (
        tensor_change(1, shape=[2, 2, 2, 9]),
        r"\[2, 2, 2, 9\] of int8 need 72 bytes, not 8",
    ),
    "type": (tensor_change(1, type=schema.TensorType.FLOAT64), "of float64 need 64 bytes, not 8"),
    "negative size": (tensor_change(0, shape=[1, -2, 2, 1]), r"'x'\.shape: no tensor can be"),
    "huge": (tensor_change(0, shape=[2**30, 2**30, 2**30, 2**30]), "no tensor can be of shape"),
    "signature": (tensor_change(0, shapeSignature=[-1, 2]), r"shape_signature: \[-1, 2\] does not"),
    "zero points": (scales(1, 2), "1 scales, 2 zero points"),
    "scales": (scales(3, 3, 1), r"3 scales at axis 1 of shape \[1, 2, 2, 1\]"),
    "axis": (scales(2, 2, 7), "2 scales at axis 7"),
    "custom name": (
        lambda t: table_change(builtinCode=32, deprecatedBuiltinCode=32)(t.operatorCodes[0]),
        "custom_code: a custom operator needs a name",
    ),
    "negative code": (
        lambda t: table_change(builtinCode=-5, deprecatedBuiltinCode=-5)(t.operatorCodes[0]),
        r"operator_codes\[0\]: builtin_code=-5",
    ),
    "signature tensor": (
        lambda t: table_change(tensorIndex=50)(t.signatureDefs[0].inputs[0]),
        r"signature_defs\[0\]\.inputs\[0\]\.tensor_index: 50 is not one of 4",
    ),
    "signature subgraph": (
        lambda t: table_change(subgraphIndex=1)(t.signatureDefs[0]),
        "subgraph_index: 1 is not one of 1",
    ),
    "signature key": (
        lambda t: table_change(signatureKey=None)(t.signatureDefs[0]),
        "signature_key: it is absent",
    ),
    "metadata": (
        lambda t: table_change(buffer=70)(t.metadata[0]),
        r"metadata\[0\]\.buffer: 70 is not one of",
    ),
    "metadata name": (lambda t: table_change(name=None)(t.metadata[0]), "name: it is absent"),
    "data beyond the end": (
        lambda t: table_change(data=None, offset=10**6, size=8)(t.buffers[1]),
        r"buffers\[1\]: bytes 1000000 to 1000008 of \d+ are asked for",
    ),
    "options beyond the end": (
        operator_change(largeCustomOptionsOffset=2**63, largeCustomOptionsSize=2**63),
        "large_custom_options: they end at",
    ),
    "branch": (
        call(IF, OPTIONS.IfOptions, schema.IfOptionsT(0, 5)),
        r"else_subgraph_index: 5 is not one of 1",
    ),
    "calls itself": (
        call(IF, OPTIONS.IfOptions, schema.IfOptionsT(0, 0)),
        r"Model\.subgraphs\[0\]: it runs itself",
    ),
}


@pytest.mark.parametrize("change, message", INCONSISTENT.values(), ids=INCONSISTENT)
def test_read_refuses_inconsistent_tables(change, message):
    content = foreign.repacked(CONV, change)
    with pytest.raises(LiteRTFormatError, match=message):
        read(content)
    with pytest.raises(LiteRTFormatError, match=message):
        Runner(content)


def sparsity_change(change):
    return lambda table: change(subgraph(table).tensors[0].sparsity)


SPARSE = {
    "order": (lambda s: table_change(traversalOrder=[0, 0])(s), r"traversal_order \[0, 0\]"),
    "levels": (lambda s: s.dimMetadata.pop(), "levels do not fit the rank"),
    "dense size": (
        lambda s: table_change(denseSize=4)(s.dimMetadata[0]),
        "dimension 0 is not dense",
    ),
    "segments": (
        lambda s: table_change(values=[0, 4])(s.dimMetadata[1].arraySegments),
        "needs 4 segments",
    ),
    "descending": (
        lambda s: table_change(values=[0, 3, 2, 4])(s.dimMetadata[1].arraySegments),
        "segments of a compressed dimension are not valid",
    ),
    "index": (
        lambda s: table_change(values=[1, 3, 0, 4])(s.dimMetadata[1].arrayIndices),
        "an index of a compressed dimension is not below 4",
    ),
    "block": (
        lambda s: table_change(blockMap=[1])(s),
        r"traversal_order \[0, 1\] with block_map \[1\]",
    ),
}


@pytest.mark.parametrize("change, message", SPARSE.values(), ids=SPARSE)
def test_read_refuses_sparsity_beyond_the_tensor(change, message):
    with pytest.raises(LiteRTFormatError, match=message):
        read(foreign.repacked(foreign.sparse(), sparsity_change(change)))


def strings(*words):
    """Makes a file with a constant of strings from the words of its data."""
    tensors = [
        foreign.tensor("s", (2,), schema.TensorType.STRING, buffer=1),
        foreign.tensor("y", (2,), schema.TensorType.STRING),
    ]
    data = struct.pack(f"<{len(words)}I", *words) + b"ab"
    code = foreign.builtin(schema.BuiltinOperator.RESHAPE)
    return foreign.one_operator(code, tensors, [0], [1], [data])


def test_read_checks_the_offsets_of_strings():
    assert read(strings(2, 16, 17, 18))
    for words in [(2, 16, 99, 18), (2, 15, 17, 18), (2, 16, 17, 19), (99, 16, 17, 18)]:
        with pytest.raises(LiteRTFormatError, match=r"tensors\[0\] 's': "):
            read(strings(*words))


UNRUNNABLE = {
    "scale": (
        tensor_change(0, quantization=schema.QuantizationParametersT(scale=[-1.0], zeroPoint=[0])),
        r"'x'\.quantization\.scale: scales must be positive, finite",
    ),
    "zero point": (
        tensor_change(0, quantization=schema.QuantizationParametersT(scale=[1.0], zeroPoint=[128])),
        r"'x'\.quantization\.zero_point: one is not of type int8",
    ),
    "operands": (operator_change(inputs=[0]), "it has 1 inputs and 1 outputs"),
    "absent": (operator_change(inputs=[0, -1, 2]), "input 1 is absent"),
    "options": (
        operator_change(builtinOptionsType=OPTIONS.AddOptions, builtinOptions=schema.AddOptionsT()),
        "its options are AddOptions, not Conv2DOptions",
    ),
    "stride": (
        lambda t: table_change(strideW=0)(subgraph(t).operators[0].builtinOptions),
        "stride_w is 0",
    ),
    "result": (
        tensor_change(3, shape=[1, 2, 2, 2], shapeSignature=[-1, 2, 2, 2]),
        r"has shape \[-1, 1, 1, 2\], but the file states \[1, 2, 2, 2\]",
    ),
    "memory": (
        tensor_change(0, shape=[1, 2**19, 2**20, 1], shapeSignature=[-1, 2**19, 2**20, 1]),
        r"its tensors take \d{12} bytes, and the machine has",
    ),
}


@pytest.mark.parametrize("change, message", UNRUNNABLE.values(), ids=UNRUNNABLE)
def test_runner_refuses_valid_files_that_stop_the_interpreter(change, message):
    content = foreign.repacked(CONV, change)
    assert read(content)
    with pytest.raises(LiteRTFormatError, match=message):
        Runner(content)


def test_runner_refuses_a_reshape_between_types():
    tensors = [foreign.tensor("x", (1, 4)), foreign.tensor("y", (4,), schema.TensorType.INT8)]
    code = foreign.builtin(schema.BuiltinOperator.RESHAPE)
    with pytest.raises(LiteRTFormatError, match=r"are of types \['float32', 'int8'\]"):
        Runner(foreign.one_operator(code, tensors, [0], [1]))


def test_runner_refuses_a_name_that_is_not_text():
    content = foreign.repacked(CONV, tensor_change(0, name=b"\xff"))
    assert read(content).model["subgraphs"][0]["tensors"][0]["name"] == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(LiteRTFormatError, match="cannot describe the file's tensors"):
        Runner(content)


def test_read_refuses_paths_that_are_not_regular_files(tmp_path):
    for path in (tmp_path, "/dev/zero", tmp_path / "missing", "a\0b", ""):
        with pytest.raises(LiteRTFormatError, match="path="):
            read(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LiteRTFormatError, match="^This is not a regular file"):
        read(tmp_path / "pipe")


def test_read_names_the_file_in_its_error(tmp_path):
    path = tmp_path / "model.tflite"
    write(build_conv(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LiteRTFormatError, match=r"model\.tflite' is damaged, or is not.*at Model"):
        read(path)
