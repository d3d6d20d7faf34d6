from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.errors import InvalidFileError
from keras_qat.loading.keras2.layers import make_function
from keras_qat.loading.tensorflow.operations import FUNCTIONS, function_named
from keras_qat.loading.tensorflow.operators import OPERATORS, operator_function

X = np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(2, 4, 6, 8)).astype("float32")
FLAGS = X > 0
# Arguments of the functions that do not take exactly one tensor or two tensors.
ARGUMENTS = {
    "__operators__.getitem": [((X, [{"start": 1, "stop": None, "step": None}, 2]), {})],
    "cast": [((X, "int32"), {})],
    "clip_by_value": [((X, -0.5, 0.5), {}), ((X, Y, [1.0] * 8), {})],
    "concat": [(([X, Y], 2), {}), (([X, Y],), {"axis": -1}), (([X, X.tolist()], 3), {})],
    "expand_dims": [((X, 1), {}), ((X,), {"axis": -1})],
    "gather": [((X, [0, 2]), {"axis": 3}), ((X, [1]), {})],
    "image.flip_left_right": [((X,), {})],
    "image.flip_up_down": [((X,), {})],
    "image.resize": [((X, [7, 5]), {}), ((X, [8, 12]), {"method": "nearest"})],
    "linalg.l2_normalize": [((X,), {"axis": -1}), ((X,), {"axis": [1, 2]})],
    "linalg.matmul": [((X, Y), {"transpose_b": True}), ((X, Y), {"transpose_a": True})]
    + [((X, np.eye(8, 3).tolist()), {})],
    "math.add_n": [(([X, Y, X],), {})],
    "math.argmax": [((X,), {"axis": -1}), ((X,), {"axis": 1, "output_type": "int32"})]
    + [((X,), {})],
    "math.argmin": [((X,), {"axis": 2}), ((X,), {})],
    "math.cumsum": [((X,), {}), ((X,), {"axis": 2})],
    "math.logical_and": [((FLAGS, Y > 0), {})],
    "math.logical_not": [((FLAGS,), {})],
    "math.logical_or": [((FLAGS, Y > 0), {})],
    "math.log": [((np.abs(X),), {})],
    "math.log1p": [((np.abs(X),), {})],
    "math.pow": [((np.abs(X), 1.5), {})],
    "math.reduce_all": [((FLAGS,), {"axis": 1}), ((FLAGS,), {"axis": [1, 2]})],
    "math.reduce_any": [((FLAGS,), {"axis": -1, "keepdims": True})],
    "math.reduce_logsumexp": [((X,), {"axis": [1, 2]}), ((X,), {"keepdims": True})],
    "math.rsqrt": [((np.abs(X) + 0.1,), {})],
    "math.sqrt": [((np.abs(X),), {})],
    "nn.avg_pool": [((X, 2, 2, "SAME"), {})],
    "nn.avg_pool2d": [((X, 2, 2, "VALID"), {}), ((X, [1, 3, 3, 1], [1, 2, 2, 1], "SAME"), {})],
    "nn.bias_add": [((X, [0.5, 1.0] * 4), {})],
    "nn.depth_to_space": [((X, 2), {})],
    "nn.leaky_relu": [((X,), {}), ((X,), {"alpha": 0.1})],
    "nn.log_softmax": [((X,), {}), ((X,), {"axis": 1})],
    "nn.max_pool": [((X, [2, 3], [1, 2], "SAME"), {})],
    "nn.max_pool2d": [((X, 3, 2, "SAME"), {})],
    "nn.silu": [((X,), {}), ((X,), {"beta": 2.0})],
    "nn.softmax": [((X,), {}), ((X,), {"axis": 2})],
    "nn.gelu": [((X,), {}), ((X,), {"approximate": True})],
    "nn.space_to_depth": [((X, 2), {})],
    "norm": [((X,), {"axis": -1}), ((X,), {"axis": [1, 2], "keepdims": True}), ((X,), {})],
    "one_hot": [((np.array([1, 0, 3]), 4), {}), ((np.array([1, 2]), 3), {"axis": 0})],
    "pad": [
        ((X, [[0, 0], [1, 2], [0, 1], [0, 0]]), {}),
        ((X, [[0, 0], [1, 2], [0, 1], [0, 0]]), {"constant_values": 2.0}),
        ((X, [[0, 0], [1, 1], [1, 1], [0, 0]]), {"mode": "REFLECT"}),
    ],
    "repeat": [((X, 2), {"axis": 1})],
    "reshape": [((X, [-1, 48]), {}), ((X, (2, 4, 48)), {})],
    "reverse": [((X, [1, 2]), {})],
    "roll": [((X, 2), {"axis": 1})],
    "slice": [((X, [0, 1, 0, 2], [-1, 2, 3, -1]), {})],
    "split": [((X, 2), {"axis": -1}), ((X, [1, 2, 5]), {"axis": 3})],
    "squeeze": [((X[:, :1],), {"axis": 1}), ((X[:, :1, :1],), {"axis": [1, 2]})],
    "stack": [(([X, Y],), {"axis": 1})],
    "tile": [((X, [1, 2, 1, 3]), {})],
    "transpose": [((X, [0, 3, 1, 2]), {})],
    "unstack": [((X,), {"axis": 1})],
    "where": [((FLAGS, X, Y), {}), ((FLAGS, X, [2.0] * 8), {})],
}
ARGUMENTS |= {
    f"math.reduce_{kind}": [((X,), {"axis": [1, 2]}), ((X,), {"axis": -1})]
    for kind in ("max", "mean", "min", "prod", "std", "sum", "variance")
}
ARGUMENTS["math.reduce_mean"].append(((X,), {"axis": [1, 2], "keepdims": True}))
BINARY = ["__operators__.add", "math.add", "math.divide", "math.divide_no_nan", "math.equal"]
BINARY += ["math.floordiv", "math.floormod", "math.not_equal"]
BINARY += ["math.greater", "math.greater_equal", "math.less", "math.less_equal", "math.maximum"]
BINARY += ["math.minimum", "math.multiply", "math.squared_difference", "math.subtract"]
BINARY += ["math.truediv"]
# Functions that exist only in Keras 2's tracing, or that return no tensor.
OWN = {"__operators__.add": tf.add, "__operators__.getitem": lambda x, _: x[1:, 2]}
OWN |= {"image.resize": tf.image.resize, "slice": tf.slice}


