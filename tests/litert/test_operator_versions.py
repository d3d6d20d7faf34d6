"""Versions of operators against files and tables of TensorFlow's converter."""

import functools

import numpy as np
import pytest

from keras_qat.litert import Operator, Quantization, Tensor
from keras_qat.litert.format.operator_versions import minimum_runtime_version, operator_version
from keras_qat.litert.format.operators import declarations
from keras_qat.litert.format.schema_enums import name_of
from keras_qat.litert.writing.options import ENUM_FIELDS
from tests.litert import foreign

# Our version and the converter's. Our version is that of the first release whose kernel supports
# int8: per channel in FULLY_CONNECTED, in LEAKY_RELU, and from int8 in QUANTIZE.
INT8_DIFFERENCES = {"FULLY_CONNECTED": (12, 5), "LEAKY_RELU": (2, 1), "QUANTIZE": (2, 1)}


def weights(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def of_images(tf, x, rng):
    """Applies operators of images."""
    y = tf.nn.relu(tf.nn.conv2d(x, weights(rng, 3, 3, 4, 4), 1, "SAME") + weights(rng, 4))
    y = tf.nn.depthwise_conv2d(y, weights(rng, 3, 3, 4, 1), [1, 1, 1, 1], "SAME")
    y = tf.nn.depthwise_conv2d(y, weights(rng, 3, 3, 4, 1), [1] * 4, "SAME", dilations=[2, 2])
    up = tf.nn.conv2d_transpose(y, weights(rng, 2, 2, 4, 4), tf.constant([1, 16, 16, 4]), 2)
    biased = tf.nn.conv2d_transpose(
        up, weights(rng, 2, 2, 4, 4), tf.constant([1, 32, 32, 4]), 2
    ) + weights(rng, 4)
    y = tf.image.resize(biased, (8, 8))
    y = y * tf.image.resize(up, (8, 8), "nearest")
    y = tf.concat([y, tf.nn.relu6(y)], -1)[:, 1:, ::2]
    y = tf.pad(
        tf.pad(y, [[0, 0], [1, 1], [0, 0], [0, 0]]), [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"
    )
    y = tf.nn.avg_pool2d(tf.nn.max_pool2d(y, 2, 1, "SAME"), 2, 1, "SAME")
    return tf.gather(tf.nn.leaky_relu(y, 0.1), [0, 2, 1], axis=1) - weights(rng, 1, 1, 8)


def of_many_axes(tf, y, rng):
    """Applies operators of five and six axes."""
    five = tf.reshape(y, (1, 3, 6, 4, 2))
    five = tf.maximum(tf.transpose(five, (0, 2, 1, 4, 3)), weights(rng, 2, 4))
    five = tf.minimum(five, weights(rng, 3, 1, 1))[:, 1:] - weights(rng, 2, 4)
    five = tf.pad(five, [[0, 0], [1, 0], [0, 0], [0, 0], [0, 0]])
    return tf.transpose(tf.reshape(five, (1, 6, 3, 2, 2, 2)), (0, 2, 1, 4, 3, 5))


def of_rows(tf, y, rng):
    """Applies operators of matrices."""
    rows = tf.reshape(y, (1, 18, 8))
    rows = tf.matmul(rows, rows, transpose_b=True) @ weights(rng, 18, 8)
    y = tf.stack([tf.tanh(rows), tf.sigmoid(rows)], 1)
    y = tf.concat([tf.reduce_mean(y, 2), tf.reduce_max(y, 2), tf.reduce_min(y, 2)], -1)
    y = tf.nn.gelu(tf.reduce_sum(y, 1), approximate=True)
    return tf.nn.softmax(y @ weights(rng, 24, 5) + weights(rng, 5))


@functools.cache
def converted(kind):
    """Returns a file of the converter with many operators."""
    import tensorflow as tf

    def network(x):
        rng = np.random.default_rng(0)
        for part in (of_images, of_many_axes, of_rows):
            x = part(tf, x, rng)
        return x

    specification = tf.TensorSpec((1, 8, 8, 4), tf.float32)
    function = tf.function(network, input_signature=[specification]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    if kind == "int8":
        rng = np.random.default_rng(1)
        images = [[rng.normal(size=(1, 8, 8, 4)).astype("float32")] for _ in range(4)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(images)
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def operators_of(content):
    """Returns the operators of a file, read by the classes of the schema."""
    model = foreign.unpacked(content)
    graph = model.subgraphs[0]
    tensors = [tensor_of(each) for each in graph.tensors]
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        options = {
            name: name_of(ENUM_FIELDS[name], value) if name in ENUM_FIELDS else value
            for name, value in vars(operator.builtinOptions or object).items()
        }
        inputs = tuple(tensors[i] if i >= 0 else None for i in operator.inputs)
        outputs = tuple(tensors[i] for i in operator.outputs)
        name = name_of("BuiltinOperator", code.builtinCode)
        yield Operator(name, inputs, outputs, code.version, options)


def tensor_of(table):
    quantization = None
    if table.quantization is not None and table.quantization.scale is not None:
        scale = np.asarray(table.quantization.scale, "float32")
        zero_point = np.asarray(table.quantization.zeroPoint, "int64")
        quantization = Quantization(scale, zero_point)
    shape = () if table.shape is None else tuple(table.shape)
    dtype = name_of("TensorType", table.type).lower()
    return Tensor(table.name.decode(), shape, dtype, quantization)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_operator_versions_are_those_of_the_converter(kind):
    """The converter writes one version for all operators of a name: the highest."""
    ours, theirs = {}, {}
    for operator in operators_of(converted(kind)):
        ours[operator.code] = max(operator_version(operator), ours.get(operator.code, 1))
        theirs[operator.code] = operator.version
    different = {code: (ours[code], theirs[code]) for code in ours if ours[code] != theirs[code]}
    assert different == {"float32": {}, "int8": INT8_DIFFERENCES}[kind]
    assert len(ours) > 25


IMAGE, KERNEL = (None, 8, 8, 4), (2, 3, 3, 4)


@pytest.mark.parametrize(
    "code, shapes, options, version",
    [  # from TensorFlow's op_version.cc
        ("CONV_2D", [IMAGE, (2, 3, 3, 2), (2,)], {}, 6),
        ("TRANSPOSE_CONV", [(4,), KERNEL, IMAGE], {"fusedActivationFunction": "NONE"}, 1),
        ("TRANSPOSE_CONV", [(4,), KERNEL, IMAGE], {"fusedActivationFunction": "RELU"}, 4),
        ("RESIZE_NEAREST_NEIGHBOR", [IMAGE], {"halfPixelCenters": False}, 1),
        ("TRANSPOSE", [(None, 2, 2, 2, 2), (5,)], {}, 4),
        ("TRANSPOSE", [(None, 2, 2, 2, 2, 2, 2), (7,)], {}, 8),
        ("MAXIMUM", [(None, 2, 2, 2, 2), (None, 2, 2, 2, 2)], {}, 1),
        ("DIV", [(None, 2, 2, 2, 2), (2, 2)], {}, 2),
    ],
)
def test_operator_version_of_floats(code, shapes, options, version):
    inputs = tuple(Tensor(str(i), shape, "float32") for i, shape in enumerate(shapes))
    output = Tensor("output", shapes[0], "float32")
    assert operator_version(Operator(code, inputs, (output,), options=options)) == version


def int8(name, shape, scale=0.5):
    grid = Quantization(np.array([scale], "float32"), np.zeros(1, "int64"))
    return Tensor(name, shape, "int8", grid)


@pytest.mark.parametrize(
    "code, inputs, output, options, version",
    [  # from LiteRT's op_version.cc
        ("CAST", [int8("x", IMAGE)], Tensor("y", IMAGE, "int32"), {}, 3),
        ("CAST", [Tensor("x", IMAGE, "int32")], int8("y", IMAGE), {}, 3),
        ("CAST", [Tensor("x", IMAGE, "uint8")], Tensor("y", IMAGE, "int32"), {}, 1),
        ("CAST", [Tensor("x", IMAGE, "bool")], Tensor("y", IMAGE, "float32"), {}, 1),
        ("CONV_2D", [int8("x", IMAGE), int8("k", (2, 3, 3, 2))], int8("y", IMAGE), {}, 6),
        ("CONV_2D", [int8("x", IMAGE), int8("k", KERNEL)], int8("y", IMAGE), {}, 3),
        ("MUL", [int8("x", IMAGE), int8("k", (1,))], int8("y", IMAGE, 0.26), {}, 2),
        ("MUL", [int8("x", IMAGE), int8("k", (1,))], int8("y", IMAGE, 0.25), {}, 3),
        ("GATHER", [int8("x", IMAGE), Tensor("i", (2,), "int32")], int8("y", IMAGE), {}, 2),
        ("RSQRT", [int8("x", IMAGE)], int8("y", IMAGE), {}, 2),
        (
            "RESIZE_NEAREST_NEIGHBOR",
            [Tensor("x", IMAGE, "float32"), Tensor("s", (2,), "int32")],
            Tensor("y", IMAGE, "float32"),
            {"alignCorners": True},
            3,
        ),
        ("SQUARED_DIFFERENCE", [int8("x", IMAGE), int8("k", IMAGE)], int8("y", IMAGE), {}, 2),
        ("SELECT_V2", [Tensor("c", (2,), "bool"), int8("x", IMAGE)], int8("y", IMAGE), {}, 1),
    ],
)
def test_operator_version_of_integers(code, inputs, output, options, version):
    operator = Operator(code, tuple(inputs), (output,), options=options)
    assert operator_version(operator) == version


@pytest.mark.parametrize(
    "code, version, release",
    [  # from TensorFlow's runtime_version.cc
        ("CONV_2D", 3, "1.14.0"),
        ("CONV_2D", 8, "2.15.0"),
        ("DEPTHWISE_CONV_2D", 6, "2.3.0"),
        ("FULLY_CONNECTED", 5, "2.0.0"),
        ("FULLY_CONNECTED", 12, "2.17.0"),
        ("FULLY_CONNECTED", 14, "2.21.0"),
        ("QUANTIZE", 2, "1.15.0"),
        ("PADV2", 1, "1.9.0"),
        ("TANH", 2, "1.14.0"),
        ("SLICE", 7, "2.21.0"),
    ],
)
def test_minimum_runtime_version_of_one_operator(code, version, release):
    assert minimum_runtime_version([(code, version)]) == release


@pytest.mark.parametrize(
    "operators, release",
    [
        ([("RESHAPE", 1)], "1.5.0"),
        ([("GELU", 2), ("CONV_2D", 7), ("RESHAPE", 1)], "2.12.0"),  # 2.9.0 is older than 2.12.0
        ([("RESHAPE", 1), ("RESHAPE", 2)], None),
        ([], None),
    ],
)
def test_minimum_runtime_version_is_the_newest_release_or_none(operators, release):
    assert minimum_runtime_version(operators) == release


def test_declared_releases_are_in_order():
    for code, declaration in declarations().items():
        numbers = [[int(n) for n in release.split(".")] for release in declaration.releases]
        assert numbers == sorted(numbers), code
