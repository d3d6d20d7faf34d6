import os

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_qat.errors import ExportError, LiteRTFormatError
from keras_qat.litert import (
    Model,
    Operator,
    Quantization,
    Runner,
    Tensor,
    expose_tensors,
    read,
    to_bytes,
    write,
)
from keras_qat.litert.reading.file_operators import file_operators


def data_offsets(content):
    """Returns where each constant's data starts in the file. The schema's reader reads it."""
    root = schema.Model.GetRootAs(content)
    base = np.frombuffer(content, np.uint8).ctypes.data
    buffers = [root.Buffers(i) for i in range(root.BuffersLength())]
    return [b.DataAsNumpy().ctypes.data - base for b in buffers if not b.DataIsNone()]


def odd_sized_model():
    """Makes a chain of additions of constants of 1 to 67 bytes."""
    x = last = Tensor("x", (1, 1), "int8")
    operators = []
    for i, size in enumerate((1, 3, 7, 13, 16, 17, 31, 67)):
        c = Tensor(f"c{i}", (1, size), "int8", data=np.full((1, size), i + 1, np.int8))
        y = Tensor(f"y{i}", (1, size), "int8")
        operators.append(Operator("CONCATENATION", (last, c), (y,), 2))
        last = y
    return Model({"x": x}, {"y": last}, tuple(operators))


@pytest.mark.parametrize("convert", [bytes, expose_tensors])
def test_to_bytes_aligns_constants_to_16_bytes(convert):
    offsets = data_offsets(convert(to_bytes(odd_sized_model())))
    assert len(offsets) == 8 + 1  # and the metadata
    assert [offset % 16 for offset in offsets] == [0] * 9


def test_to_bytes_is_deterministic(network):
    assert to_bytes(network) == to_bytes(network)


def test_to_bytes_writes_header_and_tables(conv_model):
    content = to_bytes(conv_model)
    assert content[4:8] == b"TFL3"
    table = schema.ModelT.InitFromPackedBuf(content)
    assert table.version == 3
    assert table.description == b"keras_qat"
    assert table.buffers[0].data is None
    subgraph = table.subgraphs[0]
    x, w, b, y = subgraph.tensors
    assert [t.name for t in subgraph.tensors] == [b"x", b"w", b"b", b"y"]
    assert (x.buffer, y.buffer) == (0, 0)
    assert x.shape.tolist() == [1, 2, 2, 1]
    assert x.shapeSignature.tolist() == [-1, 2, 2, 1]
    assert w.shapeSignature is None
    assert w.quantization.scale.tolist() == [0.5, 0.25]
    assert w.quantization.zeroPoint.tolist() == [0, 0]
    assert b.type == schema.TensorType.INT32
    assert table.buffers[b.buffer].data.tobytes() == np.array([4, -2], np.int32).tobytes()
    assert subgraph.inputs.tolist() == [0]
    assert subgraph.outputs.tolist() == [3]


def offsets_of(content, field):
    """Returns where the vector of a quantization field of each tensor starts."""
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    tables = [graph.Tensors(i).Quantization() for i in range(graph.TensorsLength())]
    return [getattr(q, f"{field}AsNumpy")().ctypes.data for q in tables if q is not None]


def test_to_bytes_stores_equal_quantization_parameters_once():
    def tensor(name, scales):
        scale = np.array(scales, "float32")
        grid = Quantization(scale, np.zeros(scale.size, "int64"))
        return Tensor(name, (3, 1), "int8", grid)

    x, y, z = tensor("x", [1, 2, 3]), tensor("y", [1, 2, 3]), tensor("z", [4, 5, 6])
    operators = (Operator("RELU", (x,), (y,)), Operator("RELU", (y,), (z,)))
    content = to_bytes(Model({"x": x}, {"z": z}, operators))
    scales, zeros = offsets_of(content, "Scale"), offsets_of(content, "ZeroPoint")
    assert scales[0] == scales[1] != scales[2]
    assert len(set(zeros)) == 1
    written = schema.ModelT.InitFromPackedBuf(content).subgraphs[0].tensors
    assert [t.quantization.scale.tolist() for t in written] == [[1, 2, 3], [1, 2, 3], [4, 5, 6]]


