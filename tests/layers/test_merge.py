"""ADD, SUB and MUL: cases of the contract, hand-computed numbers, errors."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, read_model
from keras_qat.graph.graph import Parameter
from keras_qat.layers import QAdd, QMultiply, QSubtract
from tests.layers.cases import Case
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of, run_litert, versions_of
from tests.models import called

Add, ReLU = keras.layers.Add, keras.layers.ReLU
Multiply, Subtract = keras.layers.Multiply, keras.layers.Subtract


def two_inputs():
    a, b = keras.Input((5, 4)), keras.Input((5, 4))
    return keras.Model(
        [a, b],
        [
            Add()([a, b]),
            ReLU()(Add()([b, a])),
            ReLU(6.0)(a + b),
            Add()([a, a]),
            keras.layers.Activation("relu")(keras.ops.add(b, b)),
        ],
    )


def broadcasting():
    a, b, c = keras.Input((3, 4, 2)), keras.Input((1, 1, 2)), keras.Input((3, 1, 1))
    return keras.Model([a, b, c], [Add()([a, b]), Add()([c, a]), ReLU()(Add()([b, c]))])


def many_inputs():
    inputs = [keras.Input((6,)) for _ in range(4)]
    return keras.Model(inputs, [Add()(inputs[:3]), ReLU()(Add()(inputs))])


def differences():
    a, b = keras.Input((5, 4)), keras.Input((5, 4))
    return keras.Model([a, b], [Subtract()([a, b]), ReLU()(b - a), ReLU(6.0)(Subtract()([a, b]))])


def products():
    a, b = keras.Input((5, 4)), keras.Input((5, 4))
    outputs = [Multiply()([a, b]), ReLU()(b * a), ReLU(6.0)(Multiply()([a, b])), a * a]
    return keras.Model([a, b], outputs)


def excitation():
    """Makes products with one factor for each channel, row or sample."""
    a, b, c, d = (keras.Input(s) for s in [(3, 4, 2), (1, 1, 2), (3, 1, 1), (1, 1, 1)])
    outputs = [Multiply()([a, b]), Multiply()([c, a]), ReLU()(b * c), a * d, a - b, c - a]
    return keras.Model([a, b, c, d], outputs)


def with_constants():
    """Adds and multiplies constant arrays of each shape that broadcasts, on either side."""
    rng = np.random.default_rng(3)
    full, rows, wide = (rng.normal(size=s).astype("float32") for s in [(4, 3), (4, 1), (1, 5, 3)])
    x, y = keras.Input((4, 3)), keras.Input((1, 3))
    add, subtract, multiply = keras.ops.add, keras.ops.subtract, keras.ops.multiply
    outputs = [x + full, add(full, x), ReLU()(x + rows), add(y, wide)]
    outputs += [x - full, subtract(full, x), ReLU(6.0)(subtract(rows, x))]
    outputs += [x * full, x * rows, ReLU()(multiply(wide, y)), x * (0 * full), x + 1e-9 * full]
    return keras.Model([x, y], outputs)


CASES = [
    Case("add", (QAdd,), two_inputs),
    Case("add_broadcasting", (QAdd,), broadcasting),
    # Each partial sum is rounded, at training and in integers, so two ties may differ.
    Case("add_of_many", (QAdd,), many_inputs, steps=2),
    Case("subtract", (QSubtract,), differences),
    Case("multiply", (QMultiply,), products),
    Case("multiply_broadcasting", (QMultiply, QSubtract), excitation),
    Case("merge_with_constants", (QAdd, QMultiply, QSubtract), with_constants),
]


@pytest.mark.parametrize(
    ("followers", "target", "expected"),
    [
        # 2.5 steps and -2.5 steps of 0.5: XNNPACK rounds ties up, the others away from zero
        ([], "litert", [1.5, -1.0, 8.0, 63.5]),
        ([], "reference", [1.5, -1.5, 8.0, 63.5]),
        ([ReLU()], "litert", [1.5, 0.0, 8.0, 63.5]),
        ([ReLU(6.0)], "litert", [1.5, 0.0, 6.0, 6.0]),
    ],
)
def test_add_by_hand(followers, target, expected):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    y = Add(name="sum")([a, b])
    for follower in followers:
        y = follower(y)
    quarters = (-32.0, 31.75)
    model = quantized_with(keras.Model([a, b], y), a=HALVES, b=quarters, sum=HALVES)
    model.set_target(target)
    x = [
        np.array([[1.0, -1.0, 5.0, 60.0]], "float32"),
        np.array([[0.25, -0.25, 3.0, 30.0]], "float32"),
    ]
    assert called(model, x).tolist() == [expected]
    assert operators_of(exported(model)) == ["ADD"]


def test_add_of_a_tensor_to_itself_is_its_double():
    a = keras.Input((3,), name="a")
    model = quantized_with(keras.Model(a, Add(name="sum")([a, a])), a=HALVES, sum=(-128.0, 127.0))
    assert called(model, np.array([[0.5, -3.0, 63.5]], "float32")).tolist() == [[1.0, -6.0, 127.0]]


def test_add_of_four_tensors_is_three_additions():
    inputs = [keras.Input((2,)) for _ in range(4)]
    model = keras_qat.quantize_model(keras.Model(inputs, Add()(inputs)))
    assert sum(isinstance(each, QAdd) for each in model.layers) == 3


def test_add_refuses_different_ranks():
    a, b = keras.Input((2, 3)), keras.Input((3,))
    model = keras.Model([a, b], Add(name="ranks")([a, b]))
    with pytest.raises(UnsupportedLayerError, match="ranks.*same rank"):
        keras_qat.quantize_model(model)


def test_multiply_and_subtract_by_hand():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    outputs = [Multiply(name="product")([a, b]), Subtract(name="difference")([a, b])]
    ranges = dict.fromkeys(("a", "b", "product", "difference"), HALVES)
    model = quantized_with(keras.Model([a, b], outputs), **ranges)
    x = [np.array([[1.5, -1.5, 30.0]], "float32"), np.array([[0.5, 0.5, 4.0]], "float32")]
    # 0.75 is 1.5 steps: XNNPACK rounds ties to even
    assert [y.tolist() for y in called(model, x)] == [
        [[1.0, -1.0, 63.5]],
        [[1.0, -2.0, 26.0]],
    ]
    # The multiplier alone, without a shift, rounds ties up.
    model.set_target("reference")
    assert called(model, x)[0].tolist() == [[1.0, -0.5, 63.5]]
    assert sorted(operators_of(exported(model))) == ["MUL", "SUB"]


def test_add_of_a_constant_by_hand():
    x = keras.Input((2, 3), name="x")
    constant = np.array([[[1.27, -1.27, 0.004]] * 2], "float32")
    constant[0, 1] = 0.0
    model = keras.Model(x, keras.ops.add(x, constant))
    ranges = {"x": HALVES, list(read_model(model).nodes)[1]: (-1.28, 1.27)}
    model = quantized_with(model, **ranges)
    # the constant has steps of 0.01, so 0.004 becomes 0
    expected = [[[1.27, -0.77, 0.5], [0.0, 0.5, 0.5]]]
    actual = called(model, np.array([[[0.0, 0.5, 0.5]] * 2], "float32"))
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert operators_of(exported(model)) == ["ADD"]


def node_with(operand):
    """Makes an addition of a tensor of shape (2, 3) and a constant or a parameter."""
    x = keras.Input((2, 3), name="x")
    node = list(read_model(keras.Model(x, x + x)).nodes.values())[1]
    edge = Edge("x")
    return dataclasses.replace(node, inputs=(edge,), arguments=((edge, operand), {}))


@pytest.mark.parametrize("trainable", [True, False])
def test_add_of_a_variable_has_a_weight_of_its_name(trainable):
    value = np.arange(6, dtype="float32").reshape(2, 3)
    node = node_with(Parameter(value, trainable, "positions"))
    layer = QAdd.from_match(node, None)
    layer.build((None, 2, 3))
    layer.carry_weights(node)
    assert [weight.name for weight in layer.weights] == ["positions"]
    assert len(layer.trainable_weights) == trainable
    assert layer(np.ones((1, 2, 3), "float32")).numpy().tolist() == (value + 1)[None].tolist()


def test_add_refuses_one_operand():
    x = keras.Input((3,))
    with pytest.raises(UnsupportedLayerError, match="two operands"):
        keras_qat.quantize_model(keras.Model(x, Add()([x])))


def test_add_refuses_a_constant_along_the_batch():
    layer = QAdd.from_match(node_with(np.ones((5, 1, 3), "float32")), None)
    with pytest.raises(UnsupportedLayerError, match="batch axis.*shape"):
        layer.build((None, 2, 3))


def test_multiply_with_an_output_scale_that_is_not_larger_has_version_3():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], keras.layers.Multiply(name="product")([a, b]))
    wide = (-128.0, 127.0)  # scales of 1: the product is not scaled down
    quantized = quantized_with(model, a=wide, b=wide, product=wide)
    x = [np.array([[3.0, -7.0, 100.0]], "float32"), np.array([[5.0, 4.0, -2.0]], "float32")]
    assert called(quantized, x).tolist() == [[15.0, -28.0, -128.0]]
    content = exported(quantized)
    assert versions_of(content) == [("MUL", 3)]
    tensors, (output,) = run_litert(content, x)
    assert tensors[output][0].tolist() == [[15, -28, -128]]
