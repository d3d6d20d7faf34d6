"""open_layers traces layers without a rule. Their function stays, and their weights train."""

import textwrap
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Parameter, read_model
from keras_qat.layers.core import registry
from keras_qat.passes.open_layers import open_layers

layers = keras.layers


class Mixed(layers.Layer):
    """A layer that consists of a layer and operations."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, activation="swish", name="inside")

    def build(self, input_shape):
        self.dense.build(input_shape)
        super().build(input_shape)

    def call(self, inputs):
        return ops.transpose(self.dense(inputs), (0, 2, 1))


class Scaled(layers.Layer):
    """A layer with its own weights."""

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=input_shape[-1:], name="gamma")
        self.rest = [self.add_weight(shape=input_shape[-1:], name="shift")]
        super().build(input_shape)

    def call(self, inputs):
        return ops.reshape(self.gamma, (1, -1)) * inputs + self.rest[0]


class Hidden(Scaled):
    """A layer that computes on a weight outside of the trace."""

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=input_shape[-1:], name="gamma")
        self.rest = types.SimpleNamespace(shift=self.add_weight(shape=input_shape[-1:]))

    def call(self, inputs):
        return inputs * self.gamma + ops.square(self.rest.shift)


class Renamed(Hidden):
    """Like `Hidden`, with a second weight that trains and has the name of the hidden weight."""

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=input_shape[-1:], name="twin")
        shift = self.add_weight(shape=input_shape[-1:], name="twin")
        self.rest = types.SimpleNamespace(shift=shift)


class Subclassed(keras.Model):
    """A subclassed model that makes its own layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolve = layers.Conv1D(4, 3, use_bias=False)
        self.normalize = layers.BatchNormalization()

    def call(self, inputs, training=None):
        return ops.relu(self.normalize(self.convolve(inputs), training=training))


class Foreign(layers.Layer):
    """A ReLU, with a function outside of `keras.ops` that has no form there."""

    def call(self, inputs):
        return tf.nn.relu(inputs) + 0.0 * tf.math.sinh(inputs)


def around(*chain, shape=(6, 3)):
    return keras.Sequential([keras.Input(shape), *chain])


def test_open_layers_of_a_custom_layer_gives_an_exact_file(tmp_path):
    model = around(Mixed(name="mixed"), layers.Cropping1D(1), layers.Permute((2, 1)))
    x = np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32")
    np.testing.assert_array_equal(keras_qat.clone_model(model)(x), model(x))
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, x, verbose=0)
    assert [layer.name for layer in quantized.layers[2:6]] == [
        "mixed_inside",
        "mixed_inside_silu_sigmoid",
        "mixed_inside_silu",
        "mixed",
    ]
    assert len(quantized.trainable_weights) == 2
    keras_qat.export_litert(quantized, tmp_path / "model.tflite")
    assert keras_qat.verify(quantized, tmp_path / "model.tflite", x, verbose=0).exact


def test_open_layers_makes_parameters_of_weights():
    model = around(Scaled(name="scaled"), shape=(3,))
    graph = open_layers(read_model(model)).check("open_layers")
    leaves = [
        leaf
        for node in graph.nodes.values()
        for leaf in keras.tree.flatten(node.arguments)
        if isinstance(leaf, Parameter)
    ]
    assert [(leaf.name, leaf.trainable) for leaf in leaves] == [("gamma", True), ("shift", True)]
    assert leaves[0].value.shape == (1, 3)
    assert list(graph.nodes)[-1] == "scaled"


def test_open_layers_leaves_the_model_unchanged():
    layer = Scaled(name="scaled")
    model = around(layer, shape=(3,))
    gamma = layer.gamma
    open_layers(read_model(model))
    assert layer.gamma is gamma
    assert len(model.trainable_weights) == 2


def test_quantize_model_refuses_an_untraceable_layer():
    with pytest.raises(UnsupportedLayerError, match="(?s)cannot be traced.*bad.*register"):
        keras_qat.quantize_model(around(Foreign(name="bad")))


def test_refusal_of_an_untraceable_layer_has_an_example_that_runs(monkeypatch):
    monkeypatch.setattr(registry, "_CALLS", dict(registry._CALLS))
    model = around(layers.Dense(3), Foreign(name="bad"))
    with pytest.raises(UnsupportedLayerError) as caught:
        keras_qat.clone_model(model)
    lines = str(caught.value).splitlines()
    start = next(i for i, line in enumerate(lines) if "@keras_qat.register" in line)
    example = textwrap.dedent("\n".join(lines[start : start + 3]))
    exec(example, {"keras": keras, "keras_qat": keras_qat, "Foreign": Foreign})
    clone = keras_qat.clone_model(model)
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    np.testing.assert_allclose(clone(x), model(x), atol=1e-6)


