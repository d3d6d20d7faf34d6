"""Biases and sums of products never overflow: extreme layers against LiteRT and float64."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.litert import Runner
from tests.layers.litert_files import exported
from tests.models import called
from tests.quick import some_quick

layers = keras.layers
MAKE = {
    "dense": (lambda: layers.Dense(3, name="it"), (6,)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, name="it"), (4, 4, 3)),
    "conv": (lambda: layers.Conv2D(3, 3, name="it"), (4, 4, 3)),
    "long": (lambda: layers.Dense(2, name="it"), (100_000,)),
}


def quantized(make, shape, scheme, kernel, bias, spread, reach):
    """Quantizes one layer with an input from -spread to spread and a given output range."""
    layer = make()
    model = keras.Sequential([keras.Input(shape, name="x"), layer])
    layer.kernel.assign(np.broadcast_to(kernel, layer.kernel.shape))
    layer.bias.assign(np.broadcast_to(bias, layer.bias.shape))
    result = keras_qat.quantize_model(model, scheme)
    for name, limits in (("x_quantize", (-spread, spread)), ("it", reach)):
        result.get_layer(name).observer.widen(*limits)
    return result


def assert_no_overflow(model):
    """Checks in int64 that the layer's integers cannot sum to more than int32 holds."""
    layer = model.get_layer("it")
    scales = (each.grid().scale for each in (layer.neighbours.inputs[0], layer.neighbours.output))
    integers = layer.integer_weights(*scales)
    kernel, bias = (np.asarray(each).astype("int64") for each in (integers.kernel, integers.bias))
    axes = (0, 1) if layer.name == "it" and hasattr(layer, "depth_multiplier") else None
    axes = axes or tuple(range(kernel.ndim - 1))
    assert np.all(255 * np.abs(kernel).sum(axes).ravel() + np.abs(bias) < 2**31)


def compare(model, x):
    """Checks that Keras equals LiteRT. Returns the integers, the inputs and the output tensor."""
    content = exported(model)
    results = []
    for kernels in ("default", "reference"):
        runner = Runner(content, kernels=kernels)
        (details,), (output,) = runner.inputs, runner.outputs
        limits = np.iinfo(details.dtype)
        q = np.clip(np.rint(x / details.scale) + details.zero_point, limits.min, limits.max)
        results.append(runner.run([q.astype(details.dtype)])[0].astype("int64"))
    real = ((q - details.zero_point) * details.scale).astype("float32")
    steps = called(model, real).astype("float64") / output.scale
    mine = np.rint(steps) + output.zero_point
    np.testing.assert_array_equal(mine, results[0])
    assert np.abs(results[0] - results[1]).max() <= 1  # they round differently
    return mine, real.astype("float64"), output


@pytest.mark.one_in(5)
@pytest.mark.parametrize("scheme", some_quick(["int8", "uint8"], 0))
@pytest.mark.parametrize("spread", some_quick([1e-9, 1.0, 1e9], 0, 2))
@pytest.mark.parametrize("bias", [-1e30, 1e9])
@pytest.mark.parametrize("kind", ["dense", "depthwise", "conv"])
def test_accumulators_with_biases_of_any_size(kind, bias, spread, scheme):
    rng = np.random.default_rng(0)
    make, shape = MAKE[kind]
    reach = min(bias, -2e9), max(bias, 2e9)
    model = quantized(make, shape, scheme, 0.01, bias, spread, reach)
    assert_no_overflow(model)
    q, _, output = compare(model, rng.uniform(-spread, spread, (2, *shape)).astype("float32"))
    # The bias, and the sum of up to 27 weights of 0.01.
    away = np.abs(q - output.zero_point - bias / float(output.scale[0]))
    assert away.max() <= 1 + 27 * 0.01 * spread / output.scale[0]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("scheme", ["int8", "uint8"])
@pytest.mark.parametrize("bias", [0.0, 5e4])
@pytest.mark.parametrize("kernel", [1.0, "normal"])
def test_accumulators_of_100_000_products(kernel, bias, scheme):
    """With integers of 127 and 255 the sum would be 3.2e9, which overflows to a negative number."""
    make, shape = MAKE["long"]
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(*shape, 2)).astype("float32") if kernel == "normal" else kernel
    model = quantized(make, shape, scheme, kernel, bias, 1.0, (-2e5, 2e5))
    assert_no_overflow(model)
    x = np.concatenate([np.ones((1, *shape)), rng.uniform(-1, 1, (2, *shape))]).astype("float32")
    q, real, output = compare(model, x)
    exact = (real @ np.broadcast_to(kernel, (*shape, 2)).astype("float64") + bias) / output.scale
    assert np.abs(q - output.zero_point - exact).max() <= 2.0


@pytest.mark.parametrize("scheme", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("kernel", "bias", "spread"),
    [(0.01, 1e9, 1.0), (0.01, 1e30, 1.0), (1e6, 0.0, 1.0), (0.01, 3e38, 1e-9)],
)
@pytest.mark.parametrize("kind", ["dense", "depthwise"])
def test_export_refuses_accumulators_that_no_kernel_can_scale(
    kind, kernel, bias, spread, scheme, tmp_path
):
    """The reference kernels would overflow, and XNNPACK would refuse the file."""
    make, shape = MAKE[kind]
    model = quantized(make, shape, scheme, kernel, bias, spread, (-1.0, 1.0))
    with pytest.raises(UnsupportedLayerError, match="too large for the range.*'it'"):
        keras_qat.export_litert(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_training_of_long_sums_equals_inference():
    make, shape = MAKE["long"]
    model = quantized(make, shape, "int8", 1.0, 0.0, 1.0, (-2e5, 2e5))
    x = np.full((1, *shape), 0.5, "float32")
    trained, inferred = (np.asarray(model(x, training=mode)) for mode in (True, False))
    np.testing.assert_allclose(trained, inferred, atol=4e5 / 255)
