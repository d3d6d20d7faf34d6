"""QuantizedModel: it gives layers the quantization parameters of their inputs and outputs."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidGraphError, MissingRangeError
from keras_qat.layers import QDense, QFlatten, QSoftmax, QuantizedModel, QuantizeInput
from tests.layers.cases import Case
from tests.layers.litert_files import exported, operators_of, run_litert

layers = keras.layers


def shared_layer():
    """Makes one dense layer on two tensors: one kernel, one scale for both inputs."""
    a, b = keras.Input((2, 3)), keras.Input((6,))
    dense = layers.Dense(4, activation="relu")
    x, y = dense(layers.Flatten()(a)), dense(b)
    return keras.Model([a, b], [x, layers.Add()([x, y])])


CASES = [Case("shared_layer", (QDense,), shared_layer, steps=2)]


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(16, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    hidden = layers.Dense(4, activation="relu", name="hidden")
    return keras.Sequential([keras.Input((3,)), hidden, layers.Dense(2, name="head")])


@pytest.mark.parametrize(
    "use",
    [
        lambda model, x, path: model.predict(x, verbose=0),
        lambda model, x, path: model.evaluate(x, x[:, :2], verbose=0),
        lambda model, x, path: model(x),
        lambda model, x, path: keras_qat.export_litert(model, path),
        lambda model, x, path: keras_qat.verify(model, path, x, verbose=0),
    ],
    ids=["predict", "evaluate", "call", "export_litert", "verify"],
)
def test_quantized_model_names_tensors_without_a_range(model, x, tmp_path, use):
    quantized = keras_qat.quantize_model(model)
    quantized.compile(loss="mse")
    path = tmp_path / "model.tflite"
    with pytest.raises(MissingRangeError, match="3 tensor.*'hidden', 'head'.*calibrate"):
        use(quantized, x, path)
    assert not path.exists()


def test_quantized_model_has_all_ranges_after_a_training_step(model, x):
    quantized = keras_qat.quantize_model(model)
    quantized(x, training=True)
    quantized.check_ranges()
    assert np.all(np.isfinite(quantized(x)))


def test_quantized_model_cloned_by_keras_has_its_own_parameters(model, x):
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    clone = keras.models.clone_model(quantized)
    assert type(clone) is QuantizedModel
    clone.set_weights(quantized.get_weights())
    np.testing.assert_array_equal(clone(x), quantized(x))
    clone.get_layer("head").observer.widen(-100.0, 100.0)
    assert np.any(clone(x).numpy() != quantized(x).numpy())


def test_quantized_model_shares_ranges_through_layers_that_move_values():
    inputs = keras.Input((4, 4, 2), name="input")
    x = layers.MaxPooling2D(name="pool")(layers.ZeroPadding2D(name="pad")(inputs))
    model = keras.Model(inputs, layers.Flatten(name="flat")(x))
    data = np.random.default_rng(0).normal(size=(4, 4, 4, 2)).astype("float32")
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    tensors, _ = run_litert(exported(quantized), [data])
    grids = {tensors[name][1]["quantization"] for name in ("input", "pad", "pool", "flat")}
    assert len(grids) == 1


def test_quantized_model_has_one_kernel_and_one_grid_per_shared_layer():
    data = [np.ones((4, 2, 3), "float32"), np.full((4, 6), -9.0, "float32")]
    quantized = keras_qat.quantize_model(shared_layer(), calibration_data=tuple(data))
    content = exported(quantized)
    assert operators_of(content).count("FULLY_CONNECTED") == 2
    inputs = [d for name, (_, d) in run_litert(content, data)[0].items() if "input" in name]
    assert len({details["quantization"] for details in inputs}) == 1


def test_quantized_model_refuses_a_layer_on_a_softmax_and_another_tensor():
    x = keras.Input((4,))
    y = QuantizeInput(scheme="int8")(x)
    flatten = QFlatten(scheme="int8")
    outputs = [flatten(QSoftmax(scheme="int8")(y)), flatten(y)]
    with pytest.raises(InvalidGraphError, match="prescribe.*Requantize"):
        QuantizedModel(x, outputs)


def test_quantized_model_refuses_a_layer_that_is_not_quantized():
    x = keras.Input((3,))
    with pytest.raises(InvalidGraphError, match="'plain'.*quantize_model"):
        QuantizedModel(x, layers.Dense(2, name="plain")(x))
