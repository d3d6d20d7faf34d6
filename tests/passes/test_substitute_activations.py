"""The four values of `activations`."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidRewriteError, UnsupportedLayerError
from keras_qat.passes.substitute_activations import STAND_INS
from tests.layers.litert_files import exported, operators_of

X = np.random.default_rng(0).normal(0, 2, (64, 6)).astype("float32")


def model_with(*activations):
    x = keras.Input((6,), name="x")
    outputs = [
        layers.Activation(name, name=f"{name}_{i}")(layers.Dense(5, name=f"dense_{i}")(x))
        for i, name in enumerate(activations)
    ]
    return keras.Model(x, outputs)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", sorted(STAND_INS))
def test_substitute_activations_needs_no_lookup(name):
    model = model_with(name)
    lookup = keras_qat.quantize_model(model, calibration_data=X, activations="lookup")
    assert "GATHER" in operators_of(exported(lookup))
    cheap = keras_qat.quantize_model(model, calibration_data=X, activations="substitute")
    assert "GATHER" not in operators_of(exported(cheap))
    assert "substitute_activations" in [rewrite.rewrite for rewrite in cheap.rewrite_log]
    # The shape is similar: nearer to the function than the function is to its mean.
    expected, got = (
        np.asarray(each(X)) for each in (model, keras_qat.clone_model(cheap_of(model)))
    )
    assert np.mean((got - expected) ** 2) < 0.5 * np.var(expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [("softplus", "softplus -> relu"), ("gelu", "gelu -> hard_silu"), ("elu", "elu -> maximum")],
)
def test_substitute_activations_logs_both_functions(name, text):
    (found,) = [
        rewrite
        for rewrite in cheap_of(model_with(name)).rewrite_log
        if rewrite.rewrite == "substitute_activations"
    ]
    assert found.functions == text
    assert str(found) == f"substitute_activations: {name}_0 -> {name}_0 ({text})"


def cheap_of(model):
    return keras_qat.clone_model(model, activations="substitute")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", sorted(STAND_INS))
def test_substitute_activations_writes_operators_of_every_target(name):
    x = keras.Input((4, 4, 3), batch_size=1)
    model = keras.Model(x, layers.Activation(name)(layers.Conv2D(4, 3)(x)))
    for target in ("litert", "tflite-micro", "ethos-u", "edgetpu"):
        found = keras_qat.check(model, target=target, activations="substitute").findings
        assert [each for each in found if each.code.startswith("target")] == []


def test_substitute_activations_keeps_the_limit_of_elu():
    x = keras.Input((6,))
    clone = cheap_of(keras.Model(x, layers.ELU(alpha=0.25)(x)))
    np.testing.assert_array_equal(clone(X), np.maximum(X, np.float32(-0.25)))


@pytest.mark.parametrize("name", ["hard_sigmoid", "silu", "tanh"])
def test_substitute_activations_leaves_functions_of_fast_operators(name):
    model = model_with(name)
    np.testing.assert_allclose(cheap_of(model)(X), model(X), atol=1e-5)


def test_substitute_activations_leaves_functions_with_an_operator():
    clone = cheap_of(
        model_with("relu", "sigmoid", "hard_silu", "leaky_relu", "softmax", "silu", "tanh")
    )
    assert [x.rewrite for x in clone.rewrite_log if x.rewrite == "substitute_activations"] == []


def test_substitute_activations_of_a_function_written_in_arithmetic():
    x = keras.Input((6,))
    model = keras.Model(x, x * keras.ops.tanh(keras.ops.softplus(x)))
    quantized = keras_qat.quantize_model(model, calibration_data=X, activations="substitute")
    assert operators_of(exported(quantized)) == ["ADD", "MUL", "MUL"]


def test_activations_policy_is_exact_by_default():
    model = model_with("gelu")
    np.testing.assert_allclose(keras_qat.clone_model(model)(X), model(X), atol=1e-6)


@pytest.mark.parametrize("rewrite", [keras_qat.clone_model, keras_qat.quantize_model])
def test_activations_error_names_all_functions(rewrite):
    with pytest.raises(UnsupportedLayerError) as caught:
        rewrite(model_with("relu", "mish", "softplus"), activations="error")
    text = str(caught.value)
    assert "'mish_1' (mish)" in text and "'softplus_2' (softplus)" in text
    assert caught.value.layer in ("mish_1", "softplus_2") and "relu_0" not in text
    assert 'activations="substitute"' in text


def test_substitute_activations_refuses_a_function_without_substitute():
    with pytest.raises(UnsupportedLayerError, match="'exponential_0'.*Use another function"):
        keras_qat.quantize_model(model_with("exponential"), activations="substitute")


def test_activations_error_ignores_layers_in_float():
    model = model_with("gelu")
    quantized = keras_qat.quantize_model(
        model, overrides={"gelu_0": None, "dense_0": None}, activations="error"
    )
    assert quantized.get_layer("gelu_0").scheme is None


def test_activations_refuses_an_unknown_policy():
    with pytest.raises(InvalidRewriteError, match="one of .*activations='cheap'"):
        keras_qat.clone_model(model_with("gelu"), activations="cheap")
