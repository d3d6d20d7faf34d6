"""`keras.layers.Masking`: cases of the contract, hand-computed numbers, masks that layers take."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.layers import QMaskedAverage, QPaddingMask, QSelect
from tests.layers.cases import Case
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called
from tests.quick import some_quick

# Keras warns wherever it drops a mask, also inside of its own layers.
pytestmark = pytest.mark.filterwarnings(r"ignore:[\s\S]*does not support masking:UserWarning")


def sequences(padding, shape=(16, 6, 4), seed=0):
    """Returns sequences with padding at the end, at the beginning and in between."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape).astype("float32")
    lengths = rng.integers(1, shape[1] + 1, len(x))
    for sample, length in zip(x, lengths, strict=True):
        sample[rng.permutation(shape[1])[length:]] = padding
    return x


def masked(padding):
    """Averages the steps that are no padding, before and after a layer that trains."""

    def build():
        x = keras.Input((6, 4))
        y = layers.Masking(padding)(x)
        dense = layers.Dense(5, activation="relu")(y)
        pooled = [layers.GlobalAveragePooling1D()(each) for each in (y, dense)]
        return keras.Model(x, [*pooled, layers.Dense(3)(y)])

    return build


def case(name, padding, *covered):
    def data(model, rng, batch):
        return [sequences(padding, (batch, *model.input_shape[1:]), int(rng.integers(1e6)))]

    return Case(name, (QPaddingMask, QMaskedAverage, *covered), masked(padding), data=data)


CASES = [case("padded_with_zeros", 0.0), case("padded_with_numbers", -5.0, QSelect)]
TAKERS = {
    "attention": lambda x: layers.MultiHeadAttention(2, 4)(x, x),
    "dot": lambda x: layers.Attention()([layers.Dense(8)(x), layers.Dense(8)(x)]),
    "softmax": lambda x: layers.Softmax()(layers.Reshape((24,))(x)),
    "average": lambda x: layers.GlobalAveragePooling1D()(layers.Dense(3)(x)),
    "none": lambda x: layers.Conv1D(3, 2)(x),
    "output": lambda x: x,
}


@pytest.mark.parametrize(
    ("name", "padding"),  # each layer that takes a mask with one of the paddings
    some_quick(itertools.product(TAKERS, [0.0, -1.0]), 0, 3, 4, 7, 8, 11),
)
def test_padding_is_left_out_as_keras_does(name, padding, tmp_path):
    x = keras.Input((6, 4), name="x")
    model = keras.Model(x, TAKERS[name](layers.Masking(padding)(x)))
    data = sequences(padding)
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    report = keras_qat.verify(quantized, tmp_path / "model.tflite", data, verbose=0)
    assert report.exact and not report.not_compared, str(report)
    error = called(quantized, data) - called(model, data)
    assert np.max(np.abs(error)) < 0.2


# -0.7 is rounded to -0.5, and -1000 to -64.
@pytest.mark.parametrize(("padding", "mean"), [(-0.7, 0.5), (-1000.0, -31.5)])
def test_padding_mask_rounds_as_the_padding_is_rounded(padding, mean):
    x = keras.Input((2, 2), name="x")
    model = keras.Model(x, layers.GlobalAveragePooling1D(name="mean")(layers.Masking(padding)(x)))
    quantized = keras_qat.quantize_model(model)
    for each in quantized.layers:
        if getattr(each, "observer", None) is not None:
            each.observer.widen(*HALVES)
    data = np.array([[[padding] * 2, [2.0, 3.0]], [[padding, 1.0], [1.0, 3.0]]], "float32")
    expected = [[2.0, 3.0], [mean, 2.0]]
    assert called(quantized, data).tolist() == expected
    assert quantized(data, training=True).numpy().tolist() == expected


def test_masking_with_zeros_is_no_operator():
    x = keras.Input((6, 4), name="x")
    model = keras.Model(x, layers.Flatten()(layers.Masking()(x)))
    assert operators_of(exported(quantized_with(model, x=HALVES))) == ["RESHAPE"]


def test_masking_compares_once():
    x = keras.Input((6, 4), name="x")
    y = layers.Masking(-5.0)(x)
    model = keras.Model(x, layers.Add()([y, layers.MultiHeadAttention(2, 4)(y, y)]))
    quantized = keras_qat.quantize_model(model, calibration_data=sequences(-5.0))
    assert [type(each).__name__ for each in quantized.layers].count("QPaddingMask") == 1
