"""Comparisons, logic and selections: cases of the contract, hand-computed numbers, errors."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import read_model
from keras_qat.layers import QCompare, QLogical, QLogicalNot, QNumber, QSelect
from keras_qat.litert import Runner
from tests.layers.cases import Case
from tests.layers.contract import HALVES, quantized_with
from tests.layers.litert_files import exported, operators_of, run_litert
from tests.layers.test_embedding import ids
from tests.models import called
from tests.quick import some_quick

COMPARISONS = {
    "equal": [False, True, False],
    "greater": [False, False, True],
    "greater_equal": [False, True, True],
    "less": [True, False, False],
    "less_equal": [True, True, False],
    "not_equal": [True, False, True],
}
COMPARED = {name: getattr(np, name) for name in COMPARISONS}


def comparisons():
    """Compares tensors with constants, with each other and with broadcasting; selects by it."""
    a, b, c = keras.Input((4, 3)), keras.Input((4, 3)), keras.Input((1, 3))
    row = np.array([0.5, -0.5, 0.0], "float32")
    conditions = [ops.greater(a, 0.1), ops.less(row, a), ops.less_equal(a, b), ops.equal(a, a)]
    conditions += [ops.greater_equal(a, c), ops.not_equal(ops.relu(a), 0.0)]
    return keras.Model([a, b, c], [ops.where(each, a, 0.25) for each in conditions])


def decisions():
    """Combines conditions, and computes with them as numbers."""
    a, b = keras.Input((4, 3)), keras.Input((4, 3))
    high, low = a > 0.5, b < -0.5
    both, one = ops.logical_and(high, low), ops.logical_or(high, low)
    parity = ops.logical_xor(high, ops.logical_not(low))
    corner = ops.logical_and(np.tri(4, 3, dtype=bool), ops.reshape(parity, (-1, 4, 3)))
    outputs = [ops.where(both, a, b), ops.where(one, 1.0, b), ops.where(corner, b, 1.0)]
    outputs += [ops.cast(one, "float32") * b, ops.where(ops.expand_dims(high[:, 0], 1), a, b)]
    return keras.Model([a, b], outputs)


def padded():
    """Masks the scores of padding, in ids of a model without an embedding."""
    words, scores = keras.Input((6,), name="ids", dtype="int32"), keras.Input((6,), name="scores")
    kept = ops.logical_and(ops.not_equal(words, 0), ops.less(words, 9))
    return keras.Model([words, scores], layers.Softmax()(ops.where(kept, scores, -1e9)))


CASES = [
    Case("comparisons", (QCompare, QSelect), comparisons),
    Case("decisions", (QLogical, QLogicalNot, QNumber, QSelect), decisions),
    Case("padded_scores", (QCompare, QLogical, QSelect), padded, data=ids),
]


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison_with_a_constant_compares_integers(name):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, ops.where(getattr(ops, name)(x, 0.5), x, 0.0))
    selection = list(read_model(model).nodes)[-1]
    quantized = quantized_with(model, x=HALVES, **{selection: HALVES})
    data = np.array([[-0.5, 0.5, 1.0]], "float32")
    kept = np.where(COMPARISONS[name], data, 0.0)
    np.testing.assert_array_equal(called(quantized, data), kept)
    code = {"equal": "EQUAL", "not_equal": "NOT_EQUAL"}.get(name, name.upper())
    assert operators_of(exported(quantized)) == ["CAST", code, "SELECT_V2"]


@pytest.mark.parametrize(("limit", "kept"), [(1e9, [False] * 2), (-1e9, [True] * 2)])
def test_comparison_with_a_constant_beyond_the_range(limit, kept):
    x = keras.Input((2,), name="x")
    model = keras.Model(x, ops.where(x > limit, x, 0.0))
    selection = list(read_model(model).nodes)[-1]
    quantized = quantized_with(model, x=HALVES, **{selection: HALVES})
    data = np.array([[-64.0, 63.5]], "float32")
    np.testing.assert_array_equal(called(quantized, data), np.where(kept, data, 0.0))


def ranged(function, scale, size):
    """Returns a quantized model of a function, with integers from -100 to 155 and their scale."""
    x = keras.Input((size,), name="x")
    model = quantized_with(keras.Model(x, function(x)), x=(-100.0 * scale, 155.0 * scale))
    scale = model.layers[1].neighbours.output.grid().scale
    return model, np.float32(ops.convert_to_numpy(scale))


def constants_near(grid, low, high, rng):
    """Returns constants on steps, directly beside steps, between steps and beyond the range."""
    steps = np.arange(low, high + 1, dtype="float32") * grid
    beside = [np.nextafter(steps, np.float32(way)) for way in (-np.inf, np.inf)]
    between = rng.uniform(steps[0] - 3 * grid, steps[-1] + 3 * grid, 200)
    far = [1e9, -1e9, np.finfo("float32").max, 0.0, -0.0]
    found = np.concatenate([steps, *beside, between, far]).astype("float32")
    # Backends take numbers below the normal ones as 0.
    return found[(found == 0) | (np.abs(found) >= np.finfo("float32").tiny)]


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize(
    ("scale", "position"), some_quick(itertools.product([0.1, 3e-7], [0, 1]), 1, 2)
)
def test_comparison_with_any_constant_decides_as_real_values_do(name, position, scale, tmp_path):
    """Compares each value of a grid with constants, in Keras, in LiteRT, and in training."""
    compare = getattr(ops, name)
    _, step = ranged(lambda x: ops.greater(x, 0.0), scale, 1)
    constants = constants_near(step, -130, 130, np.random.default_rng(0))
    quantized, _ = ranged(
        lambda x: compare(x, constants) if position else compare(constants, x),
        *(scale, constants.size),
    )
    values = np.arange(-100, 156, dtype="float32")[:, None] * step
    data = np.broadcast_to(values, (256, constants.size)).astype("float32")
    operands = [data, constants] if position else [constants, data]
    expected = COMPARED[name](*operands)
    np.testing.assert_array_equal(called(quantized, data), expected)
    np.testing.assert_array_equal(quantized(data, training=True), expected)
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(quantized, path)
    assert keras_qat.verify(quantized, path, data[::16], verbose=0).exact


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("constant", some_quick([0.5, 2.0, -0.5, 1e12], 0, 1, 3))
def test_comparison_of_ids_with_any_constant_decides_as_real_values_do(name, constant):
    ids = keras.Input((5,), name="ids", dtype="int32")
    model = keras.Model(ids, getattr(ops, name)(ids, constant))
    quantized = keras_qat.quantize_model(model)
    data = np.arange(-2, 3, dtype="int32")[None]
    expected = COMPARED[name](data, np.float32(constant))
    np.testing.assert_array_equal(called(quantized, data), expected)
    [values] = run_litert(exported(quantized), [data])[0][quantized.output_names[0]][:1]
    np.testing.assert_array_equal(values, expected)


def test_comparison_is_an_output_of_the_model(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, {"large": x > 0.5, "head": layers.Dense(2)(x)})
    data = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(quantized, path, inference_output_type="uint8")
    report = keras_qat.verify(quantized, path, data, verbose=0)
    assert report.exact, str(report)
    types = {each.name: each.dtype.name for each in Runner(path).outputs}
    assert types == {"large": "bool", "head": "uint8"}


def test_selection_with_a_boolean_input(tmp_path):
    x, mask = keras.Input((3,), name="x"), keras.Input((3,), name="mask", dtype="bool")
    model = keras.Model([x, mask], ops.where(mask, x, 0.0))
    rng = np.random.default_rng(0)
    data = rng.normal(size=(16, 3)).astype("float32"), rng.random((16, 3)) > 0.5
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(quantized, path)
    report = keras_qat.verify(quantized, path, data, verbose=0)
    assert report.exact, str(report)
    assert operators_of(path.read_bytes()) == ["SELECT_V2"]


def test_logic_of_real_values_is_refused():
    x = keras.Input((3,))
    model = keras.Model(x, ops.where(ops.logical_not(x), x, 0.0))
    with pytest.raises(UnsupportedLayerError, match=r"booleans only.*logical_not.*x != 0"):
        keras_qat.quantize_model(model)


def test_selection_of_another_rank_is_refused():
    x = keras.Input((4, 3))
    model = keras.Model(x, ops.where(x[:, 0] > 0, x, 0.0))
    with pytest.raises(UnsupportedLayerError, match=r"different ranks"):
        keras_qat.quantize_model(model)
