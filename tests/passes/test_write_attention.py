"""write_attention: attention becomes products, a softmax, and layers with its weights."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.passes.customs import assert_exact, assert_file_exact, names, normal

layers = keras.layers
SHAPE = (10, 16)
ATTENTION = {
    "multi_head": lambda x: layers.MultiHeadAttention(2, 8)(x, x),
    "with_dropout": lambda x: layers.MultiHeadAttention(2, 8, dropout=0.1)(x, x),
    "grouped": lambda x: layers.GroupQueryAttention(8, 4, 2)(x, x),
    "dot": lambda x: layers.Attention()([x, x]),
    "scaled": lambda x: layers.Attention(use_scale=True)([x, x]),
    "additive": lambda x: layers.AdditiveAttention()([x, x]),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_write_attention_is_exact(name, tmp_path):
    x = keras.Input(SHAPE)
    assert_exact(keras.Model(x, ATTENTION[name](x)), normal(SHAPE), tmp_path)


def test_write_attention_trains(tmp_path):
    x = keras.Input(SHAPE)
    model = keras.Model(x, layers.MultiHeadAttention(2, 8, name="attention")(x, x))
    data = normal(SHAPE)
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, data, verbose=0)
    kinds = names(quantized)
    assert (kinds.count("QDense"), kinds.count("QMatmul"), kinds.count("QSoftmax")) == (4, 2, 1)
    # The four dense layers have the biases.
    assert "QAdd" not in kinds
    before = [np.array(weight) for weight in quantized.trainable_weights]
    quantized.compile(keras.optimizers.SGD(0.1), "mse")
    quantized.fit(data, normal(SHAPE, seed=1), verbose=0)
    after = [np.array(weight) for weight in quantized.trainable_weights]
    assert all(np.any(old != new) for old, new in zip(before, after, strict=True))
    assert_file_exact(quantized, data, tmp_path)


def test_write_attention_refuses_masks():
    x = keras.Input(SHAPE)
    y = layers.MultiHeadAttention(2, 8, name="attention")(x, x, use_causal_mask=True)
    with pytest.raises(UnsupportedLayerError, match="(?s)mask has no integer form.*attention"):
        keras_qat.quantize_model(keras.Model(x, y))


def test_write_attention_refuses_dropout_of_plain_attention():
    x = keras.Input(SHAPE)
    with pytest.raises(UnsupportedLayerError, match=r"(?s)dropout.*bad.*dropout=0\.5"):
        keras_qat.quantize_model(keras.Model(x, layers.Attention(dropout=0.5, name="bad")([x, x])))
