"""Warnings about operators: each on a model that has the problem, and not on a similar model."""

import json
from pathlib import Path

import keras
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.layers import UnfusedBatchNormalization
from keras_qat.litert.format.operators import declarations

RUNTIMES = Path(__file__).parents[2] / "docs" / "runtimes.json"


def found(model, code, **options):
    warnings = keras_qat.check(model, **options).warnings
    return [finding for finding in warnings if finding.code == code]


def convolved(*behind, end=True):
    """Makes a convolution, the given layers after it, and another convolution."""
    x = keras.Input((8, 8, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    for layer in behind:
        y = layer(y)
    return keras.Model(x, layers.Conv2D(2, 1, name="end")(y) if end else y)


ALONE = {
    "leaky_relu": (lambda: layers.LeakyReLU(0.3, name="act"), ("PRELU",)),
    "softplus": (lambda: layers.Activation("softplus", name="act"), ("CAST", "ADD", "GATHER")),
    "a ReLU with parameters": (lambda: layers.ReLU(4.0, name="act"), ("CAST", "ADD", "GATHER")),
    "PReLU": (lambda: layers.PReLU(shared_axes=[1, 2], name="act"), ("PRELU",)),
}


@pytest.mark.parametrize("name", ALONE)
def test_standalone_activation_costs_an_operator(name):
    make, operators = ALONE[name]
    (finding,) = found(convolved(make()), "standalone-activation")
    assert (finding.level, finding.layer, finding.tensor) == ("warning", "act", "act")
    assert finding.layers == ("act",) and "'act'" in finding.message
    assert all(operator in finding.message for operator in operators)
    assert finding.message.startswith(name)
    assert ("substitute" in str(finding)) == (name == "softplus")


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.ReLU(name="act"),
        lambda: layers.ReLU(6.0, name="act"),
        lambda: layers.Activation("sigmoid", name="act"),
        lambda: layers.Softmax(name="act"),
        lambda: layers.Activation("hard_sigmoid", name="act"),
        lambda: layers.Activation("exponential", name="act"),
        lambda: layers.Lambda(ops.square, name="act"),
    ],
)
def test_standalone_activation_ignores_fused_and_other_functions(layer):
    assert not found(convolved(layer()), "standalone-activation")


def test_standalone_activation_of_an_output():
    (finding,) = found(
        convolved(layers.Activation("softplus", name="act"), end=False), "standalone-activation"
    )
    assert finding.layer == "act"
    assert not found(convolved(layers.Activation("sigmoid"), end=False), "standalone-activation")


def test_standalone_activation_ignores_layers_that_fuse_no_activation():
    behind = layers.MaxPooling2D(name="pool"), layers.Activation("softplus", name="act")
    assert not found(convolved(*behind), "standalone-activation")
    behind = layers.ReLU(name="first"), layers.Activation("softplus", name="act")
    assert not found(convolved(*behind), "standalone-activation")


def test_standalone_activation_of_a_relu_after_max_pooling():
    model = convolved(layers.MaxPooling2D(name="pool"), layers.ReLU(name="act"))
    assert not found(model, "standalone-activation")
    rewrites = [name for name in keras_qat.DEFAULT_REWRITES if name != "canonicalize"]
    (finding,) = found(model, "standalone-activation", rewrites=rewrites)
    assert finding.layer == "act" and "before values are pooled" in str(finding)
    assert not found(
        convolved(layers.ReLU(name="act"), layers.MaxPooling2D()), "standalone-activation"
    )


def test_standalone_activation_ignores_a_relu_after_average_pooling():
    model = convolved(layers.AveragePooling2D(2, name="pool"), layers.ReLU(name="act"))
    assert not found(model, "standalone-activation")


@pytest.mark.parametrize("is_taken_twice", [False, True])
def test_standalone_activation_of_a_relu_after_a_concatenation(is_taken_twice):
    x = keras.Input((8, 8, 3), name="image")
    a = layers.Conv2D(4, 1, name="a")(x)
    b = layers.Conv2D(4, 1, name="b")(x)
    y = layers.ReLU(name="act")(layers.Concatenate(name="both")([a, b]))
    others = [layers.Conv2D(1, 1)(a)] if is_taken_twice else []
    model = keras.Model(x, [layers.Conv2D(2, 1)(y), *others])
    assert len(found(model, "standalone-activation")) == (not is_taken_twice)


