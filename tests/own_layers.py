"""A custom layer around a function, and the check that its model is exact."""

import keras
import numpy as np
from keras import layers, ops

import keras_qat


class Own(layers.Layer):
    """A custom layer: `make` gives it weights and layers, `function` is its `call`."""

    def __init__(self, function, make=None, **kwargs):
        super().__init__(**kwargs)
        self.function, self.make = function, make

    def build(self, input_shape):
        if self.make is not None:
            self.make(self)

    def call(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def weight(*shape, trainable=True):
    """Gives a layer a weight, `layer.table`."""

    def make(layer):
        layer.table = layer.add_weight(
            shape=shape, initializer="random_normal", name="table", trainable=trainable
        )

    return make


def model_of(shape, function, make=None):
    """Makes a model of a custom layer before a dense layer."""
    x = keras.Input(shape, name="x")
    y = Own(function, make, name="own")(x)
    return keras.Model(x, layers.Dense(3, name="head")(layers.Flatten(name="flat")(y)))


def data_for(model, count=6):
    return np.random.default_rng(0).normal(size=(count, *model.input_shape[1:])).astype("float32")


def assert_exact(model, tmp_path, batch_sizes=(None,)):
    """The clone equals the model, and the trained, saved and loaded model equals its file."""
    data = data_for(model)
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-5)
    assert len(clone.trainable_variables) == len(model.trainable_variables)
    assert keras_qat.check(model).ok
    qat = keras_qat.quantize_model(model, calibration_data=data)
    before = [np.array(ops.convert_to_numpy(v)) for v in qat.trainable_variables]
    qat.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    qat.train_on_batch(data, np.ones((len(data), *model.output_shape[1:]), "float32"))
    for variable, old in zip(qat.trainable_variables, before, strict=True):
        assert (ops.convert_to_numpy(variable) != old).any(), variable.path
    qat.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for batch_size in batch_sizes:
        keras_qat.export_litert(loaded, tmp_path / "model.tflite", batch_size=batch_size)
        assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact
    return qat


def classes_of(model):
    return [type(layer).__name__ for layer in model.layers]
