"""CONCATENATION and PACK: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QConcatenate, QStack
from tests.layers.cases import Case
from tests.layers.contract import quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

layers = keras.layers
Concatenate = layers.Concatenate


def joined(*joins):
    """Joins an image, its convolutions and its pooling, along each axis and by each function."""

    def build():
        image = keras.Input((4, 5, 3))
        convolved = [layers.Conv2D(3, 3, padding="same", name=f"conv{i}")(image) for i in "ab"]
        pooled = layers.MaxPooling2D(3, strides=1, padding="same")(convolved[0])
        tensors = [*convolved, image, pooled]
        return keras.Model(image, [join(tensors) for join in joins])

    return build


CASES = [
    Case(
        "concatenate",
        (QConcatenate,),
        joined(
            Concatenate(name="channels"),
            Concatenate(axis=1, name="rows"),
            Concatenate(axis=-2, name="columns"),
            lambda tensors: ops.concatenate(tensors[:2], axis=-1),
            lambda tensors: Concatenate(name="twice")([tensors[0], tensors[0], tensors[0]]),
        ),
    ),
    Case(
        "stack",
        (QStack,),
        joined(
            lambda tensors: ops.stack(tensors, axis=1),
            lambda tensors: ops.stack(tensors[:2], axis=-1),
            lambda tensors: ops.stack([tensors[0], tensors[0]], axis=3),
        ),
    ),
]


def two_inputs(join):
    inputs = [keras.Input((2,), name=name) for name in "ab"]
    return keras.Model(inputs, join(inputs))


def test_concatenate_gives_all_tensors_the_wider_range():
    model = two_inputs(Concatenate(name="joined"))
    quantized = quantized_with(model, a=(-1.0, 1.0), b=(-64.0, 63.5))
    y = called(quantized, [np.array([[0.3, 1.2]], "float32"), np.array([[9.0, -70.0]], "float32")])
    assert y.tolist() == [[0.5, 1.0, 9.0, -64.0]]
    assert operators_of(exported(quantized)) == ["CONCATENATION"]


def test_stack_adds_an_axis():
    quantized = quantized_with(
        two_inputs(lambda tensors: ops.stack(tensors, axis=2)), a=(-64.0, 63.5), b=(-64.0, 63.5)
    )
    y = called(quantized, [np.array([[1.0, 2.0]], "float32"), np.array([[3.0, 4.0]], "float32")])
    assert y.tolist() == [[[1.0, 3.0], [2.0, 4.0]]]
    assert operators_of(exported(quantized)) == ["PACK"]


@pytest.mark.parametrize(
    "join",
    [
        lambda tensors: Concatenate(axis=0)(tensors),
        lambda tensors: ops.concatenate(tensors, axis=-2),
        ops.stack,
    ],
)
def test_concatenate_and_stack_refuse_the_batch_axis(join):
    with pytest.raises(UnsupportedLayerError, match="batch axis"):
        keras_qat.quantize_model(two_inputs(join))


def test_concatenate_refuses_a_constant():
    inputs = keras.Input(batch_shape=(1, 2))
    model = keras.Model(inputs, ops.concatenate([inputs, np.ones((1, 2), "float32")], axis=1))
    with pytest.raises(UnsupportedLayerError, match="1 such tensor"):
        keras_qat.quantize_model(model)
