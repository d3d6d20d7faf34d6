"""Models with a deliberate fault: the finding, its code, and the layer that it names."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat import errors


def chain(*own, shape=(8, 8, 3), name="model"):
    return keras.Sequential([keras.Input(shape, name="x"), *own], name=name)


def function(call, *shapes, dtype="float32"):
    inputs = [keras.Input(shape, name=f"x{i}", dtype=dtype) for i, shape in enumerate(shapes)]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], call(*inputs), name="model")


def with_value(model, path, value, index=0):
    """Replaces one number of a weight."""
    variable = next(v for v in model.variables if v.path.endswith(path))
    broken = np.array(variable)
    broken.flat[index] = value
    variable.assign(broken)
    return model


def quantized_by_keras(model):
    for layer in model.layers:
        getattr(layer, "layer", layer).quantize("int8")
    return model


class Sorting(layers.Layer):
    def call(self, x):
        return ops.sort(x)


class Counting(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(name="count", shape=(), trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        return ops.cumprod(x, axis=1)


def unused_input():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    return keras.Model([a, b], layers.Dense(2)(a))


NAN = float("nan")

# Models that have no integer form or cannot be read, and the code and layer of the finding.
REFUSED = {
    "an operation without an integer form": (
        lambda: chain(Sorting(name="own")), "unsupported-layer", "own"),
    "dropout of a state": (
        lambda: chain(layers.LSTM(4, recurrent_dropout=0.1, name="recurrent"), shape=(5, 3)),
        "unsupported-layer", "recurrent"),
    "a cumulative product": (lambda: chain(Counting(name="own")), "unsupported-layer", "own"),
    "volumes": (
        lambda: chain(layers.Conv3DTranspose(2, 3, name="volume"), shape=(2, 2, 2, 3)),
        "unsupported-layer", "volume"),
    "a recurrent convolution": (
        lambda: chain(layers.ConvLSTM1D(2, 3, dropout=0.1, name="recurrent"), shape=(4, 8, 3)),
        "unsupported-layer", "recurrent"),
    "a random crop": (
        lambda: chain(layers.RandomCrop(4, 4, name="crop")), "unsupported-layer", "crop"),
    "sparsemax": (
        lambda: chain(layers.Activation("sparsemax", name="sparse"), shape=(5,)),
        "unsupported-layer", "sparse"),
    "bicubic resizing": (
        lambda: chain(layers.Resizing(4, 4, interpolation="bicubic", name="resize")),
        "unsupported-layer", "resize"),
    "a sum of tensors of different ranks": (
        lambda: function(lambda a, b: layers.Add(name="sum")([a, b]), (3, 4), (4,)),
        "unsupported-layer", "sum"),
    "ids that are computed": (
        lambda: function(lambda x: layers.Embedding(4, 2, name="table")(
            layers.ReLU(name="relu")(x)), (3,)),
        "unsupported-layer", "table"),
    "ids that are also values": (
        lambda: function(lambda x: [layers.Embedding(4, 2, name="table")(x),
                                    layers.Dense(2, name="dense")(x)], (3,)),
        "unsupported-layer", "table"),
    "an input that nothing uses": (unused_input, "invalid-model", "b"),
    "an input of unknown size": (
        lambda: chain(layers.Conv2D(4, 3, name="conv"), shape=(None, 8, 3)),
        "invalid-model", "x"),
    "a kernel that is not a number": (
        lambda: with_value(chain(layers.Conv2D(4, 3, name="conv")), "conv/kernel", NAN),
        "invalid-model", "conv/kernel"),
    "an infinite bias": (
        lambda: with_value(chain(layers.Dense(4, name="dense"), shape=(3,)), "dense/bias",
                           float("inf")),
        "invalid-model", "dense/bias"),
    "integers that Keras made of a kernel": (
        lambda: quantized_by_keras(chain(layers.Dense(4, name="dense"), shape=(3,))),
        "unsupported-layer", "dense"),
    "integers that Keras made inside a layer": (
        lambda: quantized_by_keras(chain(layers.TimeDistributed(layers.Dense(4, name="dense")),
                                         shape=(2, 3))),
        "unsupported-layer", "dense"),
    "a variance that is not a number": (
        lambda: with_value(chain(layers.Conv2D(4, 3), layers.BatchNormalization(name="norm")),
                           "norm/moving_variance", NAN),
        "invalid-model", "norm/moving_variance"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_check_and_quantize_model_refuse_a_broken_model_alike(name):
    make, code, layer = REFUSED[name]
    model = make()
    found = [finding for finding in keras_qat.check(model).findings if finding.level == "error"]
    named = [(each.code, str(each.layer).removeprefix("model/")) for each in found]
    assert named == [(code, layer)]
    with pytest.raises(errors.KerasQatError) as raised:
        keras_qat.quantize_model(model)
    assert str(raised.value) == f"{found[0].message} To fix it: {found[0].fix}"
    assert raised.value.layer == found[0].layer == found[0].tensor


IMAGES = np.random.default_rng(0).random((8, 8, 8, 3), "float32")


def calibrated(model=None):
    model = chain(layers.Conv2D(4, 3, name="conv"), layers.ReLU(), layers.Flatten(),
                  layers.Dense(2, name="head")) if model is None else model  # fmt: skip
    return keras_qat.quantize_model(model, calibration_data=IMAGES)


def forgotten(model, *names):
    """Removes the min/max data of some tensors."""
    for name in names:
        model.get_layer(name).observer.reset()
    return model


def unfused_norm():
    norm = keras_qat.layers.UnfusedBatchNormalization(name="norm")
    model = calibrated(chain(norm))
    model.get_layer("norm").product_observer.reset()
    return model


def beyond():
    """Sets a bias of a billion after the range was observed."""
    model = calibrated(chain(layers.Flatten(), layers.Dense(2, name="dense")))
    model.get_layer("dense").bias.assign([1e9, 0.0])
    return model


def export(model, folder, **arguments):
    keras_qat.export_litert(model, folder / "model.tflite", **arguments)


# Faults of quantized models: the action, the error, and the layer that it names.
RAISED = {
    "not calibrated": (
        lambda f: export(keras_qat.quantize_model(chain(layers.ReLU())), f),
        errors.MissingRangeError, "x_quantize"),
    "a branch that no data reached": (
        lambda f: export(forgotten(calibrated(), "conv"), f), errors.MissingRangeError, "conv"),
    "a tensor between two operators that no data reached": (
        lambda f: export(unfused_norm(), f), errors.MissingRangeError, "norm"),
    "inference without ranges": (
        lambda f: forgotten(calibrated(), "head").predict(IMAGES, verbose=0),
        errors.MissingRangeError, "head"),
    "a float model to export": (
        lambda f: export(chain(layers.ReLU()), f), errors.NotQuantizedError, None),
    "a quantized layer on its own": (
        lambda f: keras_qat.layers.QDense(2, scheme="int8", name="alone")(np.ones((1, 4))),
        errors.NotQuantizedError, "alone"),
    "quantized twice": (
        lambda f: keras_qat.quantize_model(calibrated()), errors.InvalidModelError, "model"),
    "not built": (
        lambda f: keras_qat.quantize_model(keras.Sequential([layers.Dense(2)], name="bare")),
        errors.InvalidModelError, "bare"),
    "no model": (lambda f: keras_qat.quantize_model("model"), errors.InvalidModelError, None),
    "images of another size": (
        lambda f: keras_qat.calibrate(calibrated(), IMAGES[:, :4], verbose=0),
        errors.InvalidDataError, "x"),
    "images with a hole": (
        lambda f: keras_qat.calibrate(calibrated(), IMAGES * NAN, verbose=0),
        errors.InvalidDataError, "x"),
    "values that float32 cannot hold the width of": (
        lambda f: keras_qat.calibrate(
            calibrated(), np.where(IMAGES > 0.5, 3e38, -3e38).astype("float32"), verbose=0),
        errors.InvalidDataError, "x_quantize"),
    "an inverted default range": (
        lambda f: export(forgotten(calibrated(), "conv"), f, default_ranges_stats=(6, -6)),
        errors.InvalidDefaultRangeError, None),
    "statistics of an input that is not there": (
        lambda f: export(calibrated(), f, quantized_input_stats={"image": (0, 255)}),
        errors.InvalidInputStatsError, "image"),
    "integers without a zero": (
        lambda f: export(calibrated(), f, quantized_input_stats={"x": (300, 255)}),
        errors.InvalidInputStatsError, "x"),
    "an end of an unknown type": (
        lambda f: export(calibrated(), f, inference_input_type="float16"),
        errors.ExportError, None),
    "a bias far beyond the range of the output": (
        lambda f: export(beyond(), f), errors.UnsupportedLayerError, "dense"),
    "a normalization for a target without its operators": (
        lambda f: export(calibrated(chain(layers.LayerNormalization(name="norm"))), f,
                         target="tflite-micro"),
        errors.TargetError, "norm_normalized"),
    "an unknown target": (
        lambda f: export(calibrated(), f, target="toaster"), errors.InvalidTargetError, None),
    "a name in overrides that no layer has": (
        lambda f: keras_qat.quantize_model(chain(layers.Dense(2)), overrides={"dens": None}),
        errors.InvalidOverrideError, None),
}  # fmt: skip


def test_check_finds_a_quantized_model_without_ranges(tmp_path):
    model = forgotten(calibrated(), "conv", "head")
    (found,) = [each for each in keras_qat.check(model).findings if each.level == "error"]
    assert (found.code, found.layer) == ("missing-range", "conv") and "'head'" in found.message
    assert not keras_qat.check(model).ok and keras_qat.check(calibrated()).ok
    with pytest.raises(errors.MissingRangeError):
        export(model, tmp_path)


def weights(model, **values):
    """Sets weights by the last part of their paths, with `_` for `/`."""
    for variable in model.variables:
        name = "_".join(variable.path.split("/")[-2:])
        if name in values:
            variable.assign(np.broadcast_to(values[name], variable.shape))
    return model


def normed(**values):
    norm = layers.BatchNormalization(name="norm")
    model = chain(layers.Conv2D(8, 3, name="conv"), norm, layers.ReLU(name="relu"))
    return weights(model, **values)


WIDE = np.array([500.0, *[1.0] * 7], "float32")
ONE_DEAD = np.array([0.0, *[1.0] * 7], "float32")
# Models that lose accuracy: the model, the arguments, the code and the layer.
COSTLY = {
    "an activation that no kernel takes up": (
        lambda: chain(layers.Conv2D(4, 3, name="conv"), layers.LeakyReLU(name="leaky")),
        {}, "standalone-activation", "leaky"),
    "a batch norm after an activation": (
        lambda: chain(layers.ReLU(), layers.BatchNormalization(name="norm"), layers.ReLU()),
        {}, "unfolded-batch-norm", "norm"),
    "a channel without gamma": (
        lambda: normed(norm_gamma=ONE_DEAD), {}, "dead-channel", "conv"),
    "a channel that its relu never lets through": (
        lambda: normed(norm_beta=-9.0 * (1 - ONE_DEAD)), {}, "dead-channel", "conv"),
    "one channel that takes the whole range of the tensor": (
        lambda: normed(norm_gamma=WIDE), {}, "wide-activation-range", "conv"),
    "one channel that takes the whole range of the weights": (
        lambda: normed(conv_kernel=np.array([99.0, *[0.1] * 7])), {"scheme": "uint8"},
        "wasted-weight-range", "conv"),
    "a bias that does not fit beside the weights": (
        lambda: weights(chain(layers.Dense(2, name="dense"), shape=(300,)),
                        dense_kernel=5e-6, dense_bias=0.3),
        {"calibration_data": np.ones((8, 300), "float32")}, "bias-saturates", "dense"),
    "a bias of a million": (
        lambda: weights(chain(layers.Dense(2, name="dense"), shape=(300,)), dense_bias=1e6),
        {"calibration_data": np.ones((8, 300), "float32")}, "bias-saturates", "dense"),
    "an operator that the runtimes round differently": (
        lambda: chain(layers.GlobalAveragePooling2D(name="mean")),
        {"target": "reference"}, "runtimes-differ", "mean"),
    "an operator that the target does not have": (
        lambda: chain(layers.Conv2D(4, 3), layers.Activation("softplus", name="soft")),
        {"target": "edgetpu"}, "target-operator", "soft"),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_check_finds_what_costs_accuracy(name):
    make, arguments, code, layer = COSTLY[name]
    report = keras_qat.check(make(), **arguments)
    found = [finding for finding in report.findings if finding.code == code]
    assert {finding.layer for finding in found} == {layer}
    assert found[0].tensor and found[0].message and found[0].fix
    assert code in str(report)


@pytest.mark.parametrize("name", RAISED)
def test_broken_quantized_model_raises_and_writes_nothing(name, tmp_path):
    act, kind, layer = RAISED[name]
    with pytest.raises(kind) as raised:
        act(tmp_path)
    assert type(raised.value) is kind and raised.value.layer == layer
    assert raised.value.fix or raised.value.expected
    assert not list(tmp_path.iterdir())
