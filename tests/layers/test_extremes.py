"""MAXIMUM, MINIMUM and SELECT_V2: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import read_model
from keras_qat.layers import QMaximum, QMinimum, QWhere
from tests.layers.cases import Case
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called

Maximum, Minimum = keras.layers.Maximum, keras.layers.Minimum
maximum, minimum, where = keras.ops.maximum, keras.ops.minimum, keras.ops.where


def two_inputs():
    a, b = keras.Input((5, 4)), keras.Input((5, 4))
    outputs = [Maximum()([a, b]), Minimum()([b, a]), maximum(a, a), minimum(a, b)]
    return keras.Model([a, b], outputs)


def broadcasting():
    a, b, c = keras.Input((3, 4, 2)), keras.Input((1, 1, 2)), keras.Input((3, 1, 1))
    return keras.Model([a, b, c], [Maximum()([a, b]), Minimum()([c, a]), maximum(b, c)])


def many_inputs():
    inputs = [keras.Input((6,)) for _ in range(4)]
    return keras.Model(inputs, [Maximum()(inputs[:3]), Minimum()(inputs)])


def with_constants():
    """Adds each constant to a separate tensor, since operands and output share one range."""
    rng = np.random.default_rng(3)
    full, rows, wide = (rng.normal(size=s).astype("float32") for s in [(4, 3), (4, 1), (1, 5, 3)])
    inputs = [keras.Input((4, 3)) for _ in range(6)] + [keras.Input((1, 3))]
    a, b, c, d, e, f, g = inputs
    outputs = [maximum(a, full), minimum(full, b), minimum(rows, c), maximum(wide, g)]
    outputs += [minimum(d, 1e6 * (full > 0) + full), maximum(e, -1e6 + full), maximum(f, full[0])]
    return keras.Model(inputs, outputs)


def selections():
    """Selects by masks: of two tensors, of a tensor and a constant, and with broadcasting."""
    rng = np.random.default_rng(5)
    mask, row = rng.random((1, 4, 3)) > 0.5, np.array([True, False, True])
    full, lone = rng.normal(size=(4, 3)).astype("float32"), np.float32(0.25)
    a, b, c, d, e, f = (keras.Input((4, 3)) for _ in range(6))
    g = keras.Input((1, 3))
    outputs = [where(mask, a, b), where(row, a, b), where(mask, c, full), where(row, lone, d)]
    outputs += [where(mask[0], e, 0.0), where(mask, g, g), where(mask, f, g)]
    return keras.Model([a, b, c, d, e, f, g], outputs)


def masked_scores():
    """Masks scores before a softmax: by a minimum, and by selections on either side."""
    mask = np.tri(5, 6, dtype=bool)
    a, b, c = (keras.Input((5, 6)) for _ in range(3))
    far = np.where(mask, 1e9, -1e9).astype("float32")
    scores = [minimum(a, far), where(mask, b, -1e9), where(mask[None], -1e4, c)]
    return keras.Model([a, b, c], [keras.layers.Softmax()(each) for each in scores])


CASES = [
    Case("masked_scores", (QMinimum, QWhere), masked_scores),
    Case("selections", (QWhere,), selections),
    Case("extremes", (QMaximum, QMinimum), two_inputs, steps=0),
    Case("extremes_broadcasting", (QMaximum, QMinimum), broadcasting, steps=0),
    Case("extremes_of_many", (QMaximum, QMinimum), many_inputs, steps=0),
    Case("extremes_with_constants", (QMaximum, QMinimum), with_constants),
]


def test_maximum_and_minimum_share_one_range():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    outputs = [Maximum()([a, b]), Minimum()([a, b])]
    model = quantized_with(keras.Model([a, b], outputs), a=HALVES, b=(-1.0, 1.0))
    x = [np.array([[0.5, -2.0, 30.0]], "float32"), np.array([[0.1, 9.0, 63.5]], "float32")]
    # 0.1 is 0 in steps of 0.5
    assert [y.tolist() for y in called(model, x)] == [
        [[0.5, 9.0, 63.5]],
        [[0.0, -2.0, 30.0]],
    ]
    assert sorted(operators_of(exported(model))) == ["MAXIMUM", "MINIMUM"]


def test_minimum_with_a_far_constant_keeps_the_range():
    x = keras.Input((3,), name="x")
    model = keras.Model(x, minimum(x, np.array([[1.0, 1e9, 1e9]], "float32")))
    data = np.array([[1.5, -2.0, 2.0]], "float32")
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    np.testing.assert_allclose(called(quantized, data), [[1.0, -2.0, 2.0]], atol=0.01)


def test_masked_scores_are_zero_after_softmax():
    """The range reaches log(512 * 4) = 7.62 below the least score, or below 0 if that is less."""
    x = keras.Input((4,), name="x")
    masked = minimum(x, np.array([[1e9, 1e9, -1e9, -1e9]], "float32"))
    model = keras.Model(x, keras.layers.Softmax()(masked))
    data = np.array([[1.0, 3.0, 9.0, 9.0], [-2.0, -2.0, 9.0, 9.0]], "float32")
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    observer = next(layer for layer in quantized.layers if type(layer) is QMinimum).observer
    np.testing.assert_allclose(observer.limits, (-2 - 7.6246, 3.0), atol=1e-4)
    outputs = called(quantized, data)
    np.testing.assert_array_equal(outputs[:, 2:], 0.0)
    np.testing.assert_allclose(outputs[:, :2], [[0.119, 0.881], [0.5, 0.5]], atol=0.01)


def test_masked_scores_keep_their_range_in_training():
    x = keras.Input((4,), name="x")
    masked = where(np.array([True, False, True, False]), x, -1e9)
    quantized = keras_qat.quantize_model(keras.Model(x, keras.layers.Softmax()(masked)))
    data = np.array([[1.0, 3.0, -2.0, 5.0]] * 2, "float32")
    outputs = quantized(data, training=True)
    np.testing.assert_allclose(outputs[0], [0.953, 0.0, 0.047, 0.0], atol=0.01)


def test_maximum_with_a_visible_constant_widens_the_range():
    x = keras.Input((2,), name="x")
    model = keras.Model(x, maximum(x, np.array([[10.0, -10.0]], "float32")))
    name = list(read_model(model).nodes)[1]
    quantized = quantized_with(model, x=(-1.0, 1.0), **{name: HALVES})
    assert called(quantized, np.array([[0.5, 0.5]])).tolist() == [[10.0, 0.5]]


def test_maximum_refuses_different_ranks():
    a, b = keras.Input((2, 3)), keras.Input((3,))
    model = keras.Model([a, b], Maximum(name="ranks")([a, b]))
    with pytest.raises(UnsupportedLayerError, match="ranks.*same rank"):
        keras_qat.quantize_model(model)


def test_where_selects_by_a_constant_condition():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], where(np.array([True, False, True]), a, b))
    quantized = quantized_with(model, a=HALVES, b=HALVES)
    x = [np.array([[0.5, -2.0, 30.0]], "float32"), np.array([[1.0, 9.0, 63.5]], "float32")]
    assert called(quantized, x).tolist() == [[0.5, 9.0, 30.0]]
    assert operators_of(exported(quantized)) == ["SELECT_V2"]


@pytest.mark.parametrize("shape", [(2, 1), (1, 1, 3)])
def test_where_with_a_condition_over_the_batch_is_refused(shape):
    a = keras.Input((3,))
    model = keras.Model(a, where(np.ones(shape, bool), a, 0.0))
    with pytest.raises(UnsupportedLayerError, match="batch axis"):
        keras_qat.quantize_model(model)
