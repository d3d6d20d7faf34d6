"""Ranges after calibration. The oracles are hand-computed numbers and the float model."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import (
    InvalidDataError,
    InvalidRangeRuleError,
    NotQuantizedError,
    OutlierWarning,
    RangeDriftWarning,
)
from keras_qat.layers.models.observed_ranges import observed_layers
from tests.models import images, linear, network, quantized, quantized_network

# Rows sum to 10, 26 and -4.
X = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [-4, 0, 0, 0]], "float32")


def ranges(model):
    return {
        layer.name: (float(layer.observer.minimum), float(layer.observer.maximum))
        for layer in observed_layers(model)
    }


def calibrated_on(data, **arguments):
    model = keras_qat.quantize_model(linear())
    keras_qat.calibrate(model, data, verbose=0, **arguments)
    return ranges(model)


EXPECTED = {"x_quantize": (-4, 8), "dense": (-4, 26)}


def dataset(*arrays):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays[0] if len(arrays) == 1 else arrays)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[index : index + 1], np.zeros(1)


KINDS = {
    "array": lambda: X,
    "tuple": lambda: (X,),
    "dict": lambda: {"x": X},
    "dataset": lambda: dataset(X).batch(2),
    "dataset of pairs": lambda: dataset(X, np.zeros(3)).batch(2),
    "generator": lambda: (X[i : i + 1] for i in range(3)),
    "list of batches": lambda: [X[:2], X[2:]],
    "list of samples": lambda: list(X),
    "PyDataset": Batches,
    "float64": lambda: X.astype("float64"),
    "integers": lambda: X.astype("int32"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_calibrate_gives_equal_ranges_for_every_kind_of_data(kind):
    assert calibrated_on(KINDS[kind]()) == EXPECTED


def test_calibrate_steps_bound_an_endless_generator():
    def endless():
        while True:
            yield X[:1]

    assert calibrated_on(endless(), steps=2) == {"x_quantize": (1, 4), "dense": (10, 10)}


def test_calibrate_steps_take_the_first_batches():
    assert calibrated_on([X[:1], X[1:2], X[2:]], steps=2)["dense"] == (10, 26)


def test_quantize_model_calibrates(capsys):
    model = keras_qat.quantize_model(linear(), calibration_data=X)
    assert ranges(model) == EXPECTED
    assert "batch" in capsys.readouterr().out


def test_calibrate_without_a_progress_bar(capsys):
    calibrated_on(X)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("make", [lambda x: x, lambda x: dataset(x).batch(2), list])
def test_calibrate_gives_pixels_a_scale_of_one(make):
    pixels = np.array([[3, 7, 9, 4], [5, 6, 7, 8]], "uint8")
    model = keras_qat.quantize_model(linear())
    keras_qat.calibrate(model, make(pixels), verbose=0)
    scale, zero_point = model.get_layer("x_quantize").neighbours.output.grid()
    assert (float(scale), int(zero_point)) == (1.0, -128)
    assert ranges(model)["dense"] == (23, 26)


def test_calibrate_on_pixels_and_other_data():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras_qat.quantize_model(keras.Model([a, b], layers.Add(name="sum")([a, b])))
    keras_qat.calibrate(model, (np.array([[1, 2, 3, 4]], "uint8"), X[:1]), verbose=0)
    assert ranges(model) == {"a_quantize": (0, 255), "b_quantize": (1, 4), "sum": (2, 8)}


def test_calibrate_forgets_old_ranges():
    model = quantized(linear(), 100 * X)
    keras_qat.calibrate(model, X, verbose=0)
    assert ranges(model) == EXPECTED
    assert all(int(layer.observer.updates) == 1 for layer in observed_layers(model))


def test_calibrate_gives_the_ranges_after_fused_activations():
    model, data = network(), images()
    taps = {"conv": "relu", "depthwise": "depthwise", "add": "add", "mean": "mean"}
    outputs = [model.get_layer(name).output for name in taps.values()]
    values = keras.Model(model.inputs[0], outputs)(data)
    found = ranges(quantized_network())
    for name, value in zip(taps, values, strict=True):
        expected = float(keras.ops.min(value)), float(keras.ops.max(value))
        assert found[name] == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert found["image_quantize"] == (data.min(), data.max())


def test_calibrate_gives_a_shared_layer_one_range():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    dense = layers.Dense(1, kernel_initializer="ones", name="dense")
    model = keras_qat.quantize_model(keras.Model([a, b], [dense(a), dense(b)]))
    keras_qat.calibrate(model, (X[:1], X[1:2]), verbose=0)
    assert ranges(model)["dense"] == (10, 26)
    layer = model.get_layer("dense")
    assert layer.neighbours.inputs[0] is model.get_layer("a_quantize").neighbours.output
    assert layer.neighbours.inputs[0] is model.get_layer("b_quantize").neighbours.output


def test_calibrate_leaves_weights_unchanged():
    source = network()
    model = keras_qat.quantize_model(source)
    before = {v.path: np.array(v) for v in model.variables if "range" not in v.path}
    keras_qat.calibrate(model, images(), verbose=0)
    after = {v.path: np.array(v) for v in model.variables if "range" not in v.path}
    assert all((before[path] == after[path]).all() for path in before)


WRONG = {
    "wrong shape": lambda: X[:, :3],
    "empty": lambda: [],
    "NaN in a later batch": lambda: [X, np.where(X == 3, np.nan, X)],
    "infinity": lambda: np.where(X == 3, np.inf, X),
    "overflow in a layer": lambda: np.full((1, 4), 3e38, "float32"),
    "too wide": lambda: np.array([[-3e38, 3e38, 0, 0]], "float32"),
}


@pytest.mark.parametrize("name", WRONG)
def test_calibrate_leaves_the_model_unchanged_after_an_error(name):
    model = quantized(linear(), X)
    with pytest.raises(InvalidDataError):
        keras_qat.calibrate(model, WRONG[name](), verbose=0)
    assert ranges(model) == EXPECTED


def test_calibrate_names_the_layer_that_overflows():
    with pytest.raises(InvalidDataError, match="overflow float32.* Layer: 'dense'.* To fix it: "):
        calibrated_on(np.full((1, 4), 3e38, "float32"))


def test_calibrate_refuses_a_float_model():
    with pytest.raises(NotQuantizedError, match="Received: a Sequential.* To fix it: "):
        keras_qat.calibrate(linear(), X)


def with_an_outlier(count=200):
    data = np.random.default_rng(0).uniform(-1, 1, (count, 4)).astype("float32")
    data[0] = 1
    clean = data.copy()
    data[7] *= 100 / np.abs(data[7]).max()
    return data, np.delete(clean, 7, axis=0)


@pytest.mark.parametrize("make", [lambda x: x, lambda x: iter(list(x)), lambda x: [x[::-1]]])
def test_calibrate_robustly_leaves_out_outliers(make):
    data, clean = with_an_outlier()
    model = keras_qat.quantize_model(linear())
    with pytest.warns(OutlierWarning, match="1 of 200 samples .0.5 %.: in the input 'x' .* 100,"):
        keras_qat.calibrate(model, make(data), verbose=0)
    assert ranges(model) == {
        "x_quantize": (clean.min(), clean.max()),
        "dense": pytest.approx((clean.sum(1).min(), clean.sum(1).max()), rel=1e-6),
    }


def test_calibrate_by_minmax_covers_all_samples():
    data, _ = with_an_outlier()
    assert calibrated_on(data, range_rule="minmax")["x_quantize"] == (data.min(), data.max())


def test_calibrate_refuses_an_unknown_range_rule():
    with pytest.raises(InvalidRangeRuleError, match="'minmax'.*'median'.* To fix it: "):
        keras_qat.calibrate(keras_qat.quantize_model(linear()), X, range_rule="median")


def test_check_names_the_samples_that_calibration_left_out(tmp_path):
    model = keras_qat.quantize_model(linear())
    with pytest.warns(OutlierWarning):
        keras_qat.calibrate(model, with_an_outlier()[0], verbose=0)
    model.save(tmp_path / "model.keras")
    for each in (model, keras.saving.load_model(tmp_path / "model.keras")):
        (found,) = keras_qat.check(each).findings
        assert (found.code, found.layer) == ("outlying-samples", "x")
        assert "1 of 200 samples" in found.message and 'range_rule="minmax"' in str(found.fix)
    keras_qat.calibrate(model, with_an_outlier()[1], verbose=0)
    assert keras_qat.check(model).findings == ()


def test_fit_and_check_name_ranges_that_training_has_left():
    model = quantized(linear(), X)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    data = np.tile(X[:2] * 1.9, (20, 1))  # half of the samples reach 15.2
    with pytest.warns(RangeDriftWarning, match="'x_quantize' takes .* to 15.2 .* range -4 to 8"):
        model.fit(data, np.zeros((40, 2)), batch_size=2, epochs=2, verbose=0)
    assert ranges(model) == EXPECTED
    assert {each.code for each in keras_qat.check(model).findings} == {"range-drift"}


def test_check_names_ranges_that_training_replaced():
    model = quantized(linear(), X)
    dense = model.get_layer("dense")
    dense.kernel.assign(dense.kernel * 3)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(np.tile(X[1:2], (64, 1)), np.zeros((64, 2)), batch_size=64, verbose=0)
    assert ranges(model)["dense"] == pytest.approx((78, 78), rel=0.01)
    (found,) = keras_qat.check(model).findings
    assert (found.code, found.layer) == ("range-drift", "dense") and "replaced" in found.message


@pytest.mark.parametrize("rule", ["minmax", "robust", "percentile"])
def test_calibrate_takes_layers_with_the_names_of_operations(rule):
    x = keras.Input((6,), name="x")
    names = "add", "extremes", "maximum", "log2", "multiply", "reshape", "sign", "lambda"
    y = x
    for name in names:
        y = keras.layers.Dense(4, name=name)(y)
    y = keras.layers.LayerNormalization(name="norm")(y)
    qat = keras_qat.quantize_model(keras.Model(x, y))
    data = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    keras_qat.calibrate(qat, data, range_rule=rule, verbose=0)
    assert qat.lacking_ranges == ()


@pytest.mark.parametrize("batches", [1, 2])
def test_calibrate_traces_the_model_for_several_batches(batches, monkeypatch):
    """A trace of a small model takes longer than to compute a batch eagerly."""
    traced, make = [], keras.Model.make_predict_function
    monkeypatch.setattr(
        keras.Model, "make_predict_function", lambda self, *a: [traced.append(self), make(self)][1]
    )
    data = np.ones((32 * batches, 4), "float32")
    keras_qat.calibrate(keras_qat.quantize_model(linear()), data, verbose=0)
    assert bool(traced) == (batches > 1)
