"""Weights, ranges and inputs that are not finite. The oracle for NaN outputs is the float model."""

import functools
import importlib.util

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidModelError, NonFiniteWarning
from keras_qat.layers.models.finiteness import all_finite
from tests.models import quantized, small_images, small_network
from tests.processes import run_python
from tests.quantizers.modes import on_tensorflow
from tests.quick import some_quick

DATA = small_images()
# A variable, its layer, and the text of the error.
BROKEN = {
    "conv/kernel": ("conv", "A weight"),
    "conv/bn/gamma": ("conv", "A weight"),
    "conv/bn/moving_mean": ("conv", "A weight"),
    "conv/bn/moving_variance": ("conv", "A weight"),
    "head/bias": ("head", "A weight"),
    "conv/range/maximum": ("conv", "A range"),
    "image_quantize/range/minimum": ("image_quantize", "A range"),
}


@pytest.fixture(scope="module")
def intact():
    return quantized(small_network(), DATA)


@pytest.fixture
def model(intact):
    """Returns one model for all tests, and restores its weights after each test."""
    weights = intact.get_weights()
    yield intact
    intact.set_weights(weights)


def spoil(model, path, value=np.nan):
    variable = next(each for each in model.weights if each.path.endswith(path))
    values = np.array(keras.ops.convert_to_numpy(variable))
    values.flat[-1] = value
    variable.assign(values)


@pytest.mark.parametrize("path", BROKEN)
def test_all_finite_looks_at_each_variable(model, path):
    assert bool(all_finite(model))
    spoil(model, path)
    assert not bool(all_finite(model))


@on_tensorflow
@pytest.mark.parametrize("options", [None, {}, {"jit_compile": True}])
def test_all_finite_takes_sums_that_overflow(model, options):
    import tensorflow as tf

    kernel = next(each for each in model.weights if each.path.endswith("conv/kernel"))
    kernel.assign(np.full(kernel.shape, np.finfo("float32").max))
    call = functools.partial(all_finite, model)
    ask = call if options is None else tf.function(call, **options)
    assert bool(ask())
    spoil(model, "conv/kernel", -np.inf)
    assert not bool(ask())


@pytest.mark.parametrize("path", ["conv/kernel", "conv/range/maximum"])
def test_inference_of_a_wrapped_model_gives_nan(model, path):
    x = keras.Input((4, 4, 3))
    wrapped = keras.Model(x, model(x))
    spoil(model, path)
    assert np.isnan(wrapped.predict(DATA, verbose=0)).all()


@pytest.mark.parametrize(
    ("path", "value"), [*zip(BROKEN, [np.nan, np.inf, -np.inf] * 3, strict=False)]
)
def test_check_calibrate_and_export_name_a_variable_that_is_not_finite(
    model, path, value, tmp_path
):
    spoil(model, path, value)
    layer, what = BROKEN[path]
    (finding,) = keras_qat.check(model, calibration_data=DATA).findings
    assert (finding.level, finding.code, finding.layer) == ("error", "invalid-model", layer)
    with pytest.raises(InvalidModelError, match=f"{what} .*not finite.*{path}: ") as caught:
        keras_qat.export_litert(model, tmp_path / "model.tflite")
    assert caught.value.layer == layer and not list(tmp_path.iterdir())
    if what == "A range":  # calibration replaces the range
        keras_qat.calibrate(model, DATA, verbose=0)
        assert bool(all_finite(model))
    else:
        with pytest.raises(InvalidModelError, match=f"{what} .*{path}: "):
            keras_qat.calibrate(model, DATA, verbose=0)


@pytest.mark.parametrize("ask", ["predict", "evaluate", "call"])
def test_inference_warns_of_the_variable_that_makes_nan(model, ask):
    spoil(model, "head/bias")
    model.compile(loss="sparse_categorical_crossentropy")
    asked = {
        "predict": lambda: model.predict(DATA, verbose=0),
        "evaluate": lambda: model.evaluate(DATA, np.zeros(len(DATA)), verbose=0),
        "call": lambda: model(DATA),
    }
    with pytest.warns(NonFiniteWarning, match="'small_network' are NaN.*'head'.*head/bias: 1 NaN"):
        result = asked[ask]()
    assert np.isnan(np.asarray(result)).all()


