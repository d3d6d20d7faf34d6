import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import InvalidRewriteError
from keras_qat.passes import DEFAULT_REWRITES, OPTIONAL, PIPELINE, select_rewrites
from tests.layers.cases import randomize
from tests.layers.litert_files import constants_of, exported

ALL = [*keras_qat.DEFAULT_REWRITES, "drop_bias"]


def chain(*sequence, shape=(6, 6, 3)):
    """Makes a model of a sequence of layers, with random weights."""
    model = keras.Sequential([keras.Input(shape), *sequence])
    randomize(model, np.random.default_rng(0))
    return model


def data(model):
    return np.random.default_rng(1).normal(size=(4, *model.input_shape[1:])).astype("float32")


def without_biases(model, x):
    """Returns the outputs of the model with biases of 0."""
    saved = model.get_weights()
    for weight in model.weights:
        if weight.path.endswith("/bias"):
            weight.assign(ops.zeros(weight.shape))
    y = model(x)
    model.set_weights(saved)
    return y


def doubled(x):
    """A custom activation that is not registered."""
    return ops.relu(x) * 2.0


KERNELS = {
    "Conv1D": (lambda: layers.Conv1D(4, 3, activation="relu"), (6, 3)),
    "Conv2D": (lambda: layers.Conv2D(4, 3, activation="relu"), (6, 6, 3)),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3)),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(4, 3, activation="swish"), (6, 6, 3)),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3, strides=2), (6, 6, 3)),
    "Dense": (lambda: layers.Dense(4, activation=doubled), (5,)),
    "EinsumDense": (lambda: layers.EinsumDense("bi,ijk->bjk", (2, 3), bias_axes="jk"), (5,)),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("rewrites", [["drop_bias"], ALL], ids=["alone", "all"])
def test_drop_bias_removes_biases_and_nothing_else(name, rewrites):
    make, shape = KERNELS[name]
    model = chain(make(), shape=shape)
    if rewrites == ["drop_bias"] and name not in ("Conv1D", "Conv2D", "DepthwiseConv2D"):
        rewrites = [*rewrites, "split_activations", "split_separables", "open_layers"]
        rewrites += ["write_kernels", "write_affines", "canonicalize"]
    clone = keras_qat.clone_model(model, rewrites=rewrites)
    assert not any(weight.path.endswith("/bias") for weight in clone.weights)
    expected = without_biases(model, data(model))
    assert np.any(np.abs(expected - model(data(model))) > 0.1)  # they had a bias
    np.testing.assert_allclose(clone(data(model)), expected, rtol=1e-4, atol=1e-5)
    assert "drop_bias" in {rewrite.rewrite for rewrite in clone.rewrite_log}


def test_drop_bias_logs_every_layer():
    model = chain(layers.Conv2D(4, 3, name="conv"), layers.Flatten(), layers.Dense(2, name="head"))
    log = keras_qat.clone_model(model, rewrites=["drop_bias"]).rewrite_log
    assert [str(rewrite) for rewrite in log] == [
        "drop_bias: conv -> conv",
        "drop_bias: head -> head",
    ]


def test_drop_bias_before_a_batch_norm_keeps_the_function():
    """The moving mean cancels the bias, so the clone keeps the function. The model is unchanged."""
    model = chain(layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="norm"))
    before = model.get_weights()
    clone = keras_qat.clone_model(model, rewrites=ALL)
    assert [type(layer).__name__ for layer in clone.layers[1:]] == ["QConv2D"]
    conv = clone.get_layer("conv")
    assert not conv.use_bias
    mean, bias = model.get_layer("norm").moving_mean, model.get_layer("conv").bias
    np.testing.assert_array_equal(conv.batch_normalization.moving_mean, mean - bias)
    np.testing.assert_allclose(clone(data(model)), model(data(model)), atol=1e-4)
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    "sequence",
    [
        [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()],
        [layers.Conv2D(4, 3), layers.ReLU(), layers.BatchNormalization()],
        [layers.Conv2D(6, 3), layers.BatchNormalization(axis=1), layers.ReLU()],
    ],
    ids=["activation", "relu between", "another axis"],
)
def test_drop_bias_before_other_batch_norms_changes_the_function(sequence):
    model = chain(*sequence)
    clone = keras_qat.clone_model(model, rewrites=ALL)
    np.testing.assert_allclose(clone(data(model)), without_biases(model, data(model)), atol=1e-4)


def test_drop_bias_before_a_shared_batch_norm_changes_the_function():
    image, norm = keras.Input((6, 6, 3)), layers.BatchNormalization()
    y = [norm(layers.Conv2D(4, 3)(image)) for _ in range(2)]
    model = keras.Model(image, y)
    randomize(model, np.random.default_rng(0))
    clone = keras_qat.clone_model(model, rewrites=ALL)
    for mine, theirs in zip(clone(data(model)), without_biases(model, data(model)), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_drop_bias_of_a_clone():
    block = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()]
    model = chain(*block, layers.Conv2D(2, 3))
    clone = keras_qat.clone_model(model)
    for rewrites in (ALL, ["drop_bias"]):
        again = keras_qat.clone_model(clone, rewrites=rewrites)
        assert not any(layer.use_bias for layer in again.layers[1:])
        expected = chain(*block, layers.Conv2D(2, 3, use_bias=False))
        expected.set_weights(model.get_weights()[:-1])
        np.testing.assert_allclose(again(data(model)), expected(data(model)), atol=1e-4)


def test_drop_bias_leaves_no_bias_in_the_file(tmp_path):
    model = chain(layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3, name="head"))
    qat = keras_qat.quantize_model(model, rewrites=ALL, calibration_data=data(model))
    constants = constants_of(exported(qat))
    assert not any(np.any(values) for name, (values, _) in constants.items() if "bias" in name)


def test_drop_bias_runs_only_by_name():
    assert not {*OPTIONAL} & {*PIPELINE}
    assert [rewrite.__name__ for rewrite in PIPELINE] == list(DEFAULT_REWRITES)
    names = [rewrite.__name__ for rewrite in select_rewrites(["fuse_activations", "drop_bias"])]
    assert names == ["drop_bias", "fuse_activations"]
    model = chain(layers.Dense(3, name="head"), shape=(4,))
    assert keras_qat.clone_model(model).get_layer("head").use_bias


def test_select_rewrites_refuses_unknown_names_with_both_lists():
    message = r"'inline_models', .*that change the function, \['drop_bias'\].*'drop_biases'"
    with pytest.raises(InvalidRewriteError, match=message):
        select_rewrites(["drop_biases"])


@pytest.mark.parametrize("rewrites", ["drop_bias", 5, [5], [["drop_bias"]]])
def test_clone_model_refuses_rewrites_that_are_not_a_list_of_names(rewrites):
    with pytest.raises(InvalidRewriteError, match="a list of names"):
        keras_qat.clone_model(chain(layers.Dense(3), shape=(4,)), rewrites=rewrites)
