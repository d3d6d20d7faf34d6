"""Warnings about values: hand-computed cases, and similar models without a warning."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.checking import check
from tests import seeds
from tests.quick import some_quick


def found(model, code, scheme="int8", **options):
    return [finding for finding in check(model, scheme, **options).warnings if finding.code == code]


def dense(kernel, bias=None, activation=None):
    kernel = np.asarray(kernel, "float32")
    x = keras.Input((len(kernel),), name="x")
    layer = layers.Dense(kernel.shape[1], activation=activation, name="dense")
    model = keras.Model(x, layer(x))
    layer.kernel.assign(kernel)
    if bias is not None:
        layer.bias.assign(np.asarray(bias, "float32"))
    return model


def normalized(beta=(0.0, 0.0), gamma=(1.0, 1.0), activation="relu"):
    """Makes a convolution of two channels, its batch normalization and an activation."""
    x = keras.Input((4, 4, 3), name="x")
    y = layers.Conv2D(2, 1, name="conv")(x)
    norm = layers.BatchNormalization(name="norm")
    model = keras.Model(x, layers.Activation(activation, name="act")(norm(y)))
    norm.beta.assign(np.asarray(beta, "float32"))
    norm.gamma.assign(np.asarray(gamma, "float32"))
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: dense([[1.0, 0.0, 2.0], [0.5, 0.0, 1.0]]), "only zero weights"),
        (lambda: normalized(gamma=(1.0, 0.0)), "only zero weights"),
        (lambda: normalized(beta=(0.0, -6.0)), "(beta + 6 |gamma| <= 0)"),
        (lambda: normalized(beta=(0.0, -6.0), activation="relu6"), "never above 0"),
    ],
)
def test_dead_channel_is_found(make, reason):
    (finding,) = found(make(), "dead-channel")
    assert finding.layer in ("dense", "conv") and reason in finding.message
    assert "channel 1" in finding.message


@pytest.mark.parametrize(
    "make",
    [
        lambda: dense([[1.0, 0.0, 2.0], [0.5, 1e-9, 1.0]]),
        lambda: normalized(gamma=(1.0, 0.01)),
        lambda: normalized(beta=(0.0, -5.9)),
        lambda: normalized(beta=(0.0, -7.0), activation="linear"),
    ],
)
def test_dead_channel_ignores_active_channels(make):
    assert not found(make(), "dead-channel")


def test_dead_channel_that_data_never_activates():
    model = dense([[1.0, -1.0, 1.0]], activation="relu")
    data = np.linspace(0.5, 1.0, 1000, dtype="float32")[:, None]
    batches = [data[:500], data[500:]]
    (finding,) = found(model, "dead-channel", calibration_data=batches)
    assert "never above 0 in 1,000 observed values: channel 1" in finding.message
    assert not found(model, "dead-channel", calibration_data=batches[:1])  # too few values
    seldom = np.concatenate([data[500:], [[-1.0]]]).astype("float32")
    assert not found(model, "dead-channel", calibration_data=[batches[0], seldom])


def test_dead_channel_that_neither_data_nor_training_activates():
    data = np.random.default_rng(0).normal(size=(64, 4, 4, 3)).astype("float32")
    model = normalized(beta=(0.0, -4.0))
    model.get_layer("conv").kernel.assign(np.full((1, 1, 3, 2), 0.1))
    assert not found(model, "dead-channel")
    (finding,) = found(model, "dead-channel", calibration_data=data)
    assert "1,024 observed values and according to the batch" in finding.message
    assert "(beta + 3 |gamma| <= 0): channel 1" in finding.message
    model.get_layer("norm").beta.assign([0.0, -2.0])  # seldom active, but active in training
    assert not found(model, "dead-channel", calibration_data=data)


# The channels need the ranges -1.27 to 0.635, 0 to 0.0127 and 0 to 0.0254.
WASTED = [[0.635, 0.0127, 0.0254], [-1.27, 0.0, 0.0127]]


def test_wasted_weight_range_names_the_channel():
    (finding,) = found(dense(WASTED), "wasted-weight-range", "uint8")
    assert finding.tensor == "dense/kernel" and "channel 0" in finding.message
    # -1.27 to 0.635 is 254 steps of 0.0075. The median channel uses 3.39 of them.
    assert "no more than 3.4 of 254 steps" in finding.message
    (finding,) = found(dense(WASTED), "wasted-weight-range", "int8_per_tensor")
    assert "no more than 5.1 of 254 steps" in finding.message  # 254 steps from -1.27 to 1.27
    assert not found(dense(WASTED), "wasted-weight-range", "int8")
    # 254 * 0.02 / 1.27 steps. The mean of the two channels would be 129 steps.
    (finding,) = found(dense([[1.27, 0.02]]), "wasted-weight-range", "uint8")
    assert "no more than 4.0 of 254 steps" in finding.message


@pytest.mark.parametrize("scheme", ["uint8", "int8_per_tensor"])
def test_wasted_weight_range_ignores_similar_channels(scheme):
    assert not found(dense([[1.27, 0.2, -0.3]]), "wasted-weight-range", scheme)
    assert not found(
        dense([[1.27, 0.0, 0.0]]), "wasted-weight-range", scheme
    )  # one channel is not zero
    assert not found(dense([[0.0, 0.0]]), "wasted-weight-range", scheme)


def pressed(bias):
    # 4096 inputs from 0 to 255e-7 have steps of 1e-7. Weights of 1 need a scale of 1 / 127.
    return dense(np.ones((4096, 2)), [0.0, bias])


SMALL = np.full((40, 4096), 255e-7, "float32")
SMALL[0] = 0


def test_bias_saturates_names_a_bias_that_costs_steps_of_weights():
    (finding,) = found(pressed(1.0), "bias-saturates", calibration_data=SMALL)
    assert (finding.layer, finding.tensor) == ("dense", "dense/bias")
    # 1 / (2**29 * 1e-7) = 0.018626, times 127.
    assert "2.37 times larger" in finding.message and "channel 1" in finding.message
    assert "drop_bias" in str(finding)
    assert not found(pressed(0.8), "bias-saturates", calibration_data=SMALL)  # 1.89 times


def test_bias_saturates_needs_a_range():
    assert not found(pressed(1e9), "bias-saturates")
    qat = keras_qat.quantize_model(pressed(1.0))
    assert not found(qat, "bias-saturates")
    keras_qat.calibrate(qat, SMALL, verbose=0)
    assert len(found(qat, "bias-saturates")) == 1


def test_bias_saturates_ignores_tiny_weights():
    kernel = np.stack([np.full(16, 1e-3), np.full(16, 1.0)], axis=-1)
    assert not found(dense(kernel, [1.0, 0.0]), "bias-saturates", calibration_data=SMALL[:, :16])
    (finding,) = found(dense(kernel, [0.0, 1e3]), "bias-saturates", calibration_data=SMALL[:, :16])
    assert "as large as 1000 (channel 1)" in finding.message


def spiky(largest):
    """Makes an identity and 1,200 values in 0..1. One value differs."""
    data = np.linspace(0.0, 1.0, 1200, dtype="float32").reshape(40, 30)
    data[7, 3] = largest
    return dense(np.eye(30), activation="relu"), data


def test_wide_activation_range_of_rare_values():
    model, data = spiky(100.0)
    finding = found(model, "wide-activation-range", calibration_data=data)[-1]
    # A step is 100 / 255, and 98 % of the values have a range of about 0.99.
    assert finding.layer == "dense" and "fall into 2.5 of 255 steps" in finding.message
    assert "100, is in channel 3" in finding.message
    model, data = spiky(15.0)  # 17 steps
    assert not found(model, "wide-activation-range", calibration_data=data)


def test_wide_activation_range_of_one_channel():
    x = keras.Input((4, 4, 3), name="x")
    norm = layers.BatchNormalization(name="norm")
    model = keras.Model(x, norm(layers.Conv2D(3, 1, name="conv")(x)))
    norm.gamma.assign([1.0, 1.0, 20.0])
    (finding,) = found(model, "wide-activation-range")
    # The range is -120 to 120. The other channels use 12: 12 / (240 / 255) = 12.75 steps.
    assert finding.layer == "conv" and "fall into 12.7 of 255 steps" in finding.message
    norm.gamma.assign([1.0, 1.0, 15.0])
    assert not found(model, "wide-activation-range")


@pytest.mark.parametrize(("activation", "count"), [("relu", 1), ("relu6", 0)])
def test_wide_activation_range_is_bounded_by_the_activation(activation, count):
    # Channels from 0 to 6 and from 0 to 120: 12.75 steps. With relu6 both end at 6.
    x = keras.Input((4, 4, 3), name="x")
    norm = layers.BatchNormalization(name="norm")
    y = norm(layers.Conv2D(3, 1, name="conv")(x))
    model = keras.Model(x, layers.Activation(activation)(y))
    norm.gamma.assign([1.0, 1.0, 20.0])
    assert len(found(model, "wide-activation-range")) == count


def test_wide_activation_range_ignores_a_mask():
    data = np.zeros((40, 30), "float32")
    data[:, 0] = np.linspace(0.95, 1.0, 40)
    assert not found(dense(np.eye(30)), "wide-activation-range", calibration_data=data)


def test_wide_activation_range_ignores_a_sparse_tensor():
    data = np.zeros((32, 30), "float32")
    data[0, :7] = [0.01, 0.02, 0.03, 0.04, 0.05, 0.6, 1.0]
    assert not found(dense(np.eye(30)), "wide-activation-range", calibration_data=data)


def test_wide_activation_range_of_values_far_from_zero():
    data = np.random.default_rng(0).uniform(100, 101, (40, 30)).astype("float32")
    model = dense(np.eye(30))
    assert found(model, "wide-activation-range", calibration_data=data)[0].layer == "x"


def features(scales, seed=0, count=128):
    return (np.random.default_rng(seed).normal(size=(count, len(scales))) * scales).astype(
        "float32"
    )


def wide(model, data):
    found = keras_qat.check(model, calibration_data=data).findings
    return [each for each in found if each.code == "wide-activation-range"]


def adapted(data):
    norm = keras.layers.Normalization(name="norm")
    norm.adapt(data)
    return keras.Sequential(
        [keras.Input((data.shape[1],), name="features"), norm, keras.layers.Dense(8, name="dense")]
    )


def test_wide_activation_range_names_channels_of_an_input_and_a_fix():
    data = features([0.5, 5, 50, 300])
    (found,) = wide(adapted(data), data)
    assert (found.layer, found.tensor) == ("features", "features_quantize")
    assert "channel 3" in found.message and "2 channels, 0, 1. Rounding" in found.message
    assert 'overrides={"norm": None}' in str(found.fix)


def test_wide_activation_range_ignores_channels_of_similar_size():
    data = features([1, 2, 3, 10])
    assert wide(adapted(data), data) == []


def test_wide_activation_range_names_channels_of_an_output():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, name="both")])
    kernel = np.random.default_rng(0).normal(size=(8, 6)) * [100, 100, 100, 100, 1, 1]
    model.layers[-1].kernel.assign(kernel)
    (found,) = wide(model, features([1] * 8))
    assert found.layer == "both" and "separate outputs" in str(found.fix)


@pytest.mark.parametrize("seed", some_quick(range(6), 0, 5))
def test_wide_activation_range_of_one_outlier_in_500_samples(seed):
    seeds.seed(seed)
    model = keras.Sequential(
        [
            keras.Input((16,), name="in"),
            keras.layers.Dense(32, activation="relu", name="first"),
            keras.layers.Dense(4, name="second"),
        ]
    )
    data = features([1] * 16, seed, count=500)
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, data, verbose=0)
    assert wide(qat, data) == []
    for layer, ends in zip(("in_quantize", "first", "second"), (4, 10, 5), strict=True):
        observer = qat.get_layer(layer).observer
        observer.widen(-100.0 * ends, 100.0 * ends)  # one sample is 100 times as large
    assert [each.layer for each in wide(qat, data)] == ["in", "first", "second"]
