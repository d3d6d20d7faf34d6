"""connect_masks: masks that Keras attaches to tensors become arguments."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.models import called
from tests.passes.customs import assert_exact
from tests.quick import some_quick

# Keras warns wherever it drops a mask, also inside of its own layers.
pytestmark = pytest.mark.filterwarnings(r"ignore:[\s\S]*does not support masking:UserWarning")
# Padding at the end, at the beginning, in between, everywhere and nowhere.
IDS = np.random.default_rng(0).integers(1, 9, (16, 6))
IDS[0, 2:], IDS[1, :3], IDS[2, 2], IDS[3], IDS[5:9, 4:] = 0, 0, 0, 0, 0


def embedded(**options):
    words = keras.Input((6,), dtype="int32", name="words")
    return words, layers.Embedding(9, 8, mask_zero=True, **options)(words)


def block(x):
    y = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    return layers.Add()([x, layers.Dense(8)(layers.Dense(8, activation="relu")(x))])


def nested(x):
    inputs = keras.Input((6, 8))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4)(inputs, inputs))(x)


TAKERS = {
    "multi_head_causal": lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
    "with_dropout": lambda x: layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x),
    "grouped": lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x),
    "dot": lambda x: layers.Attention()([layers.Dense(8)(x), x]),
    "two_blocks": lambda x: block(block(x)),
    "nested": nested,
    "each_step": lambda x: block(layers.TimeDistributed(layers.Dense(8))(x)),
}


@pytest.mark.parametrize("name", some_quick(TAKERS, 0, 6))
def test_connect_masks_is_exact(name, tmp_path):
    words, x = embedded()
    assert_exact(keras.Model(words, TAKERS[name](x)), IDS, tmp_path)


def test_connect_masks_ignores_padding():
    """Outputs of words do not change with the vector of the padding."""
    words, x = embedded(name="table")
    model = keras.Model(words, layers.MultiHeadAttention(2, 4)(x, x))
    quantized = keras_qat.quantize_model(model, calibration_data=IDS)
    table = quantized.get_layer("table").embeddings
    # The other rows have the range.
    table.assign(np.concatenate([0.0 * table[:1], table[1:]]))
    before = called(quantized, IDS)
    table.assign(np.concatenate([table[5:6], table[1:]]))
    after = called(quantized, IDS)
    np.testing.assert_array_equal(before[IDS > 0], after[IDS > 0])


def test_connect_masks_of_a_custom_layer(tmp_path):
    """A custom layer that makes a mask, and one that takes it."""

    class Positions(layers.Layer):
        def __init__(self):
            super().__init__()
            self.table = layers.Embedding(9, 8, mask_zero=True)

        def call(self, ids):
            return 2.0 * self.table(ids)

        def compute_mask(self, inputs, mask=None):
            return self.table.compute_mask(inputs)

    class Pool(layers.Layer):
        def call(self, x, mask=None):
            return ops.max(ops.where(ops.expand_dims(mask, -1), x, -9.0), axis=1)

    words = keras.Input((6,), dtype="int32")
    model = keras.Model(words, Pool()(layers.Dense(8)(Positions()(words))))
    assert_exact(model, IDS, tmp_path)


class Inside(layers.Layer):
    """A custom layer with attention, which Keras gives the mask of its input."""

    def __init__(self):
        super().__init__(name="inside")
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")

    def call(self, x):
        return self.attention(x, x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: Inside()(x), r"inside a custom layer.*'inside'.*attention"),
        (lambda x: layers.Multiply(name="gate")([x, layers.Dense(8)(x)]), "no mask hides.*'gate'"),
    ],
)
def test_connect_masks_refuses(function, message):
    words, x = embedded()
    with pytest.raises(UnsupportedLayerError, match=f"(?s){message}"):
        keras_qat.quantize_model(keras.Model(words, function(x)))
