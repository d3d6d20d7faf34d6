"""ADD: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QAdd
from tests.layers.contract import HALVES, Case, exported, operators_of, quantized_with

Add, ReLU = keras.layers.Add, keras.layers.ReLU


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


CASES = [
    Case("add", (QAdd,), two_inputs),
    Case("add_broadcasting", (QAdd,), broadcasting),
    # Each partial sum is rounded, at training as in integers, so that a tie may fall twice.
    Case("add_of_many", (QAdd,), many_inputs, steps=2),
]


@pytest.mark.parametrize(
    ("followers", "expected"),
    [
        # 2.5 steps and -2.5 steps of 0.5: ties go away from zero
        ([], [1.5, -1.5, 8.0, 63.5]),
        ([ReLU()], [1.5, 0.0, 8.0, 63.5]),
        ([ReLU(6.0)], [1.5, 0.0, 6.0, 6.0]),
    ],
)
def test_integers_by_hand(followers, expected):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    y = Add(name="sum")([a, b])
    for follower in followers:
        y = follower(y)
    quarters = (-32.0, 31.75)
    model = quantized_with(keras.Model([a, b], y), a=HALVES, b=quarters, sum=HALVES)
    x = [
        np.array([[1.0, -1.0, 5.0, 60.0]], "float32"),
        np.array([[0.25, -0.25, 3.0, 30.0]], "float32"),
    ]
    assert model.predict(x, verbose=0).tolist() == [expected]
    assert operators_of(exported(model)) == ["ADD"]


def test_same_tensor_twice_is_its_double():
    a = keras.Input((3,), name="a")
    model = quantized_with(keras.Model(a, Add(name="sum")([a, a])), a=HALVES, sum=(-128.0, 127.0))
    assert model.predict(np.array([[0.5, -3.0, 63.5]], "float32"), verbose=0).tolist() == [
        [1.0, -6.0, 127.0]
    ]


def test_sum_of_many_is_a_chain():
    inputs = [keras.Input((2,)) for _ in range(4)]
    model = keras_qat.quantize_model(keras.Model(inputs, Add()(inputs)))
    assert sum(isinstance(each, QAdd) for each in model.layers) == 3


def test_different_ranks_are_refused():
    a, b = keras.Input((2, 3)), keras.Input((3,))
    model = keras.Model([a, b], Add(name="ranks")([a, b]))
    with pytest.raises(UnsupportedLayerError, match="ranks.*same rank"):
        keras_qat.quantize_model(model)


def test_constant_is_refused():
    x = keras.Input((2, 3))
    rows = np.array([[1.0], [2.0]], "float32")
    with pytest.raises(UnsupportedLayerError, match="constant"):
        keras_qat.quantize_model(keras.Model(x, keras.ops.add(x, rows)))
