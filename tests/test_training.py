"""Training. The oracles are the float model, hand-computed numbers and LiteRT's interpreter."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import keras_qat
from keras_qat.errors import MissingRangeError
from keras_qat.layers.models.observed_ranges import observed_layers
from tests.gradients import gradients_of
from tests.models import (
    images,
    labels,
    linear,
    network,
    quantized,
    quantized_small_network,
    small_images,
    small_network,
)
from tests.quantizers.modes import on_tensorflow
from tests.quick import some_quick

LOSS = "sparse_categorical_crossentropy"


def trainable(model, rate=0.05, **arguments):
    model.compile(keras.optimizers.SGD(rate), LOSS, metrics=["accuracy"], **arguments)
    return model


def values(model):
    return {variable.path: np.array(variable) for variable in model.variables}


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=[on_tensorflow, pytest.mark.slow])]
)
def test_fit_changes_weights_and_statistics_and_holds_ranges(jit_compile):
    model = trainable(quantized(small_network(), small_images()), jit_compile=jit_compile)
    before = values(model)
    history = model.fit(small_images(), labels(), batch_size=8, verbose=0)
    after = values(model)
    assert np.isfinite(history.history["loss"]).all()
    changed = {path for path in before if (before[path] != after[path]).any()}
    assert {path.rpartition("/")[2] for path in changed} == {
        "kernel",
        "bias",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
        "updates",
        "seen",
    }


def test_fit_moves_batch_norm_statistics_as_keras_does():
    float_model, model = small_network(), quantized(small_network(), small_images())
    for each in (float_model, model):
        trainable(each, rate=0.0).train_on_batch(small_images(), labels())
    theirs = float_model.get_layer("bn")
    ours = model.get_layer("conv").batch_normalization
    for name in ("moving_mean", "moving_variance"):
        a, b = np.array(getattr(ours, name)), np.array(getattr(theirs, name))
        assert a == pytest.approx(b, rel=0.02, abs=0.02)  # the kernel is rounded to 8 bits
        assert (a != np.array(getattr(small_network().get_layer("bn"), name))).all()


@pytest.mark.parametrize("seed", some_quick(range(3), 0))
def test_fit_starts_at_the_loss_of_the_float_model(seed):
    model, data = small_network(seed), small_images(64, seed)
    for _ in range(25):  # gives the statistics of the data, as in a trained model
        model(data, training=True)
    targets = labels(64)
    expected = float(trainable(model, rate=0.0).evaluate(data, targets, verbose=0)[0])
    in_training = float(model.train_on_batch(data, targets)[0])
    qat = trainable(quantized(model, data), rate=0.0)
    first = float(qat.train_on_batch(data, targets)[0])
    # Rounding to 8 bits moves the loss by a few ten-thousandths.
    assert in_training == pytest.approx(expected, rel=1e-4)
    assert first == pytest.approx(in_training, rel=0.003)


def one_step(model, rows):
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.train_on_batch(np.float32(rows), np.zeros((len(rows), 2)))


def ranges(model):
    found = {}
    for layer in observed_layers(model):
        found[layer.name] = float(layer.observer.minimum), float(layer.observer.maximum)
    return found


# Inputs are pixels, which the grid has exactly. Each output is the sum of a row.
CALIBRATION = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], "uint8")


def test_training_step_holds_calibrated_ranges():
    model = quantized(linear(), CALIBRATION)
    assert ranges(model) == {"x_quantize": (0, 255), "dense": (10, 26)}
    for row in ([1, 1, 1, 1], [12, 12, 12, 12]):
        one_step(model, [row])
        assert ranges(model) == {"x_quantize": (0, 255), "dense": (10, 26)}


def test_training_step_moves_calibrated_ranges_on_request():
    model = keras_qat.quantize_model(linear())
    keras_qat.calibrate(model, CALIBRATION, range_rule="moving_average", verbose=0)
    one_step(model, [[1, 1, 1, 1], [2, 3, 2, 3]])
    low, high = 4, 26 + 0.002 * (10 - 26)
    assert ranges(model)["dense"] == pytest.approx((low, high), rel=1e-6)
    one_step(model, [[12, 12, 12, 12]])
    low += 0.002 * (48 - low)
    assert ranges(model)["dense"] == pytest.approx((low, 48), rel=1e-6)


def test_training_step_replaces_a_range_that_does_not_fit():
    """Ranges calibrated with untrained statistics do not fit the training."""
    norm = keras.layers.BatchNormalization(name="norm")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), norm])
    data = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    norm.moving_variance.assign([1e6] * 3)  # the outputs are tiny at calibration
    model = quantized(model, data)

    def loss():
        return keras.ops.mean(model(data, training=True) ** 2)

    gradients = gradients_of(loss, model.trainable_weights)
    # The loss of normalized outputs.
    assert keras.ops.convert_to_numpy(loss()) == pytest.approx(1.0, rel=0.05)
    assert any(np.linalg.norm(gradient) > 0.1 for gradient in gradients)


def test_training_step_without_calibration_sets_all_ranges():
    model = keras_qat.quantize_model(linear())
    one_step(model, [[0, 0, 0, 0]])
    assert ranges(model) == {"x_quantize": (0, 0), "dense": (0, 0)}
    one_step(model, [[0, 200, 0, 0]])
    assert ranges(model) == {"x_quantize": (0, 200), "dense": pytest.approx((200, 200))}
    one_step(model, [[0, 10, 20, 255], [0, 0, 0, 0]])
    assert ranges(model) == {"x_quantize": (0, 255), "dense": (0, pytest.approx(285, rel=0.01))}


def test_inference_needs_ranges_which_training_sets():
    model, data = trainable(keras_qat.quantize_model(small_network())), small_images()
    for infer in (
        lambda: model(data),
        lambda: model(data, training=False),
        lambda: model.predict(data, verbose=0),
        lambda: model.evaluate(data, labels(), verbose=0),
    ):
        with pytest.raises(MissingRangeError, match="'image_quantize', 'conv', 'head'"):
            infer()
    model.fit(data, labels(), verbose=0)
    assert model(data).shape == (16, 5)


def interpreted(path, data):
    """Returns the outputs of LiteRT's default kernels as integers."""
    runner = Interpreter(str(path)).get_signature_runner()
    quantization = runner.get_input_details()["image"]["quantization_parameters"]
    steps = data / quantization["scales"][0]
    integers = np.floor(steps + np.float32(0.5)) + quantization["zero_points"][0]
    return runner(image=np.clip(integers, -128, 127).astype("int8"))["head"]


