"""Batch normalization as a MUL and an ADD: cases of the contract, hand-computed numbers."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidModelError, UnsupportedLayerError
from keras_qat.layers import QConv2D, UnfusedBatchNormalization
from tests.layers.cases import Case, branches, layer, together
from tests.layers.litert_files import constants_of, exported, operators_of

Conv2D, ReLU = keras.layers.Conv2D, keras.layers.ReLU

CASES = [
    Case(
        "unfused_batch_normalization",
        (UnfusedBatchNormalization,),
        together(
            branches(
                (6, 6, 3),
                [layer(Conv2D, 4, 3, use_bias=False), UnfusedBatchNormalization],
                [layer(Conv2D, 4, 3, use_bias=False), UnfusedBatchNormalization, ReLU],
                [layer(UnfusedBatchNormalization, activation="relu6")],
                [layer(UnfusedBatchNormalization, center=False, activation="swish")],
                [layer(UnfusedBatchNormalization, scale=False, axis=1)],
            ),
            branches((5,), [UnfusedBatchNormalization], prefix="c"),
        ),
        # Training rounds the product and the offset as the file does, except where their sum
        # is out of range.
        steps=2,
    ),
]


@pytest.fixture(scope="module")
def model():
    """Makes a batch normalization of two channels with chosen weights."""
    model = keras.Sequential([keras.Input((2,)), UnfusedBatchNormalization(epsilon=0.0)])
    gamma, beta, mean, variance = model.layers[0].weights
    gamma.assign([2.0, -1.0])
    beta.assign([1.0, 0.5])
    mean.assign([3.0, 1.0])
    variance.assign([4.0, 1.0])
    return model


def test_unfused_batch_norm_is_a_mul_and_an_add(model):
    x = np.array([[4.0, -2.0], [-4.0, 2.0]], "float32")
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    buffer = exported(quantized)
    assert operators_of(buffer) == ["MUL", "ADD"]
    constants = constants_of(buffer)
    # factor = gamma / deviation = (1, -1), offset = beta - mean * factor = (-2, 1.5)
    name = model.layers[0].name
    q, scale = constants[f"{name}/factor"]
    np.testing.assert_array_equal(q.reshape(-1), [127, -127])
    np.testing.assert_allclose(scale, 1 / 127, rtol=1e-6)
    q, scale = constants[f"{name}/offset"]
    np.testing.assert_array_equal(q.reshape(-1), [-127, 95])  # 1.5 / (2 / 127) = 95.25
    np.testing.assert_allclose(scale, 2 / 127, rtol=1e-6)


def test_unfused_batch_norm_product_has_its_own_range(model):
    x = np.array([[4.0, -2.0], [-4.0, 2.0]], "float32")
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    observer = quantized.layers[-1].product_observer
    assert (float(observer.minimum), float(observer.maximum)) == (-4.0, 4.0)
    observer = quantized.layers[-1].observer
    assert (float(observer.minimum), float(observer.maximum)) == (-6.0, 3.5)


def test_unfused_batch_norm_is_not_folded():
    x = keras.Input((4, 4, 3))
    y = UnfusedBatchNormalization(name="norm")(Conv2D(2, 3, name="conv")(x))
    clone = keras_qat.clone_model(keras.Model(x, ReLU(name="relu")(y)))
    assert [type(each) for each in clone.layers[1:]] == [QConv2D, UnfusedBatchNormalization]
    assert [str(each) for each in clone.rewrite_log] == ["fuse_activations: norm + relu -> norm"]


def test_unfused_batch_norm_moves_statistics_as_keras_does():
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (64, 5)).astype("float32")
    ours = keras.Sequential([keras.Input((5,)), UnfusedBatchNormalization()])
    theirs = keras.Sequential([keras.Input((5,)), keras.layers.BatchNormalization()])
    quantized = keras_qat.quantize_model(ours, calibration_data=x)
    for each in (theirs, quantized):
        each.compile("sgd", "mse")
        each.fit(x, x, epochs=5, batch_size=32, shuffle=False, verbose=0)
    norm, expected = quantized.layers[-1], theirs.layers[-1]
    for name, tolerance in (("moving_mean", 0.02), ("moving_variance", 0.02)):
        got, want = np.array(getattr(norm, name)), np.array(getattr(expected, name))
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def test_unfused_batch_norm_keeps_its_statistics_if_frozen():
    model = keras.Sequential([keras.Input((3,)), UnfusedBatchNormalization(trainable=False)])
    quantized = keras_qat.quantize_model(model)
    assert quantized.trainable_variables == []
    quantized(np.full((4, 3), 7.0, "float32"), training=True)
    np.testing.assert_array_equal(np.array(quantized.layers[-1].moving_mean), 0.0)


def test_unfused_batch_norm_from_and_to_keras():
    norm = keras.layers.BatchNormalization(name="norm", epsilon=0.1)
    norm.build((None, 3))
    norm.gamma.assign([1.0, 2.0, 3.0])
    ours = UnfusedBatchNormalization.from_keras([norm, ReLU(name="relu")])
    assert ours.name == "norm" and ours.epsilon == 0.1
    back = ours.to_keras() or []
    assert [type(each) for each in back] == [type(norm), keras.layers.Activation]
    assert [each.name for each in back] == ["norm", "relu"]
    np.testing.assert_array_equal(np.array(back[0].gamma), [1.0, 2.0, 3.0])
    with pytest.raises(InvalidModelError, match="cannot absorb"):
        UnfusedBatchNormalization.from_keras([norm, ReLU(), ReLU()])


def test_unfused_batch_norm_refuses_renormalization():
    model = keras.Sequential([keras.Input((3,)), UnfusedBatchNormalization()])
    model.layers[0].renorm = True  # an argument of newer versions of Keras
    config = {**model.layers[0].get_config(), "scheme": "int8"}
    quantized = UnfusedBatchNormalization.from_config(config)
    quantized.renorm = True
    with pytest.raises(UnsupportedLayerError, match="renorm"):
        quantized.build((None, 3))