def cases():
    for name in FUNCTIONS:
        given = [((X, Y), {})] if name in BINARY else [((X,), {})]
        for number, case in enumerate(ARGUMENTS.get(name, given)):
            if name != "shape":
                yield pytest.param(name, *case, id=f"{name}-{number}")


CONSTANT = np.linspace(-1.0, 1.0, 8, dtype="float32")


@pytest.mark.parametrize("name", BINARY)
def test_functions_take_constants_as_lists(name):
    for args in ((X, CONSTANT), (CONSTANT, X)):
        written = [CONSTANT.tolist() if each is CONSTANT else each for each in args]
        output, expected = FUNCTIONS[name](*written), of_tensorflow(name)(*args)
        assert output.dtype == expected.dtype
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def of_tensorflow(name) -> Any:
    if name in OWN:
        return OWN[name]
    found: Any = tf
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name, args, kwargs", list(cases()))
def test_functions_equal_those_of_tensorflow(name, args, kwargs):
    expected = keras.tree.flatten(of_tensorflow(name)(*args, **kwargs))
    outputs = keras.tree.flatten(FUNCTIONS[name](*args, **kwargs))
    for output, other in zip(outputs, expected, strict=True):
        assert output.dtype == other.dtype and output.shape == other.shape
        np.testing.assert_allclose(output, other, rtol=1e-5, atol=1e-5)


