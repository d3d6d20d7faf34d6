"""The profile "tflite-micro" against the runtime, for each operator and each file."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import keras_qat
from keras_qat.litert import Model, to_bytes
from keras_qat.litert.running.measured_tables import with_measured_tables
from keras_qat.litert.writing.static_shapes import static_shape, unknown_sizes
from keras_qat.lowering import lower_model
from keras_qat.targets import get_target, violations
from tests.layers.contract import Prepared, as_arrays
from tests.layers.litert_files import half_away
from tests.layers.test_contract import CASES
from tests.micro import needs_micro, run_on_micro

pytestmark = [needs_micro, pytest.mark.slow]

# Operators whose kernels compute other integers than LiteRT's reference kernels, with the largest
# difference. A step of a state changes later states.
DIFFERING = {"FULLY_CONNECTED": 1, "UNIDIRECTIONAL_SEQUENCE_LSTM": 3}


def static(tensor, sizes):
    """Returns the tensor with its shape for one sample."""
    if tensor is None or tensor.data is not None:
        return tensor
    return dataclasses.replace(tensor, shape=tuple(static_shape(tensor, sizes)))


def alone(operator, sizes):
    """Returns a file of one operator, valid inputs, and the number of outputs."""
    made = {x: static(x, sizes) for x in operator.inputs}
    outputs: tuple[Any, ...] = tuple(static(x, sizes) for x in operator.outputs)
    cut = dataclasses.replace(
        operator, inputs=tuple(made[x] for x in operator.inputs), outputs=outputs
    )
    known = (x for x in made.values() if x is not None and not x.is_variable)
    fed = {x.name: x for x in known if x.data is None}
    content = to_bytes(Model(fed, {x.name: x for x in outputs}, (cut,)))
    return content, [values_for(cut, x) for x in fed.values()], len(outputs)


def values_for(operator, tensor):
    rng = np.random.default_rng(0)
    if operator.code == "TRANSPOSE_CONV" and tensor is operator.inputs[0]:
        return np.array(operator.outputs[0].shape, "int32")
    low, high = (-100, 100) if tensor.dtype == "int8" else (1, 100)  # avoid a divisor of 0
    if operator.code == "GATHER" and tensor is operator.inputs[1]:
        low, high = 0, operator.inputs[0].shape[0]
    return rng.integers(low, high, tensor.shape).astype(tensor.dtype)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def prepared(request):
    return Prepared(request.param)


def by_litert(content, inputs):
    """Returns the outputs of LiteRT's reference kernel for the same integers."""
    interpreter = Interpreter(
        model_content=with_measured_tables(content),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    for details, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]


def largest_difference(ours, theirs):
    pairs = zip(ours, theirs, strict=True)
    return max(int(np.abs(a.astype("int64") - b.astype("int64")).max()) for a, b in pairs)


def test_tflite_micro_verdict_on_each_operator(prepared):
    """Operators that pass the profile run, and round as LiteRT's but for a few."""
    model = lower_model(prepared.quantized)
    sizes = unknown_sizes(model)
    files = [alone(each, sizes) for each in model.operators]
    refused = {each.tensor: each.code for each in violations(model, get_target("tflite-micro"))}
    wrong = {}
    for each, (content, inputs, _), result in zip(
        model.operators, files, run_on_micro(files), strict=True
    ):
        allowed = DIFFERING.get(each.code, 0)
        if result is None or largest_difference(result, by_litert(content, inputs)) > allowed:
            wrong[each.outputs[0].name] = each.code
    # A layer is refused for one of its operators. The profile claims nothing of its int32 sums.
    assert refused.keys() <= wrong.keys(), (refused, wrong)
    layers = [{name.partition("/")[0] for name in each} for each in (refused, wrong)]
    assert layers[0] == layers[1], (refused, wrong)


def test_tflite_micro_computes_what_keras_computes(prepared):
    """Inference equals the kernels of microcontrollers, if that is the target of the model."""
    model = lower_model(prepared.quantized)
    if violations(model, get_target("tflite-micro")):
        pytest.skip("does not run there")
    prepared.quantized.set_target("tflite-micro")
    found = as_arrays(prepared.quantized.predict(prepared.x, verbose=0))
    prepared.quantized.set_target("reference")
    integers = [
        as_integers(x, tensor)
        for x, tensor in zip(prepared.arrays, model.inputs.values(), strict=True)
    ]
    samples = range(4)
    files = [
        (prepared.content, [x[i : i + 1] for x in integers], len(model.outputs)) for i in samples
    ]
    for i, outputs in zip(samples, run_on_micro(files), strict=True):
        for y, expected, tensor in zip(outputs, found, model.outputs.values(), strict=True):
            grid, real = tensor.quantization, y
            if grid is not None:  # plain numbers have no scale
                real = (y.astype("float32") - np.float32(grid.zero_point[0])) * grid.scale[0]
            np.testing.assert_array_equal(real, expected[i : i + 1])


def as_integers(x, tensor):
    if tensor.quantization is None:
        return x.astype(tensor.dtype)
    scale, zero_point = tensor.quantization.scale[0], tensor.quantization.zero_point[0]
    return np.clip(half_away(x / scale) + zero_point, -128, 127).astype("int8")


@pytest.mark.parametrize("units", [1, 3])
def test_profile_agrees_with_the_runtime_on_weights_of_4_bits(units):
    x = keras.Input((6, 6, 4), batch_size=1)
    y = keras.layers.DepthwiseConv2D(3)(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(x, keras.layers.Dense(units)(keras.layers.Flatten()(y)))
    quantized = keras_qat.quantize_model(model, "int4", storage="packed")
    keras_qat.calibrate(quantized, np.ones((1, 6, 6, 4), "float32"), verbose=0)
    lowered = lower_model(quantized)
    narrow = [
        each
        for each in lowered.operators
        if any(x is not None and x.dtype == "int4" for x in each.inputs)
    ]
    results = run_on_micro([alone(each, unknown_sizes(lowered)) for each in narrow])
    refused = {each.code for each, result in zip(narrow, results, strict=True) if result is None}
    assert refused == {each.operator for each in violations(lowered, get_target("tflite-micro"))}
    assert refused == (set() if units == 1 else {"FULLY_CONNECTED"})
