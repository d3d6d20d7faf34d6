import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_qat.errors import InvalidDataError, LiteRTFormatError
from keras_qat.litert import (
    Model,
    Operator,
    Quantization,
    Runner,
    Tensor,
    expose_tensors,
    to_bytes,
    write,
)

KERNELS = ["reference", "default"]
BOTH = pytest.mark.parametrize("kernels", KERNELS)


def images(count):
    return np.array(np.random.default_rng(count).normal(0, 2, (count, 8, 8, 4)), np.float32)


@BOTH
def test_runner_convolution_by_hand(conv_model, conv_case, kernels):
    x, y = conv_case
    (result,) = Runner(to_bytes(conv_model), kernels=kernels).run([x])
    assert result.dtype == np.int8
    assert (result == y).all()


@BOTH
def test_runner_takes_changing_batch_sizes(conv_model, conv_case, kernels):
    x, y = conv_case
    runner = Runner(to_bytes(conv_model), kernels=kernels)
    for rows in (slice(0, 3), slice(1, 2), slice(0, 2), slice(0, 3)):
        (result,) = runner.run([x[rows]])
        assert result.tolist() == y[rows].tolist()


@BOTH
def test_runner_splits_data_for_a_fixed_batch(fixed_conv_model, conv_case, kernels):
    x, y = conv_case
    runner = Runner(to_bytes(fixed_conv_model), kernels=kernels, expose_all=True)
    assert runner.inputs[0].shape == (1, 2, 2, 1)
    assert (runner.run([x])[0] == y).all()
    assert (runner.tensors()["y"] == y).all()
    assert (runner.tensors()["x"] == x).all()


def test_runner_results_outlive_the_next_run(conv_model, conv_case):
    x, y = conv_case
    runner = Runner(to_bytes(conv_model), expose_all=True)
    (first,) = runner.run([x[:1]])
    tensors = runner.tensors()
    runner.run([x[1:2]])
    assert (first == y[:1]).all()
    assert (tensors["y"] == y[:1]).all()


def test_runner_inputs_and_outputs_have_details(network, conv_model):
    runner = Runner(to_bytes(conv_model))
    (x,), (y,) = runner.inputs, runner.outputs
    assert (x.name, x.shape, x.dtype) == ("x", (None, 2, 2, 1), np.int8)
    assert (x.scale.tolist(), x.zero_point.tolist()) == ([0.5], [-1])
    assert (y.name, y.shape, y.dtype) == ("y", (None, 1, 1, 2), np.int8)
    assert (y.scale.tolist(), y.zero_point.tolist()) == ([1.0], [3])
    (x,) = Runner(to_bytes(network)).inputs
    assert (x.dtype, x.scale.size) == (np.float32, 0)


def test_runner_takes_a_path(conv_model, conv_case, tmp_path):
    write(conv_model, tmp_path / "model.tflite")
    for path in (tmp_path / "model.tflite", str(tmp_path / "model.tflite")):
        assert (Runner(path).run([conv_case[0]])[0] == conv_case[1]).all()


@BOTH
@pytest.mark.parametrize("count", [1, 5])
def test_runner_expose_all_changes_no_output(network, kernels, count):
    content = to_bytes(network)
    (plain,) = Runner(content, kernels=kernels).run([images(count)])
    runner = Runner(content, kernels=kernels, expose_all=True)
    (exposed,) = runner.run([images(count)])
    assert np.unique(plain).size > 30
    assert (exposed == plain).all()
    assert (runner.tensors()["y"] == plain).all()
    assert [t.name for t in runner.outputs] == ["y"]


def test_runner_expose_all_gives_the_tensors_that_the_interpreter_preserves(network):
    content, x = to_bytes(network), images(1)
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, x)
    interpreter.invoke()
    index = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
    runner = Runner(content, expose_all=True)
    runner.run([x])
    names = ["x", "x_int8", "padded", "conv", "added", "pooled", "flat", "y"]
    assert sorted(runner.tensors()) == sorted(names)
    for name in names:
        assert (runner.tensors()[name] == interpreter.get_tensor(index[name])).all(), name


@BOTH
def test_runner_quantize_relu_dequantize_by_hand(kernels):
    q = Quantization(np.array([0.5], np.float32), np.array([-2], np.int64))
    x, y = Tensor("x", (None, 5), "float32"), Tensor("y", (None, 5), "float32")
    xq = Tensor("xq", (None, 5), "int8", q)
    yq = Tensor("yq", (None, 5), "int8", q)
    operators = (
        Operator("QUANTIZE", (x,), (xq,), 1),
        Operator("RELU", (xq,), (yq,), 2),
        Operator("DEQUANTIZE", (yq,), (y,), 2),
    )
    content = to_bytes(Model({"x": x}, {"y": y}, operators))
    runner = Runner(content, kernels=kernels, expose_all=True)
    (result,) = runner.run([np.array([[-100.0, -0.6, 0.0, 1.1, 100.0]], np.float32)])
    # x / 0.5 - 2: -202 -> -128, -3.2 -> -3, -2, 0.2 -> 0, 198 -> 127.
    assert runner.tensors()["xq"].tolist() == [[-128, -3, -2, 0, 127]]
    assert runner.tensors()["yq"].tolist() == [[-2, -2, -2, 0, 127]]
    assert result.tolist() == [[0.0, 0.0, 0.0, 1.0, 64.5]]