def test_function_shape_returns_numbers_that_reshape_takes():
    x = keras.Input((4, 6))
    sizes = FUNCTIONS["shape"](x)
    assert sizes == [None, 4, 6]
    assert FUNCTIONS["__operators__.getitem"](sizes, 1) == 4
    assert FUNCTIONS["reshape"](x, [sizes[0], 24]).shape == (None, 24)


def test_function_reshape_infers_a_size_beside_the_batch():
    x = keras.Input((4, 6, 3))
    batch, height, width, _ = FUNCTIONS["unstack"](FUNCTIONS["shape"](x))
    assert FUNCTIONS["reshape"](x, [batch, -1]).shape == (None, 72)
    area = FUNCTIONS["math.multiply"](height, width)
    assert FUNCTIONS["reshape"](x, [batch, area, -1]).shape == (None, 24, 3)
    assert FUNCTIONS["reshape"](x, FUNCTIONS["concat"]([[batch], [-1, 3]], 0)).shape == (
        None,
        24,
        3,
    )


def test_function_getitem_takes_a_computed_size():
    half = FUNCTIONS["math.floordiv"](FUNCTIONS["shape"](X)[2], 2)
    part = {"start": None, "stop": half, "step": None}
    output = FUNCTIONS["__operators__.getitem"](X, [{**part, "stop": None}, 1, part])
    np.testing.assert_array_equal(output, X[:, 1, :3])


def test_function_clip_by_value_takes_tensors_as_limits():
    x = keras.Input((4,))
    y = FUNCTIONS["clip_by_value"](x, FUNCTIONS["math.reduce_min"](x), 0.5)
    np.testing.assert_array_equal(
        keras.Model(x, y)(np.array([[-2.0, 0, 0.5, 3]])), [[-2, 0, 0.5, 0.5]]
    )


@pytest.mark.parametrize("name, shape", [("concat", (2, 4, 6, 8)), ("stack", (1, 2, 4, 6, 8))])
def test_functions_of_lists_take_a_list_of_one(name, shape):
    function = make_function("TFOpLambda", {"name": "layer", "function": name})
    assert function([X], axis=0).shape == shape


def test_function_named_finds_functions_of_version_1():
    assert function_named("compat.v1.squeeze", "layer") is FUNCTIONS["squeeze"]


def operator(name, *inputs: Any, constants=None, **attributes):
    node = {"op": name, "attr": attributes}
    config = {"name": "layer", "node_def": node, "constants": constants or {}}
    single: Any = list(inputs)
    return operator_function(config)(single if len(single) > 1 else single[0])