def test_standalone_activation_has_one_finding_per_function():
    x = y = keras.Input((8, 8, 3), name="image")
    for i in range(10):
        y = layers.Conv2D(4, 1, activation="softplus", name=f"conv_{i}")(y)
    y = layers.LeakyReLU(name="leaky")(layers.Conv2D(4, 1, name="last")(y))
    model = keras.Model(x, layers.Conv2D(4, 1)(y))
    first, second = found(model, "standalone-activation")
    assert len(first.layers) == 10 and first.layers[0] == first.layer
    assert "and 2 more" in first.message and second.layers == ("leaky",)


def normalized(*before, cls=layers.BatchNormalization):
    return convolved(*before, cls(name="norm"))


def test_unfolded_batch_norm_is_found():
    (finding,) = found(normalized(layers.ReLU()), "unfolded-batch-norm")
    assert finding.layers == ("norm",) and "DEPTHWISE_CONV_2D" in finding.message
    assert not found(normalized(), "unfolded-batch-norm")


def test_unfolded_batch_norm_of_the_unfused_layer():
    (finding,) = found(normalized(cls=UnfusedBatchNormalization), "unfolded-batch-norm")
    assert finding.layer == "norm" and "a separate MUL and ADD" in finding.message


def test_unfolded_batch_norm_ignores_a_rescaling():
    model = convolved(layers.ReLU(), layers.MaxPooling2D(), layers.Rescaling(2.0, 1.0), end=False)
    assert not found(model, "unfolded-batch-norm")


def resized(size, interpolation="bilinear"):
    return convolved(layers.Resizing(*size, interpolation=interpolation, name="resize"))


@pytest.mark.parametrize(
    ("model", "operator"),
    [
        (lambda: convolved(layers.GlobalAveragePooling2D(name="act"), end=False), "MEAN"),
        (lambda: convolved(layers.LeakyReLU(0.3, name="act")), "LEAKY_RELU"),
        (lambda: resized((16, 32)), "RESIZE_BILINEAR by a factor of 2 or 4"),
        (lambda: resized((24, 24)), "RESIZE_BILINEAR by another factor"),
        (lambda: resized((4, 4)), "RESIZE_BILINEAR by another factor"),
    ],
)
def test_runtimes_differ_names_operators_that_round_differently(model, operator):
    (finding,) = found(model(), "runtimes-differ", target="reference")
    assert finding.message.startswith(operator)


def test_runtimes_differ_names_a_requantization():
    x = keras.Input((4,), name="x")
    gate = layers.Dense(4, activation="sigmoid", name="gate")(x)
    model = keras.Model(x, layers.Concatenate()([gate, layers.Dense(4)(x)]))
    (finding,) = found(model, "runtimes-differ", target="reference")
    assert finding.message.startswith("QUANTIZE") and "gate" in str(finding)


@pytest.mark.parametrize(
    "model",
    [
        lambda: convolved(layers.GlobalMaxPooling2D(), end=False),
        lambda: convolved(layers.AveragePooling2D(2)),
        lambda: resized((24, 24), "nearest"),
    ],
)
def test_runtimes_differ_ignores_operators_that_round_alike(model):
    assert not found(model(), "runtimes-differ", target="reference")


@pytest.mark.parametrize("target", [None, "litert", "tflite-micro"])
def test_runtimes_differ_is_about_the_reference_kernels(target):
    model = convolved(layers.GlobalAveragePooling2D(), end=False)
    assert not found(model, "runtimes-differ", target=target)


def test_runtimes_differ_lists_the_operators_measured_to_differ():
    differing = {
        record["operator"]
        for record in json.loads(RUNTIMES.read_text())["operators"]
        if record["type"] == "int8" and record["differing"] >= 0.02 * record["elements"]
    }
    assert differing == {code for code, each in declarations().items() if each.apart}


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        pytest.param("ResNet50", 32, {}, marks=pytest.mark.slow),
        pytest.param("MobileNetV2", 32, {}, marks=pytest.mark.slow),
        pytest.param("ResNet50V2", 32, {"unfolded-batch-norm": 1}, marks=pytest.mark.slow),
        ("MobileNetV3Small", 32, {}),
    ],
)
def test_check_of_known_models_has_few_warnings(name, size, expected):
    make = getattr(keras.applications, name)
    report = keras_qat.check(make(weights=None, input_shape=(size, size, 3)))
    assert report.ok
    counts: dict[str, int] = {}
    for finding in report.warnings:
        counts[finding.code] = counts.get(finding.code, 0) + 1
    assert counts == expected
