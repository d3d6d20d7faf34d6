"""Models of every structure become exact files. The oracle is the source model."""

from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import keras_qat
from tests.models import called, labels, randomized
from tests.quick import some_quick


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(16, *shape)).astype("float32")


def assert_same(ours, theirs, tolerance=1e-5):
    keras.tree.assert_same_structure(ours, theirs)
    for x, y in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance)


def whole(inputs):
    """Returns inputs as data. A list would mean batches."""
    return tuple(inputs) if isinstance(inputs, list) else inputs


def exported(model, inputs, folder):
    """Returns a calibrated quantized model and the path of its file, which is exact."""
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, whole(inputs), verbose=0)
    assert_exact(qat, inputs, folder)
    return qat, folder / "model.tflite"


def assert_exact(qat, inputs, folder):
    keras_qat.export_litert(qat, folder / "model.tflite")
    report = keras_qat.verify(
        qat, folder / "model.tflite", whole(inputs), kernels="default", verbose=0
    )
    assert report.exact, report


def block(name):
    x = keras.Input((6, 6, 3), name=f"{name}_in")
    y = layers.Conv2D(3, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    y = layers.BatchNormalization(name=f"{name}_norm")(y)
    return keras.Model(x, y, name=name)


def nested():
    """Makes functional in functional in sequential, with an activation after each."""
    x = keras.Input((6, 6, 3), name="middle_in")
    y = layers.ReLU(name="middle_relu")(block("inner")(x))
    middle = keras.Model(x, layers.Add(name="middle_add")([y, x]), name="middle")
    chain = [middle, layers.ReLU(name="relu"), layers.Flatten(), layers.Dense(5, name="head")]
    return randomized(keras.Sequential([keras.Input((6, 6, 3), name="image"), *chain]))


def siamese():
    left, right = keras.Input((6, 6, 3), name="left"), keras.Input((6, 6, 3), name="right")
    chain = [
        keras.Input((6, 6, 3)),
        layers.Conv2D(4, 3, use_bias=False, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        layers.GlobalAveragePooling2D(name="mean"),
        layers.Dense(4, name="code"),
    ]
    encoder = keras.Sequential(chain, name="encoder")
    difference = layers.Subtract(name="difference")([encoder(left), encoder(right)])
    return randomized(keras.Model([left, right], layers.Dense(2, name="head")(difference)))


def named():
    inputs = {name: keras.Input((4,), name=name) for name in ("speed", "angle")}
    both = layers.Concatenate(name="both")([inputs["speed"], inputs["angle"]])
    hidden = layers.Dense(6, activation="relu", name="hidden")(both)
    outputs = {
        "steer": layers.Dense(2, name="steer")(hidden),
        "brake": layers.Dense(3, activation="sigmoid", name="brake")(hidden),
    }
    return inputs, outputs


def test_clone_of_nested_models_two_deep(tmp_path):
    model, inputs = nested(), data(6, 6, 3)
    clone = keras_qat.clone_model(model)
    assert_same(clone(inputs), model(inputs))
    names = [layer.name for layer in clone.layers]
    assert names[:3] == ["image", "inner_conv", "middle_add"] and names[-1] == "head"
    exported(model, inputs, tmp_path)


def test_clone_of_a_siamese_model_has_one_set_of_weights(tmp_path):
    model, inputs = siamese(), [data(6, 6, 3), data(6, 6, 3, seed=1)]
    clone = keras_qat.clone_model(model)
    assert_same(clone(inputs), model(inputs))
    assert len(clone.weights) == len(model.weights)
    qat, _ = exported(model, inputs, tmp_path)
    count = len(qat.weights)
    qat.compile(keras.optimizers.SGD(0.1), "mse")
    qat.fit(inputs, np.ones((16, 2)), epochs=1, verbose=0)
    qat.save(tmp_path / "qat.keras")
    loaded = keras.models.load_model(tmp_path / "qat.keras")
    for each in (qat, loaded):
        assert len(each.weights) == count
        assert [layer.name for layer in each.layers].count("conv") == 1
        assert len(each.get_layer("conv")._inbound_nodes) == 2
    assert_same(called(loaded, inputs), called(qat, inputs), 0)
    assert_exact(loaded, inputs, tmp_path)


def test_export_of_a_siamese_model_has_one_kernel(tmp_path):
    model, inputs = siamese(), [data(6, 6, 3), data(6, 6, 3, seed=1)]
    _, path = exported(model, inputs, tmp_path)
    table = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    for name in ("conv/kernel", "conv/bias", "code/kernel"):
        used = [x.buffer for x in table.subgraphs[0].tensors if x.name.decode().endswith(name)]
        contents = {table.buffers[buffer].data.tobytes() for buffer in used}
        assert len(contents) == 1 and path.read_bytes().count(contents.pop()) == 1


@pytest.mark.parametrize("kind", ["lists", "dictionaries"])
def test_clone_keeps_names_and_structures(kind, tmp_path):
    given, made = named()
    inputs: Any = {name: data(4, seed=i) for i, name in enumerate(given)}
    if kind == "lists":
        given, made, inputs = (list(each.values()) for each in (given, made, inputs))
    model = keras.Model(given, made)
    for rewrites in (None, ["split_activations"]):
        clone = keras_qat.clone_model(model, rewrites=rewrites)
        assert_same(clone(inputs), model(inputs))
        assert [x.name for x in clone.inputs] == [x.name for x in model.inputs]
    qat, path = exported(model, inputs, tmp_path)
    keras.tree.assert_same_structure(qat(inputs), model(inputs))
    (signature,) = schema.ModelT.InitFromPackedBuf(path.read_bytes()).signatureDefs
    names = [{x.name.decode() for x in each} for each in (signature.inputs, signature.outputs)]
    assert names[0] == {"speed", "angle"} and len(names[1]) == 2
    assert all(any(name in each for each in names[1]) for name in ("steer", "brake"))


def backbone():
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, strides=2, use_bias=False, name="stem")(x)
    y = layers.ReLU(6.0, name="stem_relu")(layers.BatchNormalization(name="stem_norm")(y))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(y)
    y = layers.ReLU(6.0, name="relu")(layers.BatchNormalization(name="norm")(y))
    return keras.Model(x, y, name="backbone")


def with_head(*chain):
    """Makes a new head after a trained model."""
    head = layers.GlobalAveragePooling2D(name="mean"), layers.Dense(5, name="head")
    return randomized(keras.Sequential([keras.Input((8, 8, 3), name="image"), *chain, *head]))


def fit(model, inputs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss)
    model.fit(inputs, labels(), epochs=1, verbose=0)


def values(variables):
    return {v.path: np.array(v) for v in variables}


def test_clone_for_transfer_learning(tmp_path):
    frozen = backbone()
    frozen.trainable = False
    rescaling = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")
    model, inputs = with_head(rescaling, frozen), (data(8, 8, 3) * 60 + 128).clip(0, 255)
    clone = keras_qat.clone_model(model)
    assert_same(clone(inputs), model(inputs))
    assert len(clone.trainable_weights) == 2
    qat, _ = exported(model, inputs, tmp_path)
    assert [v.path for v in qat.trainable_weights] == ["head/kernel", "head/bias"]
    weights = values(qat.weights)
    fit(qat, inputs)
    changed = {v.path for v in qat.weights if (np.array(v) != weights[v.path]).any()}
    assert {path for path in changed if "range" not in path} == {"head/kernel", "head/bias"}
    assert_exact(qat, inputs, tmp_path)


FROZEN = {
    "conv": ["stem"],
    "norm": ["stem_norm"],
    "both": ["stem", "stem_norm"],
    "depthwise": ["depthwise", "norm"],
    "all": ["stem", "stem_norm", "depthwise", "norm"],
    "none": [],
}


def partly_frozen(name):
    model = with_head(backbone())
    for layer in FROZEN[name]:
        model.get_layer("backbone").get_layer(layer).trainable = False
    return model


def kinds(variables):
    """Counts weights by kind, since names of folded layers differ from those of the source."""
    names = [v.path.rpartition("/")[2] for v in variables]
    return {name: names.count(name) for name in names}


@pytest.mark.parametrize("name", some_quick(FROZEN, 1, 2))
def test_clone_keeps_frozen_weights(name, tmp_path):
    model, inputs = partly_frozen(name), data(8, 8, 3)
    expected = kinds(model.trainable_weights)
    clone = keras_qat.clone_model(model)
    assert kinds(clone.trainable_weights) == expected
    assert_same(clone(inputs), model(inputs))
    qat, _ = exported(model, inputs, tmp_path)
    assert kinds(qat.trainable_weights) == expected
    frozen = values(v for v in qat.non_trainable_weights if is_weight(v))
    trained = values(qat.trainable_weights)
    fit(qat, inputs)
    now = values(qat.weights)
    assert all((now[path] == value).all() for path, value in frozen.items())
    assert all((now[path] != value).any() for path, value in trained.items())
    assert kinds(qat.trainable_weights) == expected
    assert_exact(qat, inputs, tmp_path)


def is_weight(variable):
    return variable.path.rpartition("/")[2] in ("kernel", "bias", "gamma", "beta")


@pytest.mark.parametrize("name", ["norm", "all"])
def test_quantized_model_keeps_frozen_statistics(name):
    model, inputs = partly_frozen(name), data(8, 8, 3)
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, inputs, verbose=0)
    means = values(v for v in qat.variables if "moving" in v.path and "stem" in v.path)
    assert means
    fit(qat, inputs)
    assert all((np.array(v) == means[v.path]).all() for v in qat.variables if v.path in means)


def test_clone_trains_like_its_source():
    inputs = data(8, 8, 3)
    for name in FROZEN:
        losses, model = [], partly_frozen(name)
        for each in (model, keras_qat.clone_model(model)):
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            each.compile(keras.optimizers.SGD(0.01), loss)
            losses.append([float(each.train_on_batch(inputs, labels())) for _ in range(3)])
        assert losses[1] == pytest.approx(losses[0], rel=1e-4), name
