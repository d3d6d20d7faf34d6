"""Subclassed models. The oracle is the output of the subclassed model."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import InvalidModelError
from keras_qat.graph.subclassed import read_any_model
from tests.models import images, labels, randomized


class Block(keras.Model):
    """Convolution and batch normalization, with a `training` argument."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.convolve = layers.Conv2D(filters, 3, use_bias=False, name="convolve")
        self.normalize = layers.BatchNormalization(name="normalize")

    def call(self, x, training=None):
        return ops.relu(self.normalize(self.convolve(x), training=training))


class Classifier(keras.Model):
    """Subclassed models nested three deep, beside a functional model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = Pair(name="stem")
        x = keras.Input((4, 4, 4))
        self.tail = keras.Model(x, layers.MaxPooling2D(name="pool")(x), name="tail")
        self.drop = layers.Dropout(0.5, name="drop")
        self.head = layers.Dense(5, activation="softmax", name="head")

    def call(self, image, training=False):
        y = self.tail(self.stem(image, training=training))
        y = self.drop(ops.mean(y, axis=(1, 2)), training=training)
        return self.head(y)


class Pair(keras.Model):
    """Two blocks, one after the other."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Block(4, name="first"), Block(4, name="second")]

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x, training=training)
        return x


class Structured(keras.Model):
    """Takes a dictionary of a tensor and a list, returns a dictionary of a list. Shares a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.shared = layers.Dense(3, name="shared")
        self.other = layers.Dense(2, name="other")

    def call(self, inputs):
        first, (second, third) = inputs["b"], inputs["a"]
        twice = [self.shared(first), self.shared(second)]
        return {"twice": twice, "once": self.other(third)}


class Several(keras.Model):
    """Takes several arguments. `build` takes their shapes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.left, self.right = layers.Dense(3, name="left"), layers.Dense(3, name="right")

    def build(self, a_shape, b_shape):
        self.left.build(a_shape)
        self.right.build(b_shape)

    def call(self, a, b):
        return [self.left(a) + self.right(b), self.left(a)]


class Own(keras.Model):
    """A model with its own weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight(shape=(4,), initializer="random_normal", name="scale")
        self.head = layers.Dense(2, name="head")

    def call(self, x):
        return self.head(x * self.scale)


class Words(keras.Model):
    """Takes ids. Keras does not record their dtype."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table, self.head = layers.Embedding(9, 4, name="table"), layers.Dense(2, name="head")

    def call(self, ids):
        return self.head(self.table(ids))


class NoBuild(keras.Model):
    """Takes several arguments. Keras records the shape of the first one only."""

    def call(self, a, b):
        return ops.relu(a) + b


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(16, *shape)).astype("float32")


def classifier():
    model = Classifier(name="classifier")
    model(images(2))
    return randomized(model)


def structured():
    model = Structured(name="structured")
    data = {"b": random(4), "a": [random(4, seed=1), random(5, seed=2)]}
    model(data)
    return model, data


def same(ours, theirs):
    keras.tree.assert_same_structure(ours, theirs)
    for x, y in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_subclassed_models_three_deep_become_an_exact_file(tmp_path):
    model, data = classifier(), images()
    clone = keras_qat.clone_model(model)
    same(clone(data), model(data))
    assert clone.name == "classifier"
    becomes = "InputLayer QConv2D QConv2D QMaxPooling2D QMean QDropout QDense QSoftmax"
    assert [type(layer).__name__ for layer in clone.layers] == becomes.split()
    assert clone.input_shape == (None, 8, 8, 3) and clone.layers[0].name == "image"
    assert {"pool", "head"} <= {layer.name for layer in clone.layers}
    assert len(clone.trainable_variables) == len(model.trainable_variables)
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, data, verbose=0)
    qat.compile("sgd", "sparse_categorical_crossentropy")
    qat.train_on_batch(data, labels())
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    report = keras_qat.verify(qat, tmp_path / "model.tflite", data, kernels="default", verbose=0)
    assert report.exact, report


def test_clone_of_a_subclassed_model_trains_batch_norms_alike():
    model, data = classifier(), images()
    model.drop.rate = 0.0
    clone = keras_qat.clone_model(model)
    same(clone(data, training=True), model(data, training=True))
    theirs = [v for v in model.non_trainable_variables if "moving" in v.path]
    ours = [v for v in clone.non_trainable_variables if "moving" in v.path]
    same([np.array(v) for v in ours], [np.array(v) for v in theirs])


def test_clone_of_a_subclassed_model_keeps_structures_and_shared_layers():
    model, data = structured()
    for made in (keras_qat.clone_model(model), keras_qat.clone_model(model, rewrites=[])):
        same(made(data), model(data))
        assert [layer.name for layer in made.inputs] == ["a_0", "a_1", "b"]
        assert len(made.weights) == len(model.weights) == 4


def test_clone_of_a_subclassed_model_takes_several_arguments_as_a_list():
    model, data = Several(name="several"), [random(4), random(5)]
    expected = model(*data)
    clone = keras_qat.clone_model(model)
    same(clone(data), expected)
    assert [tensor.name for tensor in clone.inputs] == ["a", "b"]


@pytest.mark.parametrize("trainable", [True, False])
def test_clone_of_a_subclassed_model_keeps_its_own_and_frozen_weights(trainable):
    model, data = Own(name="own"), random(4)
    model(data)
    model.head.trainable = trainable
    clone = keras_qat.clone_model(model)
    same(clone(data), model(data))
    assert len(clone.trainable_weights) == len(model.trainable_weights) == (3 if trainable else 1)
    model.trainable = False
    assert not keras_qat.clone_model(model).trainable_weights


def test_clone_of_a_subclassed_model_takes_ids_as_integers(tmp_path):
    model, ids = Words(name="words"), np.random.default_rng(0).integers(0, 9, (16, 3), "int32")
    model(ids)
    qat = keras_qat.quantize_model(model)
    assert qat.inputs[0].dtype == "int32"
    same(keras_qat.clone_model(model)(ids), model(ids))
    keras_qat.calibrate(qat, ids, verbose=0)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", ids, verbose=0).exact


def test_subclassed_model_knows_its_shapes_after_loading(tmp_path):
    model, data = structured()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(
        tmp_path / "model.keras", custom_objects={"Structured": Structured}
    )
    same(keras_qat.clone_model(loaded)(data), model(data))


def test_read_any_model_reads_functional_models():
    x = keras.Input((4,), name="x")
    assert list(read_any_model(keras.Model(x, layers.Dense(2, name="d")(x))).nodes) == ["x", "d"]


def test_subclassed_model_that_is_not_built_is_refused():
    with pytest.raises(InvalidModelError, match="not built.* Layer: 'own'.* Call it once"):
        keras_qat.clone_model(Own(name="own"))


def test_subclassed_model_with_arguments_of_unknown_shape_is_refused():
    model = NoBuild(name="two")
    model(random(4), random(4))
    with pytest.raises(InvalidModelError, match=r"first argument.* Layer: 'two'.*\['b'\]"):
        keras_qat.clone_model(model)
