"""Conversions do not change the process, other threads or the user's model."""

import json
import random
import threading
import traceback

import h5py
import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from tests.models import images, labels, randomized
from tests.process_state import changed, process_state

POLICY = "mixed_bfloat16"


class Gated(layers.Layer):
    """A custom layer to trace, with weights, an inner layer and a computed weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(4, name="inner")
        self.seen = []

    def build(self, input_shape):
        self.gate = self.add_weight(shape=(4,), initializer="ones", name="gate")
        self.inner.build(input_shape)

    def call(self, inputs):
        self.seen.append(keras.config.dtype_policy().name)
        return ops.relu(self.inner(inputs) * ops.exp(self.gate * 0.1))


def network():
    """Makes a model of layers that draw random numbers, are traced, or are split."""
    image = keras.Input((8, 8, 3), name="image")
    x = layers.RandomFlip(name="flip")(image)
    x = layers.SeparableConv2D(4, 3, activation="relu", name="separable")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Conv2D(4, 3, activation="swish", name="conv")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    x = layers.Add(name="add")([x, x, x])
    x = ops.matmul(Gated(name="gated")(x), np.eye(4, dtype="float32"))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(5, activation="softmax", name="head")(x)
    return randomized(keras.Model(image, x, name="network"))


def dense_network():
    """Makes a small model with a custom layer."""
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(3, name="head")(Gated(name="gated")(x)))


def convert(model, folder):
    """Runs each function of the package that reads, makes or writes models."""
    data = images(shape=model.input_shape[1:])
    keras_qat.check(model)
    keras_qat.clone_model(model)
    qat = keras_qat.quantize_model(model, calibration_data=data)
    keras_qat.strip_quantization(qat)
    keras_qat.export_litert(qat, folder / "model.tflite")
    keras_qat.verify(qat, folder / "model.tflite", data)


def write_keras_2(path):
    """Writes a model in the format of Keras 2.3."""
    dense = {"name": "head", "units": 3, "activation": "linear", "batch_input_shape": [None, 4]}
    config = {"name": "old", "layers": [{"class_name": "Dense", "config": dense}]}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.3.1", "tensorflow"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([b"head"])
        head = group.create_group("head")
        head.attrs["weight_names"] = np.array([b"head/kernel:0", b"head/bias:0"])
        head["head/kernel:0"] = np.ones((4, 3), "float32")
        head["head/bias:0"] = np.zeros(3, "float32")


@pytest.fixture
def half_precision():
    keras.config.set_dtype_policy(POLICY)
    yield
    keras.config.set_dtype_policy("float32")


def made_at_random():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5)])
    return [model.get_weights()[0], model(np.ones((2, 4)), training=True)]


def test_conversion_leaves_the_process_unchanged(half_precision, tmp_path):
    convert(dense_network(), tmp_path)  # imports at first use change settings
    keras.utils.set_random_seed(7)
    expected = made_at_random()
    model = network()
    keras.utils.set_random_seed(7)
    before, numbers = process_state(), (random.getstate(), np.random.get_state())
    convert(model, tmp_path)
    assert changed(before, process_state()) == {}
    assert keras.config.dtype_policy().name == POLICY
    assert keras.config.is_traceback_filtering_enabled()
    assert random.getstate() == numbers[0]
    np.testing.assert_equal(np.random.get_state(), numbers[1])
    for value, other in zip(made_at_random(), expected, strict=True):
        np.testing.assert_array_equal(value, other)


def test_conversion_runs_functions_of_the_user_under_their_policy(half_precision):
    model, seen = dense_network(), []
    gated = model.get_layer("gated")
    gated.seen.clear()

    def data():
        seen.append(keras.config.dtype_policy().name)
        yield images(shape=(4,))

    keras_qat.quantize_model(model, calibration_data=data())
    keras_qat.check(model)
    assert {*seen, *gated.seen} == {POLICY}
    assert len(gated.seen) >= 2


def test_calibration_under_half_precision_observes_float32(half_precision):
    qat = keras_qat.quantize_model(
        keras.Sequential([keras.Input((1,)), layers.Dense(2, dtype="float32", name="head")])
    )
    keras_qat.calibrate(qat, np.array([[0.0], [1.001953125]], "float32"), verbose=0)
    assert float(qat.layers[1].observer.maximum) == 1.001953125  # bfloat16 would have 1.0


def test_conversion_keeps_configuration_and_seed_of_random_layers():
    image = keras.Input((4, 4, 3))
    x = layers.Conv2D(4, 3, name="conv")(image)
    model = keras.Model(image, layers.Dropout(0.5, name="dropout")(x))
    qat = keras_qat.quantize_model(model)
    for made in (qat, keras_qat.strip_quantization(qat)):
        dropout = made.get_layer("dropout")
        assert dropout.get_config()["seed"] is None
        seeds = [
            int(ops.convert_to_numpy(layer.seed_generator.state)[0])
            for layer in (dropout, model.get_layer("dropout"))
        ]
        assert seeds[0] == seeds[1]
    assert (
        qat.get_layer("conv").get_config()["kernel_initializer"]
        == (model.get_layer("conv").get_config()["kernel_initializer"])
    )


def test_tracing_leaves_the_layer_with_its_variables():
    """The traced `call` is that of another object than the user's layer."""

    class Watched(Gated):
        def call(self, inputs):
            if isinstance(inputs, keras.KerasTensor):
                owners.append((type(original[0].gate), self is original[0]))
            return super().call(inputs)

    owners, original = [], []
    x = keras.Input((4,))
    original.append(Watched(name="watched"))
    model = keras.Model(x, original[0](x))
    before = dict(vars(original[0]))
    owners.clear()
    keras_qat.quantize_model(model)
    assert owners and all(kind is keras.Variable for kind, _ in owners)
    assert not any(is_own for _, is_own in owners)
    assert {k: id(v) for k, v in vars(original[0]).items()} == {k: id(v) for k, v in before.items()}


