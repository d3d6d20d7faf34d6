"""Layers that stay in float: the operators of the file, the boundaries, and the results."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidOverrideError, UnsupportedLayerError
from tests.layers.litert_files import exported, operators_of, run_litert
from tests.models import called
from tests.quick import some_quick

FLOAT_ENDS = {"inference_input_type": "float32", "inference_output_type": "float32"}
UINT8_ENDS = {"inference_input_type": "uint8", "inference_output_type": "uint8"}


def images(count=16):
    return np.random.default_rng(0).normal(size=(count, 6, 6, 3)).astype("float32")


def residual():
    """Makes a residual block with batch normalization, pooling and a head."""
    inputs = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv2")(x)
    y = layers.Conv2D(4, 3, padding="same", name="conv3")(y)
    x = layers.ReLU(name="relu2")(layers.Add(name="add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


def quantized(model, overrides, data=None):
    model = keras_qat.quantize_model(model, overrides=overrides)
    keras_qat.calibrate(model, images() if data is None else data, verbose=0)
    return model


def operators(overrides, ends=None, build=residual, data=None):
    """Returns the abbreviated operators of the file. Q and D are boundaries, C is a convolution."""
    short = {"QUANTIZE": "Q", "DEQUANTIZE": "D", "CONV_2D": "C", "FULLY_CONNECTED": "F"}
    short |= {"ADD": "+", "MEAN": "M", "RELU": "R", "DEPTHWISE_CONV_2D": "N", "MAX_POOL_2D": "P"}
    content = exported(quantized(build(), overrides, data), **(ends or {}))
    return " ".join(short.get(code, code) for code in operators_of(content))


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, "C C C + M F"),
        ({"conv1": "int8"}, "C C C + M F"),
        ({"conv2": None}, "C D C Q C + M F"),  # the middle
        ({"conv2": None, "conv3": None}, "C D C C Q + M F"),  # a branch of the block, two adjacent
        ({"conv1": None}, "D C Q C C + M F"),  # the first, with its fused layers
        ({"head": None}, "C C C + M D F Q"),  # the last
        ({"relu1": None}, "C D R Q C C + M F"),  # only the activation
        ({"bn1": None}, "C D N Q C C + M F"),  # with the activation after it, which is fused
        ({"conv1": None, "relu1": "int8"}, "D C Q + C C + M F"),
        ({"add": None}, "C C C D D + Q M F"),
        ({".*": None, "conv2": "int8"}, "D C Q C D C + M F Q"),  # all but one
        ({".*": None}, "D C C C + M F Q"),
        ({layers.Conv2D: None}, "D C Q C C Q + M F"),  # a class, and its name
        ({"Conv2D": None}, "D C Q C C Q + M F"),
        ({r"conv[23]": None}, "C D C C Q + M F"),  # a regular expression
        ({"conv.": None, "conv3": "int8"}, "D C C Q Q C + M F"),  # a name wins
        ({"conv3": None, "conv2": "int8"}, "C C D C Q + M F"),
    ],
    ids=str,
)
def test_overrides_convert_only_where_schemes_change(overrides, expected):
    assert operators(overrides) == expected


@pytest.mark.parametrize(
    ("overrides", "ends", "expected"),
    [
        ({"conv1": None}, FLOAT_ENDS, "C Q C C + M F D"),
        ({"head": None}, FLOAT_ENDS, "Q C C C + M D F"),
        ({".*": None}, FLOAT_ENDS, "C C C + M F"),
        ({"conv1": None}, UINT8_ENDS, "D C Q C C + M F Q"),
        ({"head": None}, UINT8_ENDS, "Q C C C + M D F Q"),
        ({".*": None}, UINT8_ENDS, "D C C C + M F Q"),
    ],
)
def test_overrides_keep_the_types_of_inputs_and_outputs(overrides, ends, expected):
    assert operators(overrides, ends) == expected


def test_overrides_convert_each_tensor_once():
    def build():
        inputs = keras.Input((6, 6, 3))
        x = layers.Conv2D(3, 1, name="source")(inputs)
        a, b = layers.Conv2D(3, 1, name="float1")(x), layers.Conv2D(3, 1, name="float2")(x)
        y = layers.Conv2D(3, 1, name="int1")(a), layers.Conv2D(3, 1, name="int2")(a)
        return keras.Model(inputs, [*y, a, b])

    overrides = {"float.": None}
    # The later layers take the output `a`, too.
    assert operators(overrides, build=build) == "C D C Q C Q C C"
    assert operators(overrides, FLOAT_ENDS, build=build) == "Q C D C C Q C C D D"


def test_overrides_round_an_input_for_integer_layers_only():
    def build():
        inputs = keras.Input((6, 6, 3))
        return keras.Model(inputs, [layers.Conv2D(2, 1, name=name)(inputs) for name in "ab"])

    assert operators({"a": None}, FLOAT_ENDS, build=build) == "Q C C D"
    assert operators({"a": None}, build=build) == "D C C Q"


def test_overrides_of_the_first_layer_take_pixels():
    def build():
        inputs = keras.Input((6, 6, 3), dtype="uint8")
        x = layers.Rescaling(1 / 255, -0.5, name="scale")(inputs)
        return keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(x))

    pixels = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 3)).astype("uint8")
    assert operators({"scale": None}, build=build, data=pixels) == "D N Q C"
    assert operators({"conv": None, "scale": None}, FLOAT_ENDS, build=build, data=pixels) == "C"


def test_overrides_need_no_conversion_for_layers_without_operator():
    def build():
        inputs = keras.Input((6, 6, 3))
        x = layers.GaussianNoise(0.1, name="noise")(inputs)
        x = layers.Dropout(0.1, name="drop1")(layers.Conv2D(4, 1, name="a")(x))
        x = layers.Dropout(0.1, name="drop2")(layers.Conv2D(4, 1, name="b")(x))
        return keras.Model(inputs, x)

    assert operators({"drop1": None}, build=build) == "C C"
    assert operators({"drop.": None, "noise": None}, FLOAT_ENDS, build=build) == "Q C C D"
    assert operators({"a": None}, FLOAT_ENDS, build=build) == "C Q C D"
    assert operators({"b": None}, FLOAT_ENDS, build=build) == "Q C D C"


def test_overrides_of_a_pooling_separate_ranges():
    def build():
        inputs = keras.Input((6, 6, 3))
        x = layers.MaxPooling2D(2, name="pool")(layers.Conv2D(4, 1, name="conv")(inputs))
        return keras.Model(inputs, layers.Conv2D(2, 1, name="last")(x))

    assert operators({"pool": None}, build=build) == "C D P Q C"
    model = quantized(build(), {"pool": None})
    behind = model.get_layer("last").neighbours.inputs[0]
    assert behind is model.get_layer("pool_quantize").neighbours.output
    assert behind is not model.get_layer("conv").neighbours.output


def test_overrides_of_a_nested_model_apply_to_all_its_layers():
    def build():
        inner = keras.Sequential(
            [keras.Input((6, 6, 3)), layers.Conv2D(3, 1, name="a"), layers.Conv2D(3, 1, name="b")],
            name="inner",
        )
        inputs = keras.Input((6, 6, 3))
        x = layers.Conv2D(3, 1, name="before")(inputs)
        return keras.Model(inputs, layers.Conv2D(3, 1, name="behind")(inner(x)))

    assert operators({"inner": None}, build=build) == "C D C C Q C"
    assert operators({"b": None}, build=build) == "C C D C Q C"
    assert operators({"inner": None, "b": "int8"}, build=build) == "C D C Q C C"
    assert operators({"inner": None, "behind": None}, build=build) == "C D C C C Q"


def test_overrides_apply_to_all_layers_that_a_layer_becomes():
    def build():
        inputs = keras.Input((6, 6, 3))
        x = layers.Conv2D(4, 1, name="before")(inputs)
        x = layers.SeparableConv2D(4, 3, activation="relu", name="separable")(x)
        x = layers.Reshape((16, 4), name="tokens")(layers.BatchNormalization(name="bn")(x))
        x = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
        return keras.Model(inputs, layers.Dense(3, name="head")(x))

    found = operators({"separable": None}, build=build)
    assert found.startswith("C D N C Q ") and found.count("D") == 1
    codes = operators({"attention": None}, FLOAT_ENDS, build=build).split()
    assert codes.count("D") == 2 and codes.count("Q") == 2  # one at the input and one at the output
    assert codes.index("D") < codes.index("SOFTMAX") < codes.index("Q", 1)


def test_overrides_of_a_shared_layer_apply_to_all_calls():
    def build():
        shared, inputs = layers.Dense(3, name="shared"), keras.Input((3,))
        x = layers.Dense(3, name="between")(shared(inputs))
        return keras.Model(inputs, layers.Dense(2, name="last")(shared(x)))

    data = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    assert operators({"shared": None}, FLOAT_ENDS, build, data) == "F Q F D F Q F D"


def test_overrides_of_all_layers_equal_keras():
    float_model, x = residual(), images()
    model = quantized(float_model, {".*": None})
    exact = called(float_model, x)
    np.testing.assert_allclose(called(model, x), exact, rtol=0, atol=1e-5)
    tensors, (name,) = run_litert(exported(model, **FLOAT_ENDS), [x])
    np.testing.assert_allclose(tensors[name][0], exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "overrides", some_quick([{"conv2": None}, {"conv1": None, "head": None}], 1), ids=str
)
def test_overrides_train_and_are_saved(overrides, tmp_path):
    model, x = quantized(residual(), overrides), images(32)
    before = [w.numpy() for w in model.trainable_weights]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, np.arange(32) % 5, epochs=2, verbose=0)
    assert all(np.any(w.numpy() != b) for w, b in zip(model.trainable_weights, before, strict=True))
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(model, path)
    assert keras_qat.verify(model, path, x, verbose=0).exact
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(called(loaded, x), called(model, x))
    keras_qat.export_litert(loaded, tmp_path / "loaded.tflite")
    assert (tmp_path / "loaded.tflite").read_bytes() == path.read_bytes()


def test_overrides_get_boundary_ranges_from_training():
    model = keras_qat.quantize_model(residual(), overrides={"conv1": None, "head": None})
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images(), np.arange(16) % 5, verbose=0)
    assert operators_of(exported(model))[0] == "DEQUANTIZE"


def test_overrides_of_a_clone():
    clone = keras_qat.clone_model(residual())
    model = quantized(clone, {"conv2": None})
    assert [o for o in operators_of(exported(model)) if "QUANT" in o] == ["DEQUANTIZE", "QUANTIZE"]
    with pytest.raises(InvalidOverrideError, match="relu9"):
        keras_qat.quantize_model(clone, overrides={"relu9": None})


def test_overrides_refuse_a_layer_without_a_float_form():
    class QOdd(keras_qat.layers.QuantizedLayer):
        def float_forward(self, inputs, training=None):
            return inputs

        def lower(self, builder, *inputs):
            self._neighbours()
            return inputs[0]

    x = keras.Input((3,))
    model = keras.Model(x, QOdd(name="odd")(layers.Dense(3, name="dense")(x)))
    with pytest.raises(UnsupportedLayerError, match="integer form only.*'odd'.*To fix it"):
        keras_qat.quantize_model(model, overrides={"odd": None})