def test_open_layers_leaves_layers_that_train_differently():
    """An opened `SpectralNormalization` would lose its behaviour at training."""
    layer = layers.SpectralNormalization(layers.Conv2D(2, 1), name="bad")
    with pytest.raises(UnsupportedLayerError, match="bad"):
        keras_qat.quantize_model(around(layer, shape=(2, 4, 3)))


@pytest.mark.parametrize("kind", [Hidden, Renamed])
def test_open_layers_refuses_a_weight_that_would_not_train(kind):
    with pytest.raises(UnsupportedLayerError, match="(?s)would not train.*hidden"):
        keras_qat.quantize_model(around(kind(name="hidden"), shape=(3,)))


def test_open_layers_opens_a_nested_subclassed_model():
    model = around(Subclassed(), shape=(6, 3))
    clone = keras_qat.clone_model(model)
    assert [type(layer).__name__ for layer in clone.layers] == ["InputLayer", "QConv1D"]
    assert len(clone.trainable_weights) == len(model.trainable_weights)
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    np.testing.assert_allclose(clone(x), model(x), atol=1e-6)


def test_open_layers_opens_subclasses_of_blocks_without_integers():
    class Doubled(keras_qat.layers.QEinsumDense):
        def call(self, inputs, training=None):
            return 2.0 * super().call(inputs, training=training)

    x = keras.Input((5, 4), name="x")
    model = keras.Model(x, Doubled("abc,cd->abd", (5, 3), activation="relu", name="twice")(x))
    clone, data = keras_qat.clone_model(model), np.random.default_rng(0).normal(size=(2, 5, 4))
    assert "QDense" in {type(layer).__name__ for layer in clone.layers}
    np.testing.assert_allclose(clone(data), model(data), atol=1e-5)


class WithScores(layers.Layer):
    """A layer that returns None beside its output."""

    def build(self, input_shape):
        self.dense = layers.Dense(input_shape[-1], name="dense")
        self.dense.build(input_shape)
        super().build(input_shape)

    def call(self, x, scores=None):
        return ops.relu(self.dense(x)), scores

    def compute_output_spec(self, x, scores=None):
        return keras.KerasTensor(x.shape, x.dtype), scores


class PerWindow(layers.Layer):
    """A layer that divides the batch by the number of windows."""

    def call(self, x):
        x = ops.reshape(x, (ops.shape(x)[0] // 2, 2, 2, 3))
        return ops.reshape(x + np.array([[[1.0]], [[2.0]]], "float32"), (-1, 2, 3))


class Outer(layers.Layer):
    """A layer that calls inner layers in ways of which Keras makes no node."""

    def build(self, input_shape):
        self.blocks = [WithScores(name=f"block_{i}") for i in range(2)]
        self.reduced = keras.Sequential([layers.Dense(3, name="reduce")])
        self.reduced.build((None, 9, 3))
        self.windows = PerWindow(name="windows")
        super().build(input_shape)

    def call(self, x):
        scores = None
        for block in self.blocks:
            x, scores = block(x, scores)
        windows = self.windows(ops.reshape(x, (-1, 2, 3)))
        return self.reduced(x) + ops.reshape(windows, (-1, 4, 3))


def test_open_layers_takes_inner_layers_that_are_no_nodes(tmp_path):
    x = keras.Input((4, 3))
    model = keras.Model(x, layers.Dense(2)(Outer(name="outer")(x)))
    data = np.random.default_rng(0).normal(size=(8, 4, 3)).astype("float32")
    qat = keras_qat.quantize_model(model, calibration_data=data)
    assert len(qat.trainable_weights) == 8
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact


class Unknown(layers.Layer):
    """Projections that were built for an unknown length, as in many language models."""

    def build(self, input_shape):
        self.dense = layers.EinsumDense("bnd,dhk->bnhk", output_shape=(None, 2, 4), name="heads")
        self.dense.build((None, None, input_shape[-1]))
        super().build(input_shape)

    def call(self, x):
        heads = self.dense(x)
        return heads * ops.reshape(ops.arange(heads.shape[1], dtype="float32"), (-1, 1, 1))


def test_open_layers_knows_sizes_that_a_projection_was_built_without(tmp_path):
    x = keras.Input((4, 3))
    model = keras.Model(x, Unknown(name="unknown")(x))
    data = np.random.default_rng(0).normal(size=(8, 4, 3)).astype("float32")
    qat = keras_qat.quantize_model(model, calibration_data=data)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact


def test_open_layers_takes_a_mask_that_is_a_positional_argument(tmp_path):
    x, mask = keras.Input((4, 4)), keras.Input((4, 4), dtype="int32", name="mask")
    model = keras.Model([x, mask], layers.Softmax(name="softmax")(x, mask))
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(8, 4, 4)).astype("float32"), rng.integers(0, 2, (8, 4, 4))]
    qat = keras_qat.quantize_model(model, calibration_data=data)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact
