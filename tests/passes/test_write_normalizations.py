"""write_normalizations: operations that normalize become the layers that they consist of."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.ops.nn import LayerNorm

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.passes.write_normalizations import write_normalizations
from tests.passes.graphs import applied, chains, maximum_difference

GAMMA, BETA = np.array([0.5, -2.0, 1.0], "float32"), np.array([1.0, 0.0, -3.0], "float32")


@keras.saving.register_keras_serializable("tests")
class Normed(keras.layers.Layer):
    """A custom layer that normalizes, with its own weights."""

    def build(self, input_shape):
        self.weight = self.add_weight(name="weight", shape=input_shape[-1:], initializer="ones")
        self.shift = self.add_weight(name="shift", shape=input_shape[-1:], initializer="ones")

    def call(self, x):
        return ops.layer_normalization(x, self.weight, beta=self.shift, epsilon=1e-3)


EXPRESSIONS = [
    lambda x: ops.layer_normalization(x),
    lambda x: ops.layer_normalization(x, GAMMA, BETA, axis=2),
    lambda x: ops.layer_normalization(x, beta=BETA, epsilon=0.5),
    lambda x: ops.layer_normalization(x, axis=[1, 2]),
    lambda x: ops.rms_normalization(x),
    lambda x: ops.rms_normalization(x, scale=GAMMA, epsilon=1e-3),
    lambda x: ops.normalize(x),
    lambda x: ops.normalize(x, axis=1),
]


def rows():
    return np.random.default_rng(0).normal(1, 1, (16, 5, 3)).astype("float32")


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_write_normalizations_keeps_the_function(expression):
    x = keras.Input((5, 3))
    model = keras.Model(x, expression(x))
    assert maximum_difference(applied(write_normalizations, model), model, rows()) < 1e-5


@pytest.mark.parametrize("make", [EXPRESSIONS[1], EXPRESSIONS[5], EXPRESSIONS[7], Normed()])
def test_write_normalizations_is_exact(make, tmp_path):
    x = keras.Input((5, 3))
    model = keras.Model(x, make(x))
    quantized = keras_qat.quantize_model(model)
    assert len(quantized.trainable_weights) == len(model.trainable_weights)
    keras_qat.calibrate(quantized, rows(), verbose=0)
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    report = keras_qat.verify(quantized, tmp_path / "model.tflite", rows(), verbose=0)
    assert report.exact, str(report)


def test_write_normalizations_gives_the_last_operation_the_name():
    x = keras.Input((5, 3), name="x")
    y = LayerNorm(name="norm").symbolic_call(x, GAMMA, BETA)
    graph = applied(write_normalizations, keras.Model(x, y))
    assert chains(graph) == {"norm_normalized": ["normalized"], "norm": ["affine"]}


@pytest.mark.parametrize(
    ("expression", "received"),
    [
        (lambda x: ops.layer_normalization(x, x[0, 0]), "a tensor of the model"),
        (lambda x: ops.rms_normalization(x, np.ones((5, 3), "float32")), r"shape \(5, 3\)"),
    ],
)
def test_write_normalizations_refuses_other_factors(expression, received):
    x = keras.Input((5, 3))
    with pytest.raises(UnsupportedLayerError, match=f"one offset for each channel.*{received}"):
        applied(write_normalizations, keras.Model(x, expression(x)))


def test_write_normalizations_leaves_other_norms():
    x = keras.Input((5, 3))
    model = keras.Model(x, ops.normalize(x, order=1))
    heads = [node.head for node in applied(write_normalizations, model).nodes.values()]
    assert [type(head).__name__ for head in heads] == ["InputLayer", "Normalize"]