def test_tracing_runs_methods_that_are_attributes_on_the_symbolic_layer():
    class Indirect(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.function = self.scaled

        def build(self, input_shape):
            self.factor = self.add_weight(shape=(4,), initializer="ones", name="factor")

        def scaled(self, inputs):
            return inputs * ops.exp(self.factor)

        def call(self, inputs):
            return self.function(inputs)

    model = keras.Sequential([keras.Input((4,)), Indirect(name="indirect")])
    clone = keras_qat.clone_model(model)
    assert clone.trainable_variables
    np.testing.assert_allclose(clone(np.ones((1, 4))), model(np.ones((1, 4))), rtol=1e-6)


class Neighbour(threading.Thread):
    """Builds, trains and saves a float model repeatedly, and watches the process."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.stopped = folder, threading.Event()
        self.rounds, self.problems = 0, []
        self.before = process_state()

    def run(self):
        try:
            keras.config.set_dtype_policy(POLICY)
            expected = self.round()
            while not self.stopped.is_set():
                np.testing.assert_array_equal(self.round(), expected)
                self.rounds += 1
        except Exception:
            self.problems.append(traceback.format_exc())

    def round(self):
        start = keras.initializers.GlorotUniform(seed=1)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                layers.Conv2D(4, 3, kernel_initializer=start, name="a"),
                layers.Flatten(name="b"),
                layers.Dense(5, kernel_initializer=start, name="c"),
            ]
        )
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        for _ in range(3):
            self.watch(model)
            model.train_on_batch(images(), labels())
        path = self.folder / "neighbour.keras"
        model.save(path)
        self.watch(model)
        loaded = keras.models.load_model(path)
        return loaded.predict_on_batch(images())

    def watch(self, model):
        difference = changed(self.before, process_state())
        difference.pop("dispatchers", None)  # of a trace; they leave other threads alone
        policies = {layer.dtype_policy.name for layer in model.layers[:1]}
        if difference or policies != {POLICY} or keras.config.dtype_policy().name != POLICY:
            self.problems.append((difference, policies))


def test_conversion_has_no_effect_on_another_thread(tmp_path):
    """The other thread works on its own models in half precision. This one converts models."""
    model = dense_network()
    (tmp_path / "own").mkdir()
    convert(model, tmp_path)
    old, new, weights = (tmp_path / name for name in ("old.h5", "new.keras", "new.weights.h5"))
    plain = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="head")])
    write_keras_2(old)
    plain.save(new)
    plain.save_weights(weights)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="head")])
    neighbour = Neighbour(tmp_path / "own")
    neighbour.start()
    try:
        while neighbour.rounds < 3 and not neighbour.problems:
            keras_qat.load_model(old)
            keras_qat.load_model(new)
            keras_qat.load_weights(other, weights, skip_mismatch=True)
            convert(model, tmp_path)
    finally:
        neighbour.stopped.set()
        neighbour.join()
    assert neighbour.problems == []
    assert changed(neighbour.before, process_state()) == {}