def test_evaluate_in_keras_has_the_accuracy_of_the_file(tmp_path):
    data, targets = small_images(64), labels(64)
    model = trainable(quantized(small_network(), data), rate=0.1)
    history = model.fit(data, targets, validation_data=(data, targets), epochs=2, verbose=0)
    keras_qat.export_litert(model, tmp_path / "model.tflite")
    output = interpreted(tmp_path / "model.tflite", data)
    accuracy = np.mean(output.argmax(axis=-1) == targets)
    found = model.evaluate(data, targets, verbose=0)[1]
    assert np.float32(accuracy) == np.float32(found)
    assert np.float32(accuracy) == np.float32(history.history["val_accuracy"][-1])
    assert (output + 128.0 == model.predict(data, verbose=0) * 256).all()


def check_all_ways_of_inference(model, data):
    import tensorflow as tf

    eager = np.asarray(model(data, training=False))
    assert (model.predict(data, verbose=0) == eager).all()
    for jit_compile in (False, True):
        run = tf.function(lambda x: model(x, training=False), jit_compile=jit_compile)
        assert (np.asarray(run(tf.constant(data))) == eager).all()


@on_tensorflow
def test_inference_gives_equal_bits_in_all_ways():
    check_all_ways_of_inference(quantized_small_network(), small_images())


@on_tensorflow
@pytest.mark.slow
def test_inference_of_a_larger_network_gives_equal_bits_in_all_ways():
    model = quantized(network(), images())
    check_all_ways_of_inference(model, images())
    trainable(model, jit_compile=True)
    model.fit(images(), labels(), batch_size=8, verbose=0)
    check_all_ways_of_inference(model, images())
