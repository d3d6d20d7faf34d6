"""Wrong models and data raise a typed error. Unusual models and data work."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat import errors
from tests.models import images, network, quantized, small_images, small_network

REWRITES = (keras_qat.clone_model, keras_qat.quantize_model)


def sequence(*sequence_layers, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *sequence_layers], name="model")


class OwnLayer(layers.Layer):
    def call(self, x):
        return keras.ops.sort(x)


class OwnModel(keras.Model):
    def call(self, x):
        return x


def unused_input():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    return keras.Model([a, b], layers.Dense(2)(a))


def different_ranks():
    a, b = keras.Input((3, 4), name="a"), keras.Input((4,), name="b")
    return keras.Model([a, b], layers.Add(name="sum")([a, b]))


MODELS = {
    # The model, the error, the layer that it names, and a part of its text.
    "no model": (lambda: None, errors.InvalidModelError, None, "Not a Keras model"),
    "not built": (
        lambda: keras.Sequential([layers.Dense(2)], name="bare"),
        errors.InvalidModelError,
        "bare",
        "not built",
    ),
    "subclassed, not built": (
        lambda: OwnModel(name="own"),
        errors.InvalidModelError,
        "own",
        "not built",
    ),
    "unused input": (unused_input, errors.InvalidModelError, "b", "No output"),
    "dynamic size": (
        lambda: sequence(layers.Conv2D(2, 3), shape=(None, 8, 3)),
        errors.InvalidModelError,
        None,
        "size that is not known",
    ),
    "layer with no rule": (
        lambda: sequence(OwnLayer(name="own")),
        errors.UnsupportedLayerError,
        "own",
        "Received: Sort",
    ),
    "volumes": (
        lambda: sequence(layers.Conv3DTranspose(2, 3, name="layer"), shape=(2, 2, 2, 3)),
        errors.UnsupportedLayerError,
        "layer",
        "in float only",
    ),
    "different ranks": (different_ranks, errors.UnsupportedLayerError, "sum", "different ranks"),
}


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("name", MODELS)
def test_models_that_cannot_be_rewritten_are_typed_errors(name, rewrite):
    make, error, layer, text = MODELS[name]
    model = make()
    with pytest.raises(error) as caught:
        rewrite(model)
    message = str(caught.value)
    assert text in message and "To fix it: " in message
    assert layer in (None, caught.value.layer)
    assert "Received: " in message or "not built" in message or "No output" in message


@pytest.mark.parametrize("rewrite", REWRITES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("path", ["conv/kernel", "bn/moving_variance", "head/bias"])
def test_weights_that_are_not_finite_are_a_typed_error(path, value, rewrite):
    model = network()
    variable = next(v for v in model.variables if v.path.endswith(path))
    broken = np.array(variable)
    broken.flat[0] = value
    variable.assign(broken)
    with pytest.raises(errors.InvalidModelError, match="not finite.*1 NaN or.*To fix it") as caught:
        rewrite(model)
    assert str(caught.value.layer).endswith(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (images()[:, :4], "wrong shape.* Expected: .* Received: "),
        (np.full((2, 8, 8, 3), np.nan), "not finite.* Received: .* To fix it: "),
        ([], "no batches.* To fix it: "),
        (np.array("text"), "Received: "),
    ],
)
def test_calibration_data_that_does_not_fit_is_a_typed_error(data, message):
    with pytest.raises(errors.InvalidDataError, match=message):
        keras_qat.quantize_model(network(), calibration_data=data)


def test_unknown_scheme_is_a_typed_error():
    with pytest.raises(errors.InvalidSchemeError, match="Received: 'int3'.* To fix it: "):
        keras_qat.quantize_model(network(), "int3")


def test_export_without_calibration_is_a_typed_error(tmp_path):
    model = keras_qat.quantize_model(small_network())
    message = "3 tensor.*'image_quantize', 'conv', 'head'.* To fix it: "
    with pytest.raises(errors.MissingRangeError, match=message) as caught:
        keras_qat.export_litert(model, tmp_path / "model.tflite")
    assert caught.value.layer == "image_quantize"


def test_quantized_layer_alone_is_a_typed_error():
    layer = keras_qat.layers.QDense(2, scheme="int8", name="alone")
    message = "outside a quantized model.* Layer: 'alone'.* To fix it: "
    with pytest.raises(errors.NotQuantizedError, match=message):
        layer(np.ones((1, 4), "float32"))


def test_softmax_that_would_share_its_range_is_exact(tmp_path):
    x = keras.Input((4,), name="x")
    drop = layers.Dropout(0.5, name="drop")
    softmax = layers.Softmax(name="softmax")(layers.Dense(3)(x))
    model = keras.Model(x, [drop(softmax), drop(layers.Dense(3)(x))])
    assert_exact(model, np.eye(4, dtype="float32"), tmp_path)


def assert_exact(model, data, folder):
    qat = quantized(model, data)
    keras_qat.export_litert(qat, folder / "model.tflite")
    report = keras_qat.verify(qat, folder / "model.tflite", data, kernels="default", verbose=0)
    assert report.exact, report
    assert np.isfinite(np.asarray(qat(data))).all()


def zero_channels(model):
    """Sets one channel of zeros, one with a gamma of zero, and one with both."""
    conv, norm = model.get_layer("conv"), model.get_layer("bn")
    kernel, gamma, beta = (np.array(v) for v in (conv.kernel, norm.gamma, norm.beta))
    kernel[..., [0, 2]] = gamma[[1, 2]] = beta[2] = 0
    conv.kernel.assign(kernel)
    norm.gamma.assign(gamma)
    norm.beta.assign(beta)


def no_weights(model):
    for variable in model.trainable_variables:
        variable.assign(np.zeros(variable.shape))


def dead(model):
    """Makes every activation the constant 0."""
    model.get_layer("bn").beta.assign([-99.0] * 4)


def constant(model):
    """Makes every activation a constant other than 0."""
    model.get_layer("conv").kernel.assign(np.zeros((3, 3, 3, 4)))
    model.get_layer("bn").beta.assign([0.5] * 4)
    model.get_layer("bn").moving_mean.assign([0.0] * 4)


@pytest.mark.parametrize("change", [zero_channels, no_weights, dead, constant])
def test_models_of_zeros_and_constants_are_exact(change, tmp_path):
    model = small_network()
    change(model)
    assert_exact(model, small_images(), tmp_path)


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_calibration_on_constant_data_is_exact(value, tmp_path):
    assert_exact(small_network(), np.full((4, 4, 4, 3), value, "float32"), tmp_path)


def test_channels_of_zeros_train():
    model = small_network()
    zero_channels(model)
    qat = quantized(model, small_images())
    qat.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    qat.train_on_batch(small_images(), np.arange(16) % 5)
    assert all(np.isfinite(np.array(variable)).all() for variable in qat.variables)
