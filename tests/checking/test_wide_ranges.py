"""wide-activation-range: found exactly where its advice measurably helps."""

import re

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from tests import seeds
from tests.models import called
from tests.quick import some_quick


def wide(model, data, **options):
    found = keras_qat.check(model, calibration_data=data, **options).warnings
    return [each for each in found if each.code == "wide-activation-range"]


def decibels(exact, quantized):
    signal = np.square(exact - exact.mean(axis=0)).sum()
    return 10 * np.log10(signal / np.square(exact - quantized).sum())


def ratio(model, data, overrides=None):
    """Returns the signal-to-noise ratio of the quantized model."""
    qat = keras_qat.quantize_model(model, overrides=overrides)
    keras_qat.calibrate(qat, data, verbose=0)
    exact = called(model, data)
    return decibels(exact, called(qat, data))


def advised(finding):
    return dict.fromkeys(re.findall(r'"([^"]+)": None', finding.fix))


def hidden_channels(sizes, *, are_used, seed, between=()):
    """Makes hidden channels of different size. The next layer equalizes or ignores them."""
    seeds.seed(seed)
    first = layers.Dense(len(sizes), activation="relu", name="first")
    last = layers.Dense(4, name="last")
    tail = layers.Dense(4, name="tail")
    model = keras.Sequential([keras.Input((16,), name="x"), first, *between, last, tail])
    first.kernel.assign(first.kernel * sizes)
    if are_used:
        last.kernel.assign(last.kernel / sizes[:, None])
    return model


SIZES = np.array([300.0] * 6 + [1.0] * 26, "float32")
DATA = np.random.default_rng(0).normal(size=(128, 16)).astype("float32")


@pytest.mark.parametrize("seed", some_quick(range(3), 0))
def test_wide_activation_range_of_narrow_channels_with_effect(seed):
    model = hidden_channels(SIZES, are_used=True, seed=seed)
    (found,) = wide(model, DATA)
    assert (found.layer, advised(found)) == ("first", {"first": None, "last": None})
    stated = re.findall(r"the outputs (-?\d+) dB", found.message)
    assert len(stated) == 1 and float(stated[0]) < 20
    assert ratio(model, DATA) < 20
    assert ratio(model, DATA, advised(found)) > ratio(model, DATA) + 15


def test_wide_activation_range_names_the_layers_that_move_the_tensor():
    pool = layers.MaxPooling1D(1, name="pool")
    moves = layers.Reshape((8, 4), name="reshape"), pool, layers.Flatten(name="flatten")
    model = hidden_channels(SIZES, are_used=True, seed=0, between=moves)
    (found,) = wide(model, DATA)
    assert list(advised(found)) == ["first", "reshape", "pool", "flatten", "last"]
    assert ratio(model, DATA, advised(found)) > ratio(model, DATA) + 15


@pytest.mark.parametrize("seed", some_quick(range(3), 0))
def test_wide_activation_range_ignores_narrow_channels_of_little_effect(seed):
    model = hidden_channels(SIZES, are_used=False, seed=seed)
    assert ratio(model, DATA) > 30
    assert wide(model, DATA) == []


def detector(is_joined):
    """Makes boxes in pixels and scores from 0 to 1, with equal weights whether joined or not."""
    seeds.seed(1)
    x = keras.Input((16,), name="x")
    boxes = layers.Dense(4, name="boxes")(x)
    scores = layers.Dense(8, activation="sigmoid", name="scores")(x)
    outputs = layers.Concatenate(name="joined")([boxes, scores]) if is_joined else [boxes, scores]
    model = keras.Model(x, outputs)
    kernel = np.random.default_rng(1).normal(size=(16, 4)) * 60
    model.get_layer("boxes").kernel.assign(kernel)
    return model


def test_wide_activation_range_of_a_concatenation_asks_for_separate_outputs():
    joined, apart = detector(True), detector(False)
    (found,) = wide(joined, DATA)
    assert found.layer == "scores" and "shares with 'boxes'" in found.message
    advice = "Make separate outputs of the tensors that 'joined' joins: "
    assert found.fix is not None and found.fix.startswith(advice)
    code = found.fix.removeprefix(advice).strip("`.")
    split = eval(code, {"keras": keras, "model": joined})  # the text to paste
    assert split.output_names == ["boxes", "scores"] and wide(split, DATA) == []
    assert wide(apart, DATA) == []

    def scores(model):
        qat = keras_qat.quantize_model(model, calibration_data=DATA)
        return called(qat, DATA)

    exact = called(apart, DATA)[1]
    assert decibels(exact, scores(joined)[:, 4:]) < 5  # a step is larger than a score
    assert decibels(exact, scores(apart)[1]) > 30


def test_wide_activation_range_of_several_heads_names_the_last_concatenation():
    seeds.seed(1)
    x = keras.Input((16,), name="x")
    parts = {"boxes": ([], None), "scores": ([], "sigmoid")}
    for heads, activation in parts.values():
        heads += [layers.Dense(8, activation, name=f"{activation}{i}")(x) for i in range(2)]
    boxes, scores = (layers.Concatenate(name=name)(parts[name][0]) for name in parts)
    boxes = layers.Rescaling(300.0, name="pixels")(boxes)
    model = keras.Model(x, layers.Concatenate(name="joined")([boxes, scores]))
    found = wide(model, DATA)
    assert {each.layer for each in found} == {"sigmoid0", "sigmoid1"}
    assert all("shares with 'pixels'." in each.message for each in found)
    outputs = '[model.get_layer("pixels").output, model.get_layer("scores").output]'
    assert all(outputs in str(each.fix) for each in found)


def test_wide_activation_range_of_a_quantized_model_names_the_users_layers():
    qat = keras_qat.quantize_model(detector(True), calibration_data=DATA)
    found = keras_qat.check(qat, calibration_data=DATA).findings
    (found,) = [each for each in found if each.code == "wide-activation-range"]
    assert found.layer == "scores" and "shares with 'boxes'" in found.message
