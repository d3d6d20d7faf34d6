"""inspect_litert against the interpreter's details of the same files and hand-computed numbers."""

import json

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import keras_qat
from keras_qat.litert import Model, Operator, Tensor, to_bytes
from tests.litert import foreign
from tests.litert.conftest import build_conv, build_network

OURS = {"conv": lambda: to_bytes(build_conv()), "network": lambda: to_bytes(build_network())}
MADE = OURS | {"sparse": foreign.sparse, "large": foreign.large}


def content_of(name):
    return MADE[name]() if name in MADE else foreign.converted(name)


ALL = pytest.mark.parametrize("name", [*MADE, *foreign.KINDS])


def interpreter_of(content):
    # Without delegates, which would replace operators and add tensors.
    from ai_edge_litert.interpreter import OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(model_content=content, experimental_op_resolver_type=resolver)


def quantization(tensor):
    if tensor.quantization is None:
        return [], [], 0
    q = tensor.quantization
    return list(q.scale), list(q.zero_point), q.axis


@ALL
def test_inspect_litert_lists_the_tensors_of_the_interpreter(name):
    content = content_of(name)
    interpreter = interpreter_of(content)
    tensors = [t for t in keras_qat.inspect_litert(content).tensors if t.subgraph == 0]
    details = {raw["index"]: raw for raw in interpreter.get_tensor_details()}
    # The interpreter omits tensors without a NumPy dtype, and adds temporary tensors at the end.
    assert {tensor.index for tensor in tensors} >= {i for i in details if i < len(tensors)}
    for tensor in tensors:
        raw = details[tensor.index]
        q = raw["quantization_parameters"]
        signature = raw["shape_signature"]
        assert tensor.name == raw["name"]
        assert tensor.dtype == np.dtype(raw["dtype"]).name
        stated = signature if len(signature) else raw["shape"]
        assert [-1 if n is None else n for n in tensor.shape] == list(stated)
        assert quantization(tensor) == (
            q["scales"].tolist(),
            q["zero_points"].tolist(),
            q["quantized_dimension"],
        )
        if not tensor.is_sparse:
            assert tensor.bytes == np.prod(raw["shape"]) * np.dtype(raw["dtype"]).itemsize
        assert tensor.is_sparse == bool(raw["sparsity_parameters"])


@ALL
def test_inspect_litert_lists_the_operators_of_the_interpreter(name):
    content = content_of(name)
    details = interpreter_of(content)._get_ops_details()
    operators = [o for o in keras_qat.inspect_litert(content).operators if o.subgraph == 0]
    assert [
        (operator.index, operator.name, list(operator.inputs), list(operator.outputs))
        for operator in operators
    ] == [
        (raw["index"], raw["op_name"], list(raw["inputs"]), list(raw["outputs"])) for raw in details
    ]


@ALL
def test_inspect_litert_lists_inputs_outputs_and_signatures(name):
    content = content_of(name)
    interpreter = interpreter_of(content)
    report = keras_qat.inspect_litert(content)
    assert [t.index for t in report.inputs] == [d["index"] for d in interpreter.get_input_details()]
    assert [t.index for t in report.outputs] == [
        d["index"] for d in interpreter.get_output_details()
    ]
    assert {
        signature.key: {"inputs": list(signature.inputs), "outputs": list(signature.outputs)}
        for signature in report.signatures
    } == interpreter.get_signature_list()


def test_inspect_litert_marks_constants():
    content = content_of("network")
    interpreter = interpreter_of(content)
    interpreter.allocate_tensors()
    report = keras_qat.inspect_litert(content)
    constants = [tensor for tensor in report.tensors if tensor.is_constant]
    assert {tensor.name for tensor in constants} == {"pads", "w", "b", "shape"}
    read = [interpreter.get_tensor(tensor.index).nbytes for tensor in constants]
    assert [tensor.bytes for tensor in constants] == read
    assert report.weight_bytes == sum(read) == 4 * 9 * 4 + 4 * 4 + 4 * 2 * 4 + 2 * 4


def test_inspect_litert_macs_and_bytes_by_hand():
    report = keras_qat.inspect_litert(content_of("int8"))
    macs = {operator.name: operator.macs or 0 for operator in report.operators}
    assert macs["CONV_2D"] == 8 * 8 * 4 * 3 * 3 * 3
    assert macs["DEPTHWISE_CONV_2D"] == 3 * 3 * 4 * 3 * 3
    assert (
        macs["TRANSPOSE_CONV"] == 3 * 3 * 4 * 2 * 2 * 2
    )  # each element of the input counts 2x2x2 times
    assert macs["AVERAGE_POOL_2D"] == macs["SOFTMAX"] == macs["RESHAPE"] == 0
    dense = [
        operator.macs or 0 for operator in report.operators if operator.name == "FULLY_CONNECTED"
    ]
    assert dense == [3 * 3 * 2 * 80, 80 * 80]
    assert report.macs == sum(macs[name] for name in macs if name != "FULLY_CONNECTED") + sum(dense)
    conv = report.operators[0]
    assert conv.weight_bytes == 4 * 3 * 3 * 3 + 4 * 4
    assert conv.activation_bytes == 8 * 8 * 3 + 8 * 8 * 4


