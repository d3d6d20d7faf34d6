"""The profile of XNNPACK against the operators that LiteRT's plan leaves to other kernels."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.litert import to_bytes
from keras_qat.lowering import lower_model
from keras_qat.targets import fast_kernels, get_target, violations
from keras_qat.targets.slow import slow_operators
from tests.delegates import undelegated
from tests.layers.contract import Prepared
from tests.layers.test_contract import CASES
from tests.models import quantized

# Products with a constant that has a batch axis. The interpreter gives no reason.
UNKNOWN = {"merge_with_constants": {"MUL"}}


def verdict(model):
    kernels = fast_kernels(get_target("litert"))
    assert kernels is not None
    return {(each.tensor, each.operator) for each in violations(model, kernels)}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_xnnpack_verdict_on_each_operator(case):
    model = lower_model(Prepared(case).quantized)
    differing = verdict(model) ^ set(undelegated(to_bytes(model))[0])
    assert {code for _, code in differing} <= UNKNOWN.get(case.name, set())


def mixed():
    """Makes operators that XNNPACK takes, and operators that it does not take."""
    x = keras.Input((16, 16, 16), name="image")
    y = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv")(x)
    parts = [layers.Conv2D(4, 1, name=f"part{i}")(y) for i in range(6)]
    y = layers.Concatenate(name="five")(parts[:5])
    y = layers.Concatenate(name="six")([y, *parts[1:], parts[0]][:6])
    y = layers.AveragePooling2D(2, name="pool")(layers.MaxPooling2D(2, name="max")(y))
    y = layers.Activation("softplus", name="looked_up")(layers.UpSampling2D(4, name="up")(y))
    y = layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="transposed")(y)
    y = layers.Flatten(name="flatten")(y)
    odd = layers.Dense(4, name="odd")(layers.Dense(5, name="even")(y))
    return keras.Model(x, [layers.Softmax(name="softmax")(y), odd])


@pytest.mark.parametrize("scheme", ["int8", "uint8", "int4"])
def test_xnnpack_verdict_on_a_network(scheme):
    data = np.random.default_rng(0).normal(size=(2, 16, 16, 16)).astype("float32")
    qat = keras_qat.quantize_model(mixed(), scheme, calibration_data=data)
    for size in (None, 1):
        model = lower_model(qat, batch_size=size)
        assert verdict(model) == set(undelegated(to_bytes(model))[0])


def test_slow_operators_are_listed_by_kind():
    data = np.zeros((2, 16, 16, 16), "float32")
    kernels = fast_kernels(get_target("litert"))
    assert kernels is not None
    found = {
        each.operator: each
        for each in slow_operators(lower_model(quantized(mixed(), data)), kernels)
    }
    assert found["AVERAGE_POOL_2D"].layers == ("pool",)
    assert found["AVERAGE_POOL_2D"].elements == 8 * 8 * 40
    assert found["SOFTMAX"].factor == kernels.factors["SOFTMAX int8"]
    assert not {"CONV_2D", "MAX_POOL_2D", "CAST"} & found.keys()