@pytest.mark.parametrize("target", ["litert", "litert-arm64", "reference", "tflite-micro"])
def test_nan_does_not_leave_the_tables_of_functions(target):
    x = keras.Input((4,), name="x")
    made = keras.Model(x, keras.layers.Softmax()(keras.layers.Activation("softplus")(x)))
    data = np.eye(4, dtype="float32")
    qat = keras_qat.quantize_model(made, calibration_data=data, target=target)
    data[0, 0] = np.nan
    result = qat.predict(data, verbose=0)
    assert np.isnan(result[0]).all() and np.isfinite(result[1:]).all()


def test_verify_names_a_weight_that_is_not_finite(model, tmp_path):
    keras_qat.export_litert(model, tmp_path / "model.tflite")
    spoil(model, "head/bias")
    with pytest.raises(InvalidModelError, match="head/bias: 1 NaN"):
        keras_qat.verify(model, tmp_path / "model.tflite", DATA, verbose=0)


@pytest.mark.parametrize(("variance", "gamma"), [(-1.0, 1.0), (1e-30, 3e38)], ids=str)
def test_folded_weights_that_are_not_finite_are_named(variance, gamma):
    model = small_network()
    norm = model.get_layer("bn")
    norm.epsilon = 0.0
    norm.moving_variance.assign([1.0, 1.0, 1.0, variance])
    norm.gamma.assign([1.0, 1.0, 1.0, gamma])
    with pytest.raises(InvalidModelError, match="Folded weights .*'conv'.*conv/kernel: 27 NaN"):
        keras_qat.quantize_model(model)
    findings = keras_qat.check(model).findings
    assert {(each.code, each.layer) for each in findings} == {("invalid-model", "conv")}


def test_predict_gives_nan_for_samples_with_nan(model):
    data = DATA.copy()
    data[3, 0, 0, 0] = np.nan
    outputs, expected = model.predict(data, verbose=0), small_network().predict(data, verbose=0)
    np.testing.assert_array_equal(np.isnan(outputs), np.isnan(expected))
    rest = np.arange(len(data)) != 3
    np.testing.assert_array_equal(outputs[rest], model.predict(DATA, verbose=0)[rest])


def test_predict_clips_infinite_inputs_to_the_range(model):
    data = DATA.copy()
    data[0, 0, 0, 0], data[1, 0, 0, 0] = np.inf, -np.inf
    large = np.clip(data, -9, 9)
    np.testing.assert_array_equal(model.predict(data, verbose=0), model.predict(large, verbose=0))


@on_tensorflow
@pytest.mark.parametrize("jit_compile", some_quick([False, True], 0))
def test_fit_on_nan_gives_a_nan_loss_and_keeps_the_ranges(jit_compile):
    model, data, labels = quantized(small_network(), DATA), DATA.copy(), np.arange(len(DATA)) % 5
    data[0, 0, 0, 0], data[1, 1, 1, 1] = np.nan, np.inf
    sgd = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    model.compile(sgd, "sparse_categorical_crossentropy", jit_compile=jit_compile)
    model.get_layer(
        "conv"
    ).batch_normalization.trainable = False  # the statistics of the batch normalization become NaN
    losses = [model.train_on_batch(each, labels) for each in (data, DATA)]
    assert np.isnan(losses[0])
    assert bool(all_finite(model))
    spoil(model, "head/kernel")
    model.reset_metrics()
    assert np.isnan(model.train_on_batch(DATA, labels))


SCRIPT = """
import json, warnings
import keras, keras_qat
import numpy as np
warnings.simplefilter("ignore")
keras.utils.set_random_seed(0)
data = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
layers = [keras.Input((4,)), keras.layers.Dense(400, "relu"), keras.layers.Dense(2)]
qat = keras_qat.quantize_model(keras.Sequential(layers), calibration_data=data)
bad = data.copy()
bad[1, 1] = np.nan
predicted = qat.predict(bad, verbose=0)
qat.compile(keras.optimizers.SGD(0.0), "mse")
qat.train_on_batch(bad, np.zeros((8, 2)))
ranges = [np.isfinite(float(v)) for v in qat.weights if "range" in v.path]
kernel = qat.layers[2].kernel
values = np.array(keras.ops.convert_to_numpy(kernel))
values[0, 0] = np.nan
kernel.assign(values)
print(json.dumps({
    "samples": np.isnan(predicted).any(axis=1).tolist(),
    "ranges": bool(np.all(ranges)),
    "weights": bool(np.isnan(qat.predict(data, verbose=0)).all()),
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_finiteness_on_other_backends(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    assert run_python(SCRIPT, backend=backend) == {
        "samples": [False, True] + [False] * 6,
        "ranges": True,
        "weights": True,
    }
