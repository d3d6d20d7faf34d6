"""Training in loops of one's own, and with the options of Keras's loop. The oracle is `fit`."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.layers.models.observed_ranges import named_observers
from tests import seeds
from tests.quantizers.modes import on_tensorflow
from tests.quick import some_quick

X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")


def network(dtype="float32"):
    seeds.seed(0)
    dense = keras.layers.Dense(8, activation="relu", name="hidden", dtype=dtype)
    return keras.Sequential([keras.Input((6,)), dense, keras.layers.Dense(3, name="head")])


def quantized(**options):
    """Makes a compiled model. Each call makes the same."""
    model = keras_qat.quantize_model(network(), calibration_data=X)
    model.compile(**{"optimizer": keras.optimizers.SGD(0.05), "loss": "mse", **options})
    return model


def fitted(model, batch_size=8, **arguments):
    model.fit(X, Y, batch_size=batch_size, shuffle=False, verbose=0, **arguments)
    return model


def assert_alike(model, other):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def assert_trained(model):
    start = quantized()
    pairs = zip(model.trainable_weights, start.trainable_weights, strict=True)
    assert all((a.numpy() != b.numpy()).any() for a, b in pairs)


@pytest.fixture(scope="module")
def expected():
    """A model after `fit` on two batches of 8."""
    return fitted(quantized())


@on_tensorflow
@pytest.mark.parametrize("is_compiled", some_quick([False, True], 1))
def test_gradient_tape_trains_like_fit(is_compiled, expected):
    import tensorflow as tf

    model, optimizer = quantized(), keras.optimizers.SGD(0.05)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(y - model(x, training=True)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    optimizer.build(model.trainable_variables)
    step = tf.function(step) if is_compiled else step
    for start in (0, 8):
        step(tf.constant(X[start : start + 8]), tf.constant(Y[start : start + 8]))
    assert_alike(model, expected)
    assert_trained(model)


@pytest.mark.slow
def test_train_on_batch_trains_like_fit(expected):
    model = quantized()
    for start in (0, 8):
        model.train_on_batch(X[start : start + 8], Y[start : start + 8])
    assert_alike(model, expected)


def test_own_train_step_around_a_model_trains_like_fit(expected):
    class Trainer(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, inputs, training=None):
            return self.inner(inputs, training=training)

        def train_step(self, *data):
            return super().train_step(*data)

    model = quantized()
    trainer = Trainer(model)
    trainer.compile(keras.optimizers.SGD(0.05), "mse")
    fitted(trainer)
    assert_alike(model, expected)


def test_gradient_accumulation_trains_like_one_larger_batch():
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    model = fitted(quantized(optimizer=optimizer))
    larger = fitted(quantized(), batch_size=16)
    for a, b in zip(model.trainable_weights, larger.trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)
    assert_trained(model)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras has none on PyTorch")
def test_steps_per_execution_changes_nothing(expected):
    assert_alike(fitted(quantized(steps_per_execution=2)), expected)


@pytest.mark.slow
def test_loss_scaling_changes_nothing(expected):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), 2.0**10)
    assert_alike(fitted(quantized(optimizer=optimizer)), expected)


@pytest.mark.slow
def test_averaged_weights_are_exported(expected, tmp_path):
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5)
    model, path = fitted(quantized(optimizer=optimizer)), tmp_path / "model.tflite"
    first = quantized()
    first.train_on_batch(X[:8], Y[:8])
    weights = (each.trainable_weights for each in (model, first, expected))
    for mean, *steps in zip(*weights, strict=True):  # the average starts after the first step
        np.testing.assert_allclose(mean, sum(each.numpy() for each in steps) / 2, 1e-5, 1e-6)
    keras_qat.export_litert(model, path)
    assert keras_qat.verify(model, path, X, verbose=0).exact


@pytest.mark.slow
def test_mixed_policies_of_float_layers_are_trained_in_float32():
    model = keras_qat.quantize_model(network("mixed_bfloat16"), calibration_data=X)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    assert_trained(fitted(model))
    assert {each.compute_dtype for each in model.layers} == {"float32"}


def moving(**options):
    """Makes a model whose ranges move, from a calibration with few samples."""
    model = quantized(**options)
    keras_qat.calibrate(model, X[:2] / 4, range_rule="moving_average", verbose=0)
    return model


def ranges(model):
    return {name: observer.limits for name, observer in named_observers(model)}


def test_frozen_layers_hold_their_ranges():
    model = moving()
    before = ranges(model)
    model.get_layer("hidden").trainable = False
    model.compile(keras.optimizers.SGD(0.05), "mse")
    after = ranges(fitted(model))
    assert after["hidden"] == before["hidden"] and after["head"] != before["head"]
    model.get_layer("hidden").trainable = True
    model.compile(keras.optimizers.SGD(0.05), "mse")
    assert ranges(fitted(model))["hidden"] != before["hidden"]


def test_layers_that_were_frozen_in_float_hold_their_calibrated_ranges(tmp_path):
    source, path = network(), tmp_path / "model.keras"
    source.get_layer("hidden").trainable = False
    model = keras_qat.quantize_model(source)
    keras_qat.calibrate(model, X[:2] / 4, range_rule="moving_average", verbose=0)
    before = ranges(model)
    model.save(path)
    model = keras.saving.load_model(path)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    after = ranges(fitted(model))
    assert after["hidden"] == before["hidden"] and after["head"] != before["head"]


@pytest.mark.slow
def test_frozen_layers_without_a_range_observe_one():
    source = network()
    source.trainable = False
    model = keras_qat.quantize_model(keras.Sequential([source, keras.layers.Dense(2)]))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(X, Y[:, :2], batch_size=8, verbose=0)
    assert not model.lacking_ranges
