"""clone_model with `input_tensors`. The oracle is the model called with these tensors."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidModelError
from tests.models import images, network


def dictionaries():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    total = layers.Concatenate(name="both")([a, b])
    return keras.Model({"b": b, "a": a}, {"y": layers.Dense(2, name="d")(total), "z": total})


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def same(ours, theirs):
    keras.tree.assert_same_structure(ours, theirs)
    for x, y in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize("batch", [None, 4])
def test_input_tensors_of_another_batch_size(batch):
    x = keras.Input(batch_shape=(batch, 8, 8, 3), name="mine")
    clone = keras_qat.clone_model(network(), input_tensors=x)
    assert clone.inputs[0] is x and clone.output_shape == (batch, 5)
    same(clone(images(4)), network()(images(4)))


def half(x):
    return layers.AveragePooling2D(2, name="half")(x)


def test_input_tensors_may_be_intermediate_tensors(tmp_path):
    x = keras.Input((16, 16, 3), name="mine")
    pooled, data = half(x), images(8, shape=(16, 16, 3))
    clone = keras_qat.clone_model(network(), input_tensors=pooled)
    same(clone(images(4)), network()(images(4)))
    whole = keras.Model(x, clone(pooled))
    same(whole(data), network()(half(data)))
    qat = keras_qat.quantize_model(whole)
    keras_qat.calibrate(qat, data, verbose=0)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    report = keras_qat.verify(qat, tmp_path / "model.tflite", data, kernels="default", verbose=0)
    assert report.exact


def test_input_tensors_as_a_dictionary():
    model = dictionaries()
    tensors: dict = {"a": keras.Input((4,), name="a"), "b": keras.Input((3,), name="b")}
    clone = keras_qat.clone_model(model, input_tensors=tensors)
    data = {"a": random(5, 4), "b": random(5, 3, seed=1)}
    same(clone(data), model(data))
    assert all(clone.input[key] is tensor for key, tensor in tensors.items())


def test_input_tensors_as_a_list():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model([a, b], layers.Subtract(name="difference")([a, b]))
    given = [keras.Input((4,), name="p"), keras.Input((4,), name="q")]
    clone = keras_qat.clone_model(model, input_tensors=given)
    data = [random(5, 4), random(5, 4, seed=1)]
    same(clone(data), model(data))


REFUSED = {
    "another shape": lambda: keras.Input((8, 8, 1)),
    "another rank": lambda: keras.Input((8, 8)),
    "an unknown size": lambda: keras.Input((None, 8, 3)),
    "another dtype": lambda: keras.Input((8, 8, 3), dtype="int32"),
    "an array": lambda: images(2),
    "too many": lambda: [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))],
    "a name": lambda: "image",
}


@pytest.mark.parametrize("name", REFUSED)
def test_input_tensors_that_do_not_fit_are_refused(name):
    message = "match the model's inputs.*Expected: Keras tensors of shape.*Received: .*To fix it"
    with pytest.raises(InvalidModelError, match="(?s)" + message):
        keras_qat.clone_model(network(), input_tensors=REFUSED[name]())


@pytest.mark.parametrize(
    "tensors",
    [
        {"a": keras.Input((4,)), "c": keras.Input((3,))},
        [keras.Input((4,)), keras.Input((3,))],
        {"a": keras.Input((4,)), "b": [keras.Input((3,))]},
    ],
    ids=["keys", "a list", "nested"],
)
def test_input_tensors_of_another_structure_are_refused(tensors):
    with pytest.raises(InvalidModelError, match="not match the model's inputs"):
        keras_qat.clone_model(dictionaries(), input_tensors=tensors)