def test_inspect_litert_finds_float_inputs_and_outputs():
    assert keras_qat.inspect_litert(content_of("int8")).is_fully_integer
    report = keras_qat.inspect_litert(content_of("int16"))
    assert not report.is_fully_integer
    ends = [f"the input {report.inputs[0].name!r} is float32"]
    ends.append(f"the output {report.outputs[0].name!r} is float32")
    assert report.because == tuple(ends)


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic range", "control flow"])
def test_inspect_litert_names_each_float_tensor(name):
    content = content_of(name)
    report = keras_qat.inspect_litert(content)
    floats = {
        raw["name"]
        for raw in interpreter_of(content).get_tensor_details()
        if np.dtype(raw["dtype"]).kind == "f" and raw["name"]
    }
    assert not report.is_fully_integer
    for tensor in floats:
        assert any(repr(tensor) in reason for reason in report.because), tensor


def test_inspect_litert_of_our_files_finds_no_inner_float():
    assert keras_qat.inspect_litert(content_of("conv")).is_fully_integer
    report = keras_qat.inspect_litert(content_of("network"))
    assert report.because == ("the input 'x' is float32", "the output 'y' is float32")


def test_inspect_litert_names_custom_operators():
    report = keras_qat.inspect_litert(foreign.custom())
    assert [(o.name, o.macs) for o in report.operators] == [("CUSTOM(Mine)", None)]
    assert any("CUSTOM(Mine)" in reason for reason in report.because)
    assert "The MACs of 1 operators are not known." in str(report)


def test_inspect_litert_takes_operators_newer_than_the_schema():
    report = keras_qat.inspect_litert(foreign.newer_than_the_schema())
    assert [operator.name for operator in report.operators] == ["UNKNOWN(1000)"]
    assert not report.is_fully_integer and len(report.because) == 1


def test_inspect_litert_finds_constants_after_the_tables():
    report = keras_qat.inspect_litert(foreign.large())
    assert (report.tensors[1].is_constant, report.tensors[1].bytes) == (True, 8)
    assert report.weight_bytes == 8


def test_inspect_litert_shows_options_and_metadata():
    report = keras_qat.inspect_litert(content_of("network"))
    by_name = {operator.name: operator.options for operator in report.operators}
    assert by_name["MAX_POOL_2D"] == {
        "padding": "VALID",
        "stride_w": 2,
        "stride_h": 2,
        "filter_width": 2,
        "filter_height": 2,
        "fused_activation_function": "NONE",
    }
    assert by_name["QUANTIZE"] == {}
    assert [(entry.name, entry.bytes, entry.text) for entry in report.metadata] == [
        ("min_runtime_version", 16, "1.14.0")
    ]
    assert report.description == "keras_qat"


@ALL
def test_inspect_litert_report_is_json_and_text(name, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(content_of(name))
    report = keras_qat.inspect_litert(path)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["size"] == path.stat().st_size
    assert plain["macs"] == report.macs
    assert [row["name"] for row in plain["operators"]] == [o.name for o in report.operators]
    text = str(report)
    for operator in report.operators:
        assert operator.name in text
    assert report.verdict in text


def test_inspect_litert_escapes_names_for_the_terminal():
    def rename(table):
        table.subgraphs[0].tensors[0].name = "\x1b[2J[bold]x"

    text = str(keras_qat.inspect_litert(foreign.repacked(content_of("conv"), rename)))
    assert "\x1b" not in text
    assert "[bold]x" in text


def test_inspect_litert_cuts_long_verdicts():
    x = [Tensor(f"x{i}", (1, 2), "float32") for i in range(15)]
    content = to_bytes(
        Model(
            {"x": x[0]},
            {"y": x[-1]},
            tuple(Operator("RELU", (a,), (b,)) for a, b in zip(x, x[1:], strict=False)),
        )
    )
    report = keras_qat.inspect_litert(content)
    assert len(report.because) == 15
    assert report.verdict.endswith("- and 5 more, in `because`")


@pytest.mark.slow
def test_inspect_litert_macs_of_mobilenet_equal_the_paper(tmp_path):
    """569 million (Howard et al., 2017, https://arxiv.org/abs/1704.04861)."""
    import tensorflow as tf

    model = keras.applications.MobileNet(weights=None)
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    assert round(keras_qat.inspect_litert(content).macs / 1e6) == 569