def test_to_bytes_stores_equal_constants_once():
    x, y, z = (Tensor(name, (1, 2), "int32") for name in "xyz")
    a, b, c = (
        Tensor(n, (1, 2), "int32", data=np.array([[1, v]], "int32"))
        for n, v in zip("abc", (2, 2, 3), strict=True)
    )
    ends = Tensor("w", (1, 2), "int32")
    operators = (
        Operator("MAXIMUM", (x, a), (y,)),
        Operator("MAXIMUM", (y, b), (z,)),
        Operator("MAXIMUM", (z, c), (ends,)),
    )
    content = to_bytes(Model({"x": x}, {"w": ends}, operators))
    written = schema.ModelT.InitFromPackedBuf(content)
    buffers = {t.name: t.buffer for t in written.subgraphs[0].tensors}
    assert buffers[b"a"] == buffers[b"b"] != buffers[b"c"]
    assert Runner(content).run([np.zeros((1, 2), "int32")])[0].tolist() == [[1, 3]]


def test_to_bytes_writes_options_by_name():
    x, y = Tensor("x", (1, 2), "int8"), Tensor("y", (1, 2), "int8")
    options = {"fusedActivationFunction": "RELU6", "weightsFormat": "DEFAULT", "keepNumDims": True}
    operator = Operator("FULLY_CONNECTED", (x, x, None), (y,), 4, options)
    table = schema.ModelT.InitFromPackedBuf(to_bytes(Model({"x": x}, {"y": y}, (operator,))))
    written = table.subgraphs[0].operators[0]
    assert written.inputs.tolist() == [0, 0, -1]
    assert written.builtinOptionsType == schema.BuiltinOptions.FullyConnectedOptions
    assert written.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.RELU6
    assert written.builtinOptions.keepNumDims
    assert written.builtinOptions.asymmetricQuantizeInputs == 0


def test_to_bytes_writes_vector_options():
    x, y = Tensor("x", (1, 4), "int8"), Tensor("y", (2, 2), "int8")
    operator = Operator("RESHAPE", (x,), (y,), 1, {"newShape": (2, 2)})
    table = schema.ModelT.InitFromPackedBuf(to_bytes(Model({"x": x}, {"y": y}, (operator,))))
    assert table.subgraphs[0].operators[0].builtinOptions.newShape.tolist() == [2, 2]


def test_to_bytes_writes_one_operator_code_per_code_and_version():
    kinds = [("ADD", 1), ("ADD", 2), ("ADD", 1), ("BATCH_MATMUL", 1), ("GELU", 2)]
    x, *outputs = [Tensor(f"t{i}", (1, 2), "int8") for i in range(6)]
    pairs = zip(kinds, outputs, strict=True)
    operators = tuple(Operator(code, (x, x), (y,), version) for (code, version), y in pairs)
    content = to_bytes(Model({"x": x}, {"y": outputs[-1]}, operators))
    table = schema.ModelT.InitFromPackedBuf(content)
    written = [(c.builtinCode, c.deprecatedBuiltinCode, c.version) for c in table.operatorCodes]
    assert written == [(0, 0, 1), (0, 0, 2), (126, 126, 1), (150, 127, 2)]
    assert [op.opcodeIndex for op in table.subgraphs[0].operators] == [0, 1, 0, 2, 3]


def test_to_bytes_writes_a_tensor_used_twice_once():
    x, y, z = (Tensor(name, (1, 2), "int8") for name in "xyz")
    c = Tensor("c", (1, 2), "int8", data=np.array([[1, 2]], np.int8))
    operators = (Operator("ADD", (x, c), (y,), 2), Operator("ADD", (y, c), (z,), 2))
    table = schema.ModelT.InitFromPackedBuf(to_bytes(Model({"x": x}, {"z": z}, operators)))
    assert [t.name for t in table.subgraphs[0].tensors] == [b"x", b"c", b"y", b"z"]
    assert len(table.buffers) == 1 + 1 + 1  # empty, c, metadata


@pytest.mark.parametrize(
    "code, version, release", [("ADD", 2, "1.14.0"), ("GELU", 2, "2.9.0"), ("GELU", 77, None)]
)
def test_to_bytes_writes_the_minimum_runtime_version(code, version, release):
    x, y = Tensor("x", (1, 2), "int8"), Tensor("y", (1, 2), "int8")
    model = Model({"x": x}, {"y": y}, (Operator(code, (x, x), (y,), version),))
    table = schema.ModelT.InitFromPackedBuf(to_bytes(model))
    found = {m.name: table.buffers[m.buffer].data.tobytes() for m in table.metadata or ()}
    expected = {b"min_runtime_version": release.encode().ljust(16, b"\0")} if release else {}
    assert found == expected


