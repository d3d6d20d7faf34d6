"""write_attention: attention becomes products, a softmax, and layers with its weights."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.models import called
from tests.passes.customs import assert_exact, assert_file_exact, names, normal
from tests.quick import some_quick

layers = keras.layers
SHAPE = (10, 16)
ATTENTION = {
    "multi_head": lambda x: layers.MultiHeadAttention(2, 8)(x, x),
    "with_dropout": lambda x: layers.MultiHeadAttention(2, 8, dropout=0.1)(x, x),
    "grouped": lambda x: layers.GroupQueryAttention(8, 4, 2)(x, x),
    "dot": lambda x: layers.Attention()([x, x]),
    "scaled": lambda x: layers.Attention(use_scale=True)([x, x]),
    "additive": lambda x: layers.AdditiveAttention()([x, x]),
    "causal": lambda x: layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True),
    "causal_with_dropout": lambda x: layers.MultiHeadAttention(2, 8, dropout=0.1)(
        x, x, use_causal_mask=True
    ),
    "causal_grouped": lambda x: layers.GroupQueryAttention(8, 4, 2)(x, x, use_causal_mask=True),
    "causal_dot": lambda x: layers.Attention()([x, x], use_causal_mask=True),
    "causal_additive": lambda x: layers.AdditiveAttention()([x, x], use_causal_mask=True),
    "causal_operation": lambda x: of_heads(x, is_causal=True),
    "masked": lambda x: layers.MultiHeadAttention(2, 8)(x, x, attention_mask=BAND),
    "masked_operation": lambda x: of_heads(x, mask=BAND[:, None], is_causal=True),
}
# Each step attends to itself and the two steps on either side.
BAND = np.abs(np.arange(10)[:, None] - np.arange(10))[None] <= 2


def of_heads(x, **options):
    heads = ops.reshape(layers.Dense(16)(x), (-1, 10, 2, 8))
    return ops.dot_product_attention(heads, heads, heads, **options)


@pytest.mark.parametrize("name", some_quick(ATTENTION, 0, 4, 5, 8, 11))
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


def test_write_attention_causal_mask_hides_later_steps(tmp_path):
    """The first outputs do not change with later steps, and are near the outputs in float."""
    x = keras.Input(SHAPE)
    model = keras.Model(x, ATTENTION["causal"](x))
    data = normal(SHAPE)
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    other = data.copy()
    other[:, 5:] = 0.5 * other[:, 5:][:, ::-1]
    before, after = (called(quantized, each) for each in (data, other))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.any(before[:, 5:] != after[:, 5:])
    exact = called(model, data)
    assert 10 * np.log10(np.mean(exact**2) / np.mean((before - exact) ** 2)) > 25  # dB


def test_write_attention_refuses_dropout_of_plain_attention():
    x = keras.Input(SHAPE)
    with pytest.raises(UnsupportedLayerError, match=r"(?s)dropout.*bad.*dropout=0\.5"):
        keras_qat.quantize_model(keras.Model(x, layers.Attention(dropout=0.5, name="bad")([x, x])))