@BOTH
def test_runner_keeps_the_order_of_inputs_and_outputs(kernels):
    b, a = Tensor("b", (None, 2), "float32"), Tensor("a", (1, 2), "float32")
    scalar = Tensor("s", (), "float32", data=np.array(10, np.float32))
    total, scaled = Tensor("total", (None, 2), "float32"), Tensor("scaled", (None, 2), "float32")
    operators = (Operator("ADD", (b, a), (total,)), Operator("MUL", (total, scalar), (scaled,)))
    model = Model({"b": b, "a": a}, {"scaled": scaled, "total": total}, operators)
    runner = Runner(to_bytes(model), kernels=kernels, expose_all=True)
    results = runner.run([np.array([[1, 2], [3, 4]], np.float32), np.array([[5, 6]], np.float32)])
    assert [r.tolist() for r in results] == [[[60, 80], [80, 100]], [[6, 8], [8, 10]]]
    assert [t.name for t in runner.inputs + runner.outputs] == ["b", "a", "scaled", "total"]
    assert set(runner.tensors()) == {"b", "a", "total", "scaled"}


def test_runner_refuses_unknown_kernels(conv_model):
    with pytest.raises(LiteRTFormatError, match="'reference'.*'fast'"):
        Runner(to_bytes(conv_model), kernels="fast")


@pytest.mark.parametrize(
    "arrays, message",
    [
        ([], "Received: 0 arrays"),
        ([np.zeros((1, 2, 2, 1), np.float32)], "dtype=float32"),
        ([np.zeros((1, 2, 3, 1), np.int8)], r"shape=\(1, 2, 3, 1\)"),
        ([np.zeros((2, 2, 1), np.int8)], r"shape=\(2, 2, 1\)"),
        ([np.zeros((0, 2, 2, 1), np.int8)], r"shape=\(0, 2, 2, 1\)"),
    ],
)
def test_runner_refuses_arrays_that_do_not_fit(conv_model, arrays, message):
    with pytest.raises(InvalidDataError, match=message):
        Runner(to_bytes(conv_model)).run(arrays)


def test_runner_fills_up_the_last_piece_of_a_fixed_batch():
    x, y = Tensor("x", (2, 3), "float32"), Tensor("y", (6, 1), "float32")
    sizes = Tensor("sizes", (2,), "int32", data=np.array([6, 1], "int32"))
    model = Model({"x": x}, {"y": y}, (Operator("RESHAPE", (x, sizes), (y,)),))
    runner = Runner(to_bytes(model), expose_all=True)
    for samples in (1, 3, 4):
        data = np.arange(3 * samples, dtype="float32").reshape(-1, 3)
        assert runner.run([data])[0].ravel().tolist() == data.ravel().tolist()
        assert runner.tensors()["y"].shape == (3 * samples, 1)


def test_runner_refuses_inputs_of_different_sizes_for_a_fixed_batch():
    x, y, z = (Tensor(name, (2, 3), "float32") for name in "xyz")
    runner = Runner(to_bytes(Model({"x": x, "y": y}, {"z": z}, (Operator("ADD", (x, y), (z,)),))))
    with pytest.raises(InvalidDataError, match="batch is fixed"):
        runner.run([np.ones((4, 3), np.float32), np.ones((2, 3), np.float32)])


def test_runner_tensors_needs_expose_all_and_a_run(conv_model, conv_case):
    runner = Runner(to_bytes(conv_model))
    runner.run([conv_case[0]])
    with pytest.raises(LiteRTFormatError, match="expose_all=False"):
        runner.tensors()
    with pytest.raises(LiteRTFormatError, match="run"):
        Runner(to_bytes(conv_model), expose_all=True).tensors()


def test_runner_refuses_other_files(tmp_path):
    with pytest.raises(LiteRTFormatError, match="missing.tflite"):
        Runner(tmp_path / "missing.tflite")
    with pytest.raises(LiteRTFormatError, match="'<18 bytes>' is damaged, or is not.*TFL3"):
        Runner(b"not a model at all")
    with pytest.raises(LiteRTFormatError, match="damaged, or is not"):
        expose_tensors(b"not a model at all")
    with pytest.raises(LiteRTFormatError, match="damaged"):
        expose_tensors(b"\xff\xff\xff\x7fTFL3")


def test_runner_raises_a_typed_error_if_a_kernel_refuses_the_model():
    x, y = Tensor("x", (1, 4), "int32"), Tensor("y", (1, 4), "int32")
    content = to_bytes(Model({"x": x}, {"y": y}, (Operator("SOFTMAX", (x,), (y,)),)))
    with pytest.raises(LiteRTFormatError, match="SOFTMAX"):
        Runner(content).run([np.zeros((1, 4), np.int32)])


@BOTH
def test_runner_has_no_values_of_a_tensor_that_is_empty_for_one_sample(kernels):
    """Two samples become one row, so one sample becomes an empty tensor."""
    x, y = Tensor("x", (None, 2), "int8"), Tensor("y", (None, 4), "int8")
    shape = Tensor("shape", (2,), "int32", data=np.array([-1, 4], np.int32))
    reshape = Operator("RESHAPE", (x, shape), (y,), 1, {"newShape": [-1, 4]})
    runner = Runner(to_bytes(Model({"x": x}, {"y": y}, (reshape,))), kernels=kernels)
    assert runner.run([np.arange(8, dtype=np.int8).reshape(4, 2)])[0].tolist() == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