def test_to_bytes_writes_a_signature(conv_model, conv_case):
    x, y = conv_case
    interpreter = Interpreter(model_content=to_bytes(conv_model))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["image"], "outputs": ["logits"]}
    }
    result = interpreter.get_signature_runner("serving_default")(image=x)["logits"]
    assert (result == y).all()


def test_write(conv_model, tmp_path):
    path = tmp_path / "model.tflite"
    write(conv_model, path)
    assert path.read_bytes() == to_bytes(conv_model)
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_write_to_a_missing_directory(conv_model, tmp_path):
    path = tmp_path / "missing" / "model.tflite"
    with pytest.raises(ExportError, match=str(path)):
        write(conv_model, path)
    assert os.listdir(tmp_path) == []


def test_write_over_a_directory(conv_model, tmp_path):
    (tmp_path / "model.tflite").mkdir()
    with pytest.raises(ExportError, match="model.tflite"):
        write(conv_model, tmp_path / "model.tflite")
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_write_into_a_file(conv_model, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ExportError, match="model.tflite"):
        write(conv_model, tmp_path / "file" / "model.tflite")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("path", [None, 5, b"model.tflite", "", ".", "a\0b"])
def test_write_refuses_what_is_not_a_path(conv_model, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="path=.*To fix it: "):
        write(conv_model, path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    "raised, seen", [(OSError(28, "full"), ExportError), (KeyError(), KeyError)]
)
def test_write_that_fails_keeps_the_existing_file(
    conv_model, tmp_path, monkeypatch, step, raised, seen
):
    path = tmp_path / "model.tflite"
    path.write_text("before")

    def fail(*_):
        raise raised

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(seen):
        write(conv_model, path)
    assert os.listdir(tmp_path) == ["model.tflite"]
    assert path.read_text() == "before"


def test_write_writes_no_invalid_model(tmp_path):
    x, y = Tensor("x", (1,), "int8"), Tensor("y", (1,), "int8")
    with pytest.raises(LiteRTFormatError):
        write(Model({"x": x}, {"y": y}, ()), tmp_path / "model.tflite")
    assert os.listdir(tmp_path) == []


def lstm_like(state):
    """Makes an operator that sets a variable, and one that takes it, with an intermediate."""
    grid = Quantization(np.full(1, 0.5, "float32"), np.zeros(1, "int64"))
    x, y = Tensor("x", (1, 4), "int8", grid), Tensor("y", (1, 4), "int8", grid)
    between = (Tensor("between", (0,), "int16", grid),)
    add = Operator("ADD", (state, x), (y,), 2, intermediates=between)
    return x, y, add


def test_to_bytes_writes_variables_and_intermediates():
    grid = Quantization(np.full(1, 0.5, "float32"), np.zeros(1, "int64"))
    state = Tensor("state", (1, 4), "int8", grid, is_variable=True)
    x, y, add = lstm_like(state)
    content = to_bytes(Model({"x": x}, {"y": y}, (Operator("MUL", (x, x), (state,), 2), add)))
    graph = schema.ModelT.InitFromPackedBuf(content).subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    assert [tensor.isVariable for tensor in graph.tensors] == [each == "state" for each in names]
    assert [names[i] for i in graph.operators[1].intermediates] == ["between"]
    assert graph.operators[0].intermediates is None
    first, second = file_operators(read(content))
    assert first.outputs[0].is_variable and second.intermediates[0].name == "between"
    exposed = Runner(expose_tensors(content))
    assert [tensor.name for tensor in exposed.outputs] == ["y"]


def test_variable_needs_no_operator_that_sets_it():
    grid = Quantization(np.full(1, 0.5, "float32"), np.zeros(1, "int64"))
    x, y, add = lstm_like(Tensor("state", (1, 4), "int8", grid, is_variable=True))
    assert to_bytes(Model({"x": x}, {"y": y}, (add,)))
    x, y, add = lstm_like(Tensor("state", (1, 4), "int8", grid))
    with pytest.raises(LiteRTFormatError, match="is not defined before it"):
        to_bytes(Model({"x": x}, {"y": y}, (add,)))
