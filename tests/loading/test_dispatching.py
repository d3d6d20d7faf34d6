"""TensorFlow functions in the `call` of a layer. The oracles are Keras and the interpreter."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph.symbols import TracedTensor
from keras_qat.loading.tensorflow.dispatching import tensorflow_functions
from tests.quick import some_quick

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has these functions"
)
tf = pytest.importorskip("tensorflow")


class Own(layers.Layer):
    """A custom layer: `function` is its `call`."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def build(self, input_shape):
        self.table = self.add_weight(shape=(6, 8), name="table", initializer="random_normal")

    def call(self, x):
        return self.function(self, x)


def attention(layer, x):
    """Attention with a bias, in TensorFlow functions alone."""
    assert x.shape.rank == 3 and x.shape.as_list()[1:] == [6, 8]
    q, k, v = tf.unstack(tf.stack([x + layer.table, 2.0 * x, tf.nn.relu(x)], axis=1), 3, axis=1)
    x.set_shape((None, 6, 8))
    scores = tf.matmul(tf.math.l2_normalize(q, axis=-1), k, transpose_b=True)
    scores = tf.reduce_max(scores, axis=-1, keepdims=True) - scores
    return tf.concat([tf.matmul(tf.nn.softmax(scores), v), tf.gather(x, [3, 1], axis=1)], axis=1)


def gathered(layer, x):
    """Positions that differ from row to row, as for relative positions, and a last axis."""
    positions = tf.constant(np.arange(12).reshape(6, 2) % 8)
    rows = tf.broadcast_to(positions[None], (tf.shape(x)[0], 6, 2))
    y = tf.gather(x + layer.table, rows, batch_dims=2)
    return tf.gather(y, np.array([1, 0]), batch_dims=-1)


def windows(layer, x):
    y = tf.reshape(x + layer.table, (tf.shape(x)[0], 3, 2, 8))
    y = tf.transpose(tf.pad(y, [[0, 0], [0, 1], [0, 0], [0, 0]]), (0, 2, 1, 3))
    return tf.nn.space_to_depth(tf.cast(y, tf.float32), 2)


def model_of(function):
    x = keras.Input((6, 8), name="x")
    y = layers.Flatten(name="flat")(Own(function, name="own")(x))
    return keras.Model(x, layers.Dense(3, name="head")(y))


@pytest.mark.parametrize("function", some_quick([attention, gathered, windows], 1, 2))
def test_dispatched_functions_are_exact(function, tmp_path):
    model = model_of(function)
    data = np.random.default_rng(0).normal(size=(6, 6, 8)).astype("float32")
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-5)
    assert sum(v.shape[-2:] == (6, 8) for v in clone.trainable_variables) == 1
    qat = keras_qat.quantize_model(model, calibration_data=data)
    qat.compile("sgd", "mse")
    qat.train_on_batch(data, np.ones((6, 3), "float32"))
    qat.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    keras_qat.export_litert(loaded, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact


def test_dispatch_leaves_other_arguments_to_tensorflow():
    with pytest.raises(ValueError, match="KerasTensor cannot be used as input"):
        tf.nn.softmax(keras.KerasTensor((2, 3)))
    with pytest.raises(ValueError, match="Attempt to convert a value"):
        tf.nn.softmax(object())
    assert tf.nn.relu([-1.0, 2.0]).numpy().tolist() == [0.0, 2.0]


def test_dispatch_leaves_other_threads_alone():
    x = TracedTensor.adopt(keras.KerasTensor((2, 3)), 2)
    with tensorflow_functions(), ThreadPoolExecutor() as threads:
        assert isinstance(tf.nn.softmax(x), keras.KerasTensor)
        error = threads.submit(tf.nn.softmax, x).exception()
    assert "KerasTensor cannot be used as input" in str(error)
    with pytest.raises(ValueError, match="KerasTensor cannot be used as input"):
        tf.nn.softmax(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda layer, x: tf.linalg.inv(tf.matmul(x, x, transpose_b=True)), "tf.linalg.inv"),
        (lambda layer, x: tf.gather(x, [[0], [1]], batch_dims=1, axis=2), "axis=2"),
    ],
)
def test_functions_without_a_form_are_refused(function, message):
    with pytest.raises(UnsupportedLayerError, match=message):
        keras_qat.clone_model(model_of(function))
