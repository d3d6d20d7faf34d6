"""The scheme "int8_per_tensor": one weight scale per tensor, in a whole model or single layers."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidOverrideError
from tests.layers.cases import first_of_each
from tests.layers.contract import Prepared, loosen
from tests.layers.litert_files import exported, operators_of, versions_of
from tests.layers.test_contract import CASES
from tests.models import images, network


def quantized(model, data, scheme="int8", overrides=None):
    result = keras_qat.quantize_model(model, scheme, overrides=overrides)
    keras_qat.calibrate(result, data, verbose=0)
    return result


def verified(model, data, tmp_path, kernels="default"):
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(model, path)
    return keras_qat.verify(model, path, data, kernels=kernels, verbose=0)


def scales_of(model):
    """Returns the number of scales of each kernel, by its name."""
    weights = keras_qat.integer_weights(model)
    return {name: each.scale.size for name, each in weights.items() if name.endswith("/kernel")}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("case", first_of_each(CASES))
@pytest.mark.parametrize("target", ["litert", pytest.param("reference", marks=pytest.mark.slow)])
def test_per_tensor_scheme_of_every_rule_equals_litert(case, target, tmp_path):
    prepared = Prepared(case)
    model = quantized(prepared.keras_model, tuple(prepared.arrays), "int8_per_tensor")
    model.set_target(target)
    loosen(model, np.random.default_rng(1))  # integers saturate at both limits
    kernels = {"reference": "reference", "litert": "default"}[target]
    report = verified(model, tuple(prepared.arrays), tmp_path, kernels)
    assert report.exact, str(report)
    assert set(scales_of(model).values()) <= {1}


def head(model=None):
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(4, 3, name="conv")(x)
    y = layers.ReLU(name="relu")(layers.BatchNormalization(name="conv_norm")(y))
    y = layers.Flatten(name="flat")(layers.MaxPooling2D(2, name="pool")(y))
    y = layers.Dense(6, use_bias=False, name="hidden")(y)
    y = layers.Activation("relu", name="act")(layers.BatchNormalization(name="norm")(y))
    return keras.Model(x, layers.Dense(3, name="head")(layers.Dropout(0.2, name="drop")(y)))


def test_per_tensor_override_adds_no_operator():
    """Layers that differ only in their weights are fused, and need no conversion between them."""
    whole = quantized(head(), images())
    mixed = quantized(head(), images(), overrides={layers.Dense: "int8_per_tensor"})
    assert operators_of(exported(mixed)) == operators_of(exported(whole))
    assert [each.name for each in mixed.layers] == [each.name for each in whole.layers]
    assert scales_of(whole) == {"conv/kernel": 4, "hidden/kernel": 6, "head/kernel": 3}
    assert scales_of(mixed) == {"conv/kernel": 4, "hidden/kernel": 1, "head/kernel": 1}


@pytest.mark.parametrize(
    ("overrides", "per_tensor"),
    [
        ({"conv": "int8_per_tensor"}, ["conv/kernel"]),
        ({".*": "int8_per_tensor", "conv": "int8"}, ["head/kernel", "hidden/kernel"]),
        ({"Dense": "int8_per_tensor", "head": "int8"}, ["hidden/kernel"]),
        ({"Dense": "int8_per_tensor", "conv": None}, ["head/kernel", "hidden/kernel"]),
        ({"Dense": "int8_per_tensor", "hidden": None}, ["head/kernel"]),
    ],
    ids=str,
)
def test_per_tensor_overrides_equal_litert(overrides, per_tensor, tmp_path):
    model = quantized(head(), images(), overrides=overrides)
    assert sorted(name for name, count in scales_of(model).items() if count == 1) == per_tensor
    assert verified(model, images(32, seed=1), tmp_path).exact


def test_per_tensor_overrides_reach_nested_and_split_layers(tmp_path):
    x = keras.Input((8, 8, 3))
    y = layers.SeparableConv2D(5, 3, name="separable")(x)
    inner = keras.Sequential([keras.Input((6, 6, 5)), layers.Conv2D(4, 1, name="inside")])
    model = keras.Model(x, layers.Conv2D(2, 1, name="last")(inner(y)))
    wanted = {"separable": "int8_per_tensor", "inside": "int8_per_tensor"}
    model = quantized(model, images(), overrides=wanted)
    counts = scales_of(model)
    assert counts.pop("last/kernel") == 2
    assert len(counts) == 3 and set(counts.values()) == {1}
    assert verified(model, images(32, seed=1), tmp_path).exact


def test_per_tensor_scheme_with_one_layer_in_int8(tmp_path):
    model = quantized(head(), images(), "int8_per_tensor", {"conv": "int8"})
    assert scales_of(model) == {"conv/kernel": 4, "hidden/kernel": 1, "head/kernel": 1}
    assert verified(model, images(32, seed=1), tmp_path).exact


def test_per_tensor_override_is_saved_with_the_layer(tmp_path):
    model = quantized(head(), images(), overrides={"Dense": "int8_per_tensor"})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert exported(loaded) == exported(model)


def test_per_tensor_scheme_has_one_scale_at_training():
    """Weights have steps of 1/127, so the small channel of a kernel has few of them."""
    x = keras.Input((2,))
    model = keras.Model(x, layers.Dense(2, name="dense", use_bias=False)(x))
    model.get_layer("dense").kernel.assign([[1.0, 0.001], [0.5, 0.006]])
    qat = keras_qat.quantize_model(model, "int8_per_tensor")
    qat(np.ones((4, 2), "float32"), training=True)
    kernel = keras_qat.integer_weights(qat)["dense/kernel"]
    assert kernel.values.tolist() == [[127, 64], [0, 1]] and kernel.scale.size == 1


def test_per_tensor_scheme_has_a_lower_version_of_fully_connected():
    """Release 2.0 has version 4, and 5 for a kept rank. Runtimes before 2.17 do not know 12."""
    versions = {}
    for scheme in ("int8", "int8_per_tensor", "uint8"):
        x = keras.Input((4, 3))
        y = layers.Dense(2)(layers.Flatten()(layers.Dense(5)(x)))
        model = quantized(keras.Model(x, y), np.ones((4, 4, 3), "float32"), scheme)
        found = versions_of(exported(model))
        versions[scheme] = [version for code, version in found if code == "FULLY_CONNECTED"]
    assert versions == {"int8": [12, 12], "int8_per_tensor": [5, 4], "uint8": [5, 1]}


def test_overrides_of_another_activation_type_are_refused():
    with pytest.raises(InvalidOverrideError, match="signed or unsigned.*signed.*'uint8'.*'int8'"):
        keras_qat.quantize_model(network(), overrides={"head": "uint8"})
    with pytest.raises(InvalidOverrideError, match="signed or unsigned.*unsigned activations"):
        keras_qat.quantize_model(network(), "uint8", overrides={"head": "int8_per_tensor"})
