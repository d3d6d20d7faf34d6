"""Pooling over windows and global pooling: cases of the contract, hand-computed numbers."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import (
    QAveragePooling1D,
    QAveragePooling2D,
    QGlobalAveragePooling1D,
    QGlobalAveragePooling2D,
    QGlobalMaxPooling1D,
    QGlobalMaxPooling2D,
    QMaskedAverage,
    QMaxPooling1D,
    QMaxPooling2D,
)
from tests.layers.cases import Case, branches, layer, operation, together
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.layers.test_embedding import ids
from tests.models import called

MaxPooling1D, AveragePooling1D = keras.layers.MaxPooling1D, keras.layers.AveragePooling1D
MaxPooling2D, AveragePooling2D = keras.layers.MaxPooling2D, keras.layers.AveragePooling2D
GlobalAveragePooling1D = keras.layers.GlobalAveragePooling1D
GlobalAveragePooling2D = keras.layers.GlobalAveragePooling2D
GlobalMaxPooling1D = keras.layers.GlobalMaxPooling1D
GlobalMaxPooling2D = keras.layers.GlobalMaxPooling2D


def windows(cls, function):
    return branches(
        (7, 6, 4),
        [layer(cls, 2)],
        [layer(cls, 2, padding="same")],
        [layer(cls, 3, strides=1, padding="same")],
        [layer(cls, 3, strides=2, padding="same")],
        [layer(cls, (3, 2), strides=(1, 2))],
        [layer(cls, (5, 4), strides=3, padding="same")],
        [operation(lambda x: function(x, (2, 3), strides=2, padding="same"))],
        [operation(lambda x: function(x, 2))],
    )


def windows_of_steps(cls, function):
    return branches(
        (11, 3),
        [layer(cls, 2)],
        [layer(cls, 3, strides=1)],
        [layer(cls, 3, strides=2, padding="same")],
        [layer(cls, 4, strides=1, padding="same")],
        [operation(lambda x: function(x, 4, strides=3, padding="same"))],
        prefix="c",
    )


def whole(steps, image):
    """Makes global poolings of sequences and images of several sizes."""
    return together(
        branches((7, 4), [steps], [layer(steps, keepdims=True)]),
        branches((1, 3), [steps], [layer(steps, keepdims=True)], prefix="c"),
        branches((7, 5, 4), [image], [layer(image, keepdims=True)], prefix="d"),
        branches((7, 5, 4), [layer(MaxPooling2D, 4), image], prefix="e"),
        branches((1, 1, 6), [image], prefix="f"),
    )


def masked_average():
    words, x = keras.Input((6,), name="ids", dtype="int32"), keras.Input((6, 4), name="x")
    kept = keras.ops.greater(words, 3)
    options = {"mask": kept}
    outputs = [GlobalAveragePooling1D()(x, **options)]
    return keras.Model([words, x], [*outputs, GlobalAveragePooling1D(keepdims=True)(x, **options)])


def with_padding(model, rng, batch):
    """Makes ids of which at least one is kept: Keras divides by the number of kept steps."""
    words, x = ids(model, rng, batch)
    words[:, 0] = 10
    return [words, x]


CASES = [
    Case("masked_average", (QMaskedAverage,), masked_average, data=with_padding),
    Case(
        "max_pooling",
        (QMaxPooling1D, QMaxPooling2D),
        together(
            windows(MaxPooling2D, keras.ops.max_pool),
            windows_of_steps(MaxPooling1D, keras.ops.max_pool),
        ),
        steps=0,
    ),
    Case(
        "average_pooling",
        (QAveragePooling1D, QAveragePooling2D),
        together(
            windows(AveragePooling2D, keras.ops.average_pool),
            windows_of_steps(AveragePooling1D, keras.ops.average_pool),
        ),
    ),
    Case(
        "global_max_pooling",
        (QGlobalMaxPooling1D, QGlobalMaxPooling2D),
        whole(GlobalMaxPooling1D, GlobalMaxPooling2D),
        steps=0,
    ),
    Case(
        "global_average_pooling",
        (QGlobalAveragePooling1D, QGlobalAveragePooling2D),
        whole(GlobalAveragePooling1D, GlobalAveragePooling2D),
    ),
]


def pooled(cls, image, *args, output=HALVES, **kwargs):
    """Pools one image of one channel in steps of 0.5."""
    x = np.array(image, "float32")[None, ..., None]
    pool = cls(*args, name="pool", **kwargs)
    model = keras.Sequential([keras.Input(x.shape[1:], name="input"), pool])
    quantized = quantized_with(model, input=HALVES, pool=output)
    return np.squeeze(called(quantized, x)).tolist()


def test_average_pooling_rounds_half_away_from_zero():
    # (1 + 1 + 2 + 2) / 4 = 1.5 steps
    assert pooled(AveragePooling2D, [[0.5, 0.5], [1.0, 1.0]], 2) == 1.0
    assert pooled(AveragePooling2D, [[-0.5, -0.5], [-1.0, -1.0]], 2) == -1.0


def test_average_pooling_at_a_border_ignores_the_padding():
    image = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 63.5]]
    # 2 / 4, 2 / 6 and 129 / 9 steps; 127 / 6, 127 / 4
    expected = [[0.5, 0.5 * 0, 0.0], [0.0, 7.0, 10.5], [0.0, 10.5, 16.0]]
    assert pooled(AveragePooling2D, image, 3, strides=1, padding="same") == expected
    constant = np.full((3, 3), 7.0)
    assert pooled(AveragePooling2D, constant, 3, strides=1, padding="same") == constant.tolist()


def test_max_pooling_ignores_the_padding():
    image = np.full((3, 3), -5.0)
    assert pooled(MaxPooling2D, image, 2, padding="same") == [[-5.0, -5.0], [-5.0, -5.0]]


def test_global_average_pooling_has_its_own_range():
    # 0.75 is 1.5 steps of 0.5, and 3 steps of 0.25. XNNPACK rounds ties to even.
    assert pooled(GlobalAveragePooling2D, [[0.5, 1.0]]) == 1.0
    assert pooled(GlobalAveragePooling2D, [[-0.5, -1.0]]) == -1.0
    assert pooled(GlobalAveragePooling2D, [[0.5, 1.0]], output=(-32.0, 31.75)) == 0.75


def test_pooling1d_by_hand():
    x = np.array([0.5, 1.0, -0.5, -1.0, 63.5], "float32").reshape(1, 5, 1)
    inputs = keras.Input((5, 1), name="input")
    average = AveragePooling1D(2, strides=2, padding="same")(inputs)
    model = keras.Model(inputs, [average, MaxPooling1D(3, strides=2)(inputs)])
    quantized = quantized_with(model, input=HALVES)
    averages, maxima = called(quantized, x)
    # 3 / 2 steps of 0.5, -3 / 2 steps, and the last value alone
    assert averages.ravel().tolist() == [1.0, -1.0, 63.5]
    assert maxima.ravel().tolist() == [1.0, 63.5]
    found = operators_of(exported(quantized))
    assert sorted({*found}) == ["AVERAGE_POOL_2D", "MAX_POOL_2D", "RESHAPE"]


def test_global_average_pooling_refuses_a_mask_of_real_values():
    x, mask = keras.Input((4, 2), name="x"), keras.Input((4,), name="mask")
    model = keras.Model([x, mask], GlobalAveragePooling1D(name="pool")(x, mask=mask))
    with pytest.raises(UnsupportedLayerError, match="A mask has no counterpart.*'pool'"):
        keras_qat.quantize_model(model)


def test_global_average_pooling_with_a_mask_averages_what_it_keeps():
    words, x = keras.Input((4,), name="words", dtype="int32"), keras.Input((4, 1), name="x")
    kept = keras.ops.not_equal(words, 0)
    model = keras.Model([words, x], GlobalAveragePooling1D(name="pool")(x, mask=kept))
    quantized = quantized_with(model, x=HALVES, pool=HALVES)
    ids = np.array([[1, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 0], [1, 1, 1, 1]], "int32")
    values = np.array([[1.0, 2.0, 9.0, -9.0]] * 4, "float32")[..., None]
    # 1.5 and 0.75 in steps of 0.5, rounded half up. The mean of nothing is 0.
    expected = [[1.5], [9.0], [0.0], [1.0]]
    assert called(quantized, [ids, values]).tolist() == expected