STRIDES = {"ksize": {"list": {"i": ["1", "2", "2", "1"]}}, "padding": {"s": "U0FNRQ=="}}
STRIDES["strides"] = STRIDES["ksize"]
OPERATOR_CASES = {
    "AddN": (lambda: operator("AddN", X, Y), lambda: X + Y),
    "AvgPool": (
        lambda: operator("AvgPool", X, **STRIDES),
        lambda: tf.nn.avg_pool2d(X, 2, 2, "SAME"),
    ),
    "BiasAdd": (lambda: operator("BiasAdd", X, constants={"1": [1.0] * 8}), lambda: X + 1.0),
    "Cast": (lambda: operator("Cast", X, DstT={"type": "DT_INT32"}), lambda: X.astype("int32")),
    "ConcatV2": (
        lambda: operator("ConcatV2", X, Y, constants={"2": 3}),
        lambda: np.concatenate([X, Y], 3),
    ),
    "ExpandDims": (lambda: operator("ExpandDims", X, constants={"1": 1}), lambda: X[:, None]),
    "LeakyRelu": (
        lambda: operator("LeakyRelu", X, alpha={"f": 0.1}),
        lambda: tf.nn.leaky_relu(X, 0.1),
    ),
    "MatMul": (
        lambda: operator("MatMul", X[0, 0], Y[0, 0], transpose_b={"b": True}),
        lambda: X[0, 0] @ Y[0, 0].T,
    ),
    "Max": (
        lambda: operator("Max", X, constants={"1": [1, 2]}, keep_dims={"b": True}),
        lambda: X.max((1, 2), keepdims=True),
    ),
    "MaxPool": (
        lambda: operator("MaxPool", X, **STRIDES),
        lambda: tf.nn.max_pool2d(X, 2, 2, "SAME"),
    ),
    "Mean": (lambda: operator("Mean", X, constants={"1": [3]}), lambda: X.mean(3)),
    "Min": (lambda: operator("Min", X, constants={"1": 1}), lambda: X.min(1)),
    "Pack": (lambda: operator("Pack", X, Y, axis={"i": "1"}), lambda: np.stack([X, Y], 1)),
    "Pad": (
        lambda: operator("Pad", X, constants={"1": [[0, 0], [1, 0], [0, 1], [0, 0]]}),
        lambda: np.pad(X, [[0, 0], [1, 0], [0, 1], [0, 0]]),
    ),
    "Pow": (lambda: operator("Pow", np.abs(X), constants={"1": 2.0}), lambda: X * X),
    "Reshape": (
        lambda: operator("Reshape", X, constants={"1": [-1, 48]}),
        lambda: X.reshape(-1, 48),
    ),
    "Squeeze": (
        lambda: operator("Squeeze", X[:, :1], squeeze_dims={"list": {"i": ["1"]}}),
        lambda: X[:, 0],
    ),
    "StridedSlice": (
        lambda: operator(
            "StridedSlice",
            X,
            constants={"1": [0, 1, 0], "2": [0, 3, 2], "3": [1, 1, 1]},
            begin_mask={"i": "1"},
            end_mask={"i": "1"},
            shrink_axis_mask={"i": "4"},
        ),
        lambda: X[:, 1:3, 0],
    ),
    "Sum": (lambda: operator("Sum", X, constants={"1": [1]}), lambda: X.sum(1)),
    "Tile": (
        lambda: operator("Tile", X, constants={"1": [1, 1, 2, 1]}),
        lambda: np.tile(X, (1, 1, 2, 1)),
    ),
    "Transpose": (
        lambda: operator("Transpose", X, constants={"1": [0, 2, 1, 3]}),
        lambda: X.transpose(0, 2, 1, 3),
    ),
}
BINARY_OPERATORS = ("Add", "AddV2", "Maximum", "Minimum", "Mul", "RealDiv", "SquaredDifference")
BINARY_OPERATORS += ("Sub",)
POSITIVE = ("Log", "Rsqrt", "Sqrt")


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_equal_those_of_tensorflow(name):
    if name in OPERATOR_CASES:
        made, expected = OPERATOR_CASES[name]
        output, other = made(), expected()
    else:
        inputs = [np.abs(X) + 0.1 if name in POSITIVE else X]
        inputs += [Y] if name in BINARY_OPERATORS else []
        output, other = operator(name, *inputs), getattr(tf.raw_ops, name)(**named(name, inputs))
    assert np.shape(output) == np.shape(other)
    np.testing.assert_allclose(output, other, rtol=1e-5, atol=1e-5)


def named(name, inputs):
    """Returns the inputs of a raw operator by its own names of them."""
    keys = ("x", "y") if len(inputs) == 2 else ("x",)
    single = {"Elu": "features", "Identity": "input", "Relu": "features", "Relu6": "features"}
    single |= {"Selu": "features", "Softmax": "logits", "Softplus": "features"}
    return dict(zip((single.get(name, keys[0]), *keys[1:]), inputs, strict=True))


def test_operator_names_an_unknown_operator():
    with pytest.raises(InvalidFileError, match="docs/loading.md.*FFT2D"):
        operator("FFT2D", X)
