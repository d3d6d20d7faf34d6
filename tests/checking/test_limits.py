"""check against calibration and export at each limit: check has an error if they raise one."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat import errors


def refusal_of(model, data, path, **options):
    """Returns the error of calibration or export, or None if a file was written."""
    try:
        qat = keras_qat.quantize_model(model, **options)
        keras_qat.calibrate(qat, data, verbose=0)
        keras_qat.export_litert(qat, path)
    except errors.KerasQatError as error:
        return error
    return None


def assert_predicted(model, data, path, **options):
    """Checks that `check` of the float model has the errors of calibration and export."""
    refusal = refusal_of(model, data, path, **options)
    found = keras_qat.check(model, calibration_data=data, **options).errors
    assert bool(found) == (refusal is not None)
    if refusal is not None:
        assert f"{found[0].message} To fix it: {found[0].fix}" == str(refusal)
    return refusal


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def with_kernels(units, *kernels):
    x = keras.Input((units,), name="x")
    y, dense = x, []
    for kernel in kernels:
        dense.append(layers.Dense(len(kernel[0]), use_bias=False, name=f"dense_{len(dense)}"))
        y = dense[-1](y)
    model = keras.Model(x, y)
    for layer, kernel in zip(dense, kernels, strict=True):
        layer.kernel.assign(np.asarray(kernel, "float32"))
    return model


@pytest.mark.parametrize(("exponent", "is_refused"), [(2, False), (4, False), (5, True), (6, True)])
def test_check_predicts_sums_beyond_32_bits(tmp_path, exponent, is_refused):
    # Two large weights cancel each other. The output is smaller than the sums by 10^exponent.
    data = np.repeat(normal(64, 1), 2, axis=1)
    model = with_kernels(2, [[1 + 10.0**-exponent], [-1]])
    refusal = assert_predicted(model, data, tmp_path / "model.tflite")
    assert isinstance(refusal, errors.UnsupportedLayerError) == is_refused


@pytest.mark.parametrize("function", ["sigmoid", "tanh", "softmax"])
@pytest.mark.parametrize(("largest", "is_refused"), [(163_000, False), (165_000, True)])
def test_check_predicts_overflows_of_16_bits(function, largest, is_refused, tmp_path):
    x = keras.Input((2,), name="x")
    model = keras.Model(x, layers.Activation(function, name="gate")(x))
    data = np.array([[1, largest]], "float32")
    refusal = assert_predicted(model, data, tmp_path / "model.tflite", scheme="int16x8")
    assert isinstance(refusal, errors.KernelLimitError) == is_refused
    if refusal is not None:
        assert "'gate'" in str(refusal) and 'overrides={"gate": "int8"}' in str(refusal)


@pytest.mark.parametrize(("exponent", "is_refused"), [(25, False), (26, True), (40, True)])
@pytest.mark.parametrize("moves", [(), (layers.Reshape((4,)),)])
def test_check_predicts_the_least_scale_of_softmax(tmp_path, exponent, is_refused, moves):
    model = keras.Sequential([keras.Input((4,), name="x"), *moves, layers.Softmax(name="softmax")])
    options: dict[str, Any] = {"quantized_input_stats": {"x": (0, 2.0**exponent)}}
    data = (np.arange(256.0).reshape(64, 4) / 2.0**exponent).astype("float32")
    refusal = assert_predicted(model, data, tmp_path / "model.tflite", **options)
    assert isinstance(refusal, errors.KernelLimitError) == is_refused
    assert bool(keras_qat.check(model, **options).errors) == is_refused  # this check needs no data
    qat = keras_qat.quantize_model(model, **options)
    assert bool(keras_qat.check(qat).errors) == is_refused


@pytest.mark.parametrize(("size", "is_refused"), [(1.0, False), (1e10, False), (1e20, True)])
def test_check_predicts_values_that_overflow_float32(tmp_path, size, is_refused):
    model = with_kernels(4, np.full((4, 4), size), np.full((4, 2), size))
    refusal = assert_predicted(model, np.abs(normal(64, 4)), tmp_path / "model.tflite")
    assert isinstance(refusal, errors.InvalidDataError) == is_refused


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_check_of_a_quantized_model_predicts_errors_of_export(tmp_path, size):
    qat = keras_qat.quantize_model(with_kernels(4, np.ones((4, 2))), calibration_data=normal(64, 4))
    qat.get_layer("dense_0").kernel.assign(np.full((4, 2), size))
    found = keras_qat.check(qat).errors
    assert bool(found) == (size > 1)
    if found:
        with pytest.raises(errors.UnsupportedLayerError) as caught:
            keras_qat.export_litert(qat, tmp_path / "model.tflite")
        assert str(caught.value).startswith(found[0].message)
