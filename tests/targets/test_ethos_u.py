"""The profile "ethos-u" against vela: both leave the same operators to the CPU."""

import importlib.util

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import keras_qat
from keras_qat.litert import to_bytes
from keras_qat.lowering import lower_model
from keras_qat.targets import get_target, violations
from tests.layers.cases import branches, layer, randomize
from tests.layers.contract import Prepared
from tests.layers.test_contract import CASES
from tests.vela import compiled_by_vela

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ethosu") is None,
        reason="needs ethos-u-vela: pip install -e '.[vela]'",
    ),
]


def left_to_cpu(model):
    """Returns the first outputs of the operators that vela leaves to the CPU."""
    compiled = schema.ModelT.InitFromPackedBuf(compiled_by_vela(to_bytes(model)))
    graph, custom = compiled.subgraphs[0], schema.BuiltinOperator.CUSTOM
    left = [
        op for op in graph.operators if compiled.operatorCodes[op.opcodeIndex].builtinCode != custom
    ]
    return {graph.tensors[op.outputs[0]].name.decode() for op in left}


def unproven(model):
    """Returns the tensors for which the profile claims nothing.

    These are int32 products, of which vela takes some, and what it takes of int32 tensors with a
    zero point. The kernels on the CPU, which run the rest of the file, have neither.
    """

    def is_shifted(tensor):
        has_zero_point = tensor.quantization is not None and tensor.quantization.zero_point.any()
        return tensor.dtype == "int32" and has_zero_point

    return {
        op.outputs[0].name
        for op in model.operators
        if any(map(is_shifted, [*filter(None, op.inputs), *op.outputs]))
        or (op.code == "BATCH_MATMUL" and op.outputs[0].dtype == "int32")
    }


def verdict(model):
    return {each.tensor for each in violations(model, get_target("ethos-u"))}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ethos_u_verdict_on_each_operator(case):
    model = lower_model(Prepared(case).quantized)
    assert verdict(model) - unproven(model) == left_to_cpu(model) - unproven(model)


WINDOWS = branches(
    (32, 30, 3),
    [layer(layers.Conv2D, 4, 3, strides=4)],
    [layer(layers.Conv2D, 4, 7, strides=4, padding="same")],
    [layer(layers.Conv2D, 4, 1, strides=5)],
    [layer(layers.DepthwiseConv2D, 3, strides=3)],
    [layer(layers.DepthwiseConv2D, 3, strides=4)],
    [layer(layers.DepthwiseConv2D, 3, depth_multiplier=2)],
    [layer(layers.MaxPooling2D, 4)],
    [layer(layers.MaxPooling2D, 5, strides=4, padding="same")],
    [layer(layers.MaxPooling2D, 9, strides=1, padding="same")],
    [layer(layers.AveragePooling2D, 4)],
    [layer(layers.AveragePooling2D, 8, strides=1, padding="same")],
    [layer(layers.AveragePooling2D, 9, strides=1, padding="same")],
    [layer(layers.AveragePooling2D, 9, strides=1)],
    [layer(layers.AveragePooling2D, 6, strides=5, padding="same")],
)
SIZES = branches(
    (4, 6, 8),
    [layer(layers.UpSampling2D, 2, interpolation="bilinear")],
    [layer(layers.UpSampling2D, 4, interpolation="bilinear")],
    [layer(layers.UpSampling2D, 2)],
    [layer(layers.UpSampling2D, 8)],
    [layer(layers.UpSampling2D, 16)],
    [layer(layers.UpSampling2D, (1, 2))],
    [layer(layers.Conv2DTranspose, 3, 3, strides=1)],
    [layer(layers.Conv2DTranspose, 3, 2, strides=2)],
    [layer(layers.Conv2DTranspose, 3, 4, strides=2, padding="same")],
    [layer(layers.Conv2DTranspose, 3, 4, strides=4)],
    [layer(layers.Conv2DTranspose, 3, (1, 2), strides=(1, 2))],
    [layer(layers.Permute, (2, 1, 3))],
    [layer(layers.Permute, (3, 2, 1))],
)
ROW = branches(
    (1, 6, 8),
    [layer(layers.Conv2DTranspose, 3, (1, 2), strides=(1, 2))],
    [layer(layers.Conv2DTranspose, 3, (2, 2), strides=(1, 2))],
    [layer(layers.UpSampling2D, (1, 2))],
    [layer(layers.UpSampling2D, (1, 4), interpolation="bilinear")],
    [layer(layers.UpSampling2D, (4, 1))],
)


@pytest.mark.parametrize("build", [WINDOWS, SIZES, ROW], ids=["windows", "sizes", "row"])
def test_ethos_u_verdict_at_the_limits(build):
    """Models on both sides of limits that no contract case reaches."""
    model, rng = build(), np.random.default_rng(0)
    randomize(model, rng)
    quantized = keras_qat.quantize_model(model)
    data = rng.normal(size=(4, *model.input_shape[1:])).astype("float32")
    keras_qat.calibrate(quantized, data, verbose=0)
    lowered = lower_model(quantized)
    assert verdict(lowered) == left_to_cpu(lowered)
    assert verdict(lowered), "nothing beyond a limit"


def test_ethos_u_verdict_on_a_softmax_of_more_than_65536_positions():
    x = keras.Input((257, 256, 2))
    quantized = keras_qat.quantize_model(keras.Model(x, layers.Softmax(name="classes")(x)))
    keras_qat.calibrate(quantized, np.ones((1, 257, 256, 2), "float32"), verbose=0)
    lowered = lower_model(quantized)
    assert verdict(lowered) == left_to_cpu(lowered) == {"classes"}


def test_vela_stops_at_weights_of_4_bits():
    x = keras.Input((6, 6, 4), batch_size=1)
    float_model = keras.Model(x, keras.layers.Conv2D(4, 3)(x))
    model = keras_qat.quantize_model(float_model, "int4", storage="packed")
    keras_qat.calibrate(model, np.ones((1, 6, 6, 4), "float32"), verbose=0)
    lowered = lower_model(model)
    assert [each.level for each in violations(lowered, get_target("ethos-u"))] == ["error"]
    with pytest.raises(AssertionError):  # no file was compiled
        compiled_by_vela(to_bytes(lowered))
