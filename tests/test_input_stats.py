"""quantized_input_stats: the real values of an input's integers, in Keras and in the file."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_qat
from keras_qat.errors import DefaultRangesWarning, InputStatsWarning, InvalidInputStatsError
from keras_qat.layers import Requantize
from tests.models import called, randomized, small_images, small_network

PIXELS = np.random.default_rng(5).integers(0, 256, (12, 4, 4, 3), dtype="uint8")
UNIT = PIXELS / np.float32(255.0)


def signature_of(path, **arguments):
    return Interpreter(str(path), **arguments).get_signature_runner()


def details(path):
    """Returns the type and the quantization of each input of a file."""
    inputs = signature_of(path).get_input_details().items()
    return {name: (entry["dtype"].__name__, *entry["quantization"]) for name, entry in inputs}


def run(path, **inputs):
    """Returns the outputs of LiteRT's default kernels for integers as real values."""
    signature = signature_of(path)
    (entry,) = signature.get_output_details().values()
    scale, zero_point = entry["quantization"]
    (integers,) = signature(**inputs).values()
    return (integers.astype("float32") - np.float32(zero_point)) * np.float32(scale)


def exported(model, folder, **arguments):
    keras_qat.export_litert(model, folder / "model.tflite", **arguments)
    return folder / "model.tflite"


def small(data=None, scheme="int8", **stats):
    """Quantizes the small network. `stats` are the statistics of its inputs."""
    return keras_qat.quantize_model(
        small_network(), scheme, calibration_data=data, quantized_input_stats=stats
    )


def bytes_of(path, pixels=PIXELS):
    return run(path, image=pixels)


@pytest.mark.parametrize("scheme", ["int8", "uint8"])
def test_input_stats_let_a_file_of_a_0_to_1_model_take_pixels(tmp_path, scheme):
    model = small(UNIT, scheme, image=(0, 255))
    path = exported(model, tmp_path, inference_input_type="uint8")
    assert details(path) == {"image": ("uint8", np.float32(1 / 255), 0)}
    assert np.array_equal(bytes_of(path), called(model, UNIT))
    path = exported(model, tmp_path, inference_input_type="int8")
    assert details(path) == {"image": ("int8", np.float32(1 / 255), -128)}
    assert np.array_equal(bytes_of(path, (PIXELS ^ 128).view("int8")), called(model, UNIT))


def test_input_stats_are_an_attribute_of_the_model():
    assert small(UNIT, image=(0, 255)).quantized_input_stats == {"image": (0.0, 255.0)}
    assert small(image=(128, 64)).quantized_input_stats == {"image": (128.0, 64.0)}
    assert small().quantized_input_stats == {}  # the input lacks a range
    calibrated = small(PIXELS)
    assert calibrated.quantized_input_stats == {"image": (0.0, 1.0)}


def test_input_stats_stay_through_calibration_and_training(tmp_path):
    model = small(UNIT, image=(0, 255))
    keras_qat.calibrate(model, UNIT * 0.9, verbose=0)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(UNIT * 0.8, np.arange(12) % 5, epochs=2, verbose=0)
    path = exported(model, tmp_path, inference_input_type="uint8")
    assert details(path) == {"image": ("uint8", np.float32(1 / 255), 0)}
    assert keras_qat.verify(model, path, UNIT, verbose=0).exact


def test_input_stats_are_saved_with_the_model(tmp_path):
    model = small(UNIT, image=(0, 255))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.quantized_input_stats == {"image": (0.0, 255.0)}
    first = exported(model, tmp_path).read_bytes()
    assert exported(loaded, tmp_path).read_bytes() == first


def test_input_stats_give_the_input_a_range(tmp_path):
    model = small(image=(0, 255))
    assert "image_quantize" not in model.lacking_ranges
    with pytest.warns(DefaultRangesWarning):
        path = exported(model, tmp_path, default_ranges_stats=(-6, 6))
    assert list(model.default_ranges) == ["conv", "head"]
    assert details(path) == {"image": ("int8", np.float32(1 / 255), -128)}


def test_input_stats_of_export_stay_in_the_model(tmp_path):
    model = small(UNIT * 0.9)
    before = called(model, UNIT)
    path = exported(
        model, tmp_path, inference_input_type="uint8", quantized_input_stats={"image": (0, 255)}
    )
    assert details(path) == {"image": ("uint8", np.float32(1 / 255), 0)}
    after = called(model, UNIT)
    assert np.array_equal(bytes_of(path), after) and not np.array_equal(before, after)


def two_inputs(merge=layers.Add):
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    model = keras.Model([left, right], layers.Dense(2, name="head")(merge()([left, right])))
    return randomized(model)


LEFT = np.random.default_rng(0).integers(0, 256, (9, 3), dtype="uint8")
RIGHT = np.random.default_rng(1).integers(-128, 128, (9, 3), dtype="int8")
REAL = LEFT / np.float32(255), RIGHT / np.float32(64)


@pytest.mark.parametrize("merge", [layers.Add, layers.Concatenate, layers.Maximum])
def test_input_stats_of_two_inputs(tmp_path, merge):
    model = keras_qat.quantize_model(
        two_inputs(merge),
        calibration_data=REAL,
        quantized_input_stats={"left": (0, 255, "uint8"), "right": (0, 64, "int8")},
    )
    path = exported(model, tmp_path, inference_input_type={"left": "uint8", "right": "int8"})
    assert details(path) == {
        "left": ("uint8", np.float32(1 / 255), 0),
        "right": ("int8", np.float32(1 / 64), 0),
    }
    assert np.array_equal(run(path, left=LEFT, right=RIGHT), called(model, REAL))
    added = [each for each in model.layers if isinstance(each, Requantize)]
    assert len(added) == (0 if merge is layers.Add else 2)


def test_input_stats_of_export_are_refused_for_inputs_that_share_parameters(tmp_path):
    model = keras_qat.quantize_model(two_inputs(layers.Concatenate), calibration_data=REAL)
    before = called(model, REAL)
    message = "shares its quantization parameters.*'left'.*to `quantize_model`"
    with pytest.raises(InvalidInputStatsError, match=message):
        exported(model, tmp_path, quantized_input_stats={"left": (0, 255)})
    assert not list(tmp_path.iterdir())
    assert np.array_equal(called(model, REAL), before)


@pytest.mark.parametrize(
    "stats, data, dtype",
    [
        ((0, 128), small_images() * 2 - 1, "int8"),  # the range 0 to 2 as uint8
        ((0, 255), UNIT, "uint8"),  # the range -0.5 to 0.5 as int8
        ((-128, 255), UNIT, "int8"),
        ((200, 255), UNIT * 0.9 - 0.7, "uint8"),
    ],
)
def test_input_stats_take_the_type_that_fits_the_data(stats, data, dtype):
    model = small(data, image=stats)  # a warning would be an error
    expected = stats[0] + 128 if dtype == "int8" else stats[0]
    assert model.quantized_input_stats == {"image": (expected, stats[1])}


def test_input_stats_of_inputs_that_share_parameters_have_one_type():
    """The data of `right` fits int8 only. Inputs of a concatenation share their parameters."""
    stats = {"left": (0, 64), "right": (0, 64)}
    with pytest.warns(InputStatsWarning, match="The input 'right' has uint8 integers for 0 to"):
        model = keras_qat.quantize_model(
            two_inputs(layers.Concatenate),
            calibration_data=(LEFT / np.float32(64), REAL[1]),
            quantized_input_stats=stats,
        )
    assert model.quantized_input_stats == {"left": (0.0, 64.0), "right": (0.0, 64.0)}
    assert np.isfinite(called(model, REAL)).all()


@pytest.mark.parametrize(
    "stats, data, text",
    [
        ((0, 1), UNIT, "uint8 integers for 0 to 255, .*=(0, 1), but its data was 0 to 1"),
        ((0, 255), UNIT * 3, "uint8 integers for 0 to 1, .*=(0, 255), but its data was 0 to 3"),
        ((0, 255, "int8"), UNIT, "int8 integers for -0.501961 to 0.498039"),
    ],
)
def test_input_stats_that_do_not_fit_the_data_warn_with_both_ranges(tmp_path, stats, data, text):
    text = text.replace("(", "\\(").replace(")", "\\)")
    with pytest.warns(InputStatsWarning, match=f"The input 'image' has {text}"):
        model = small(data, image=stats)
    with pytest.warns(InputStatsWarning, match=text):
        exported(model, tmp_path)


def test_input_stats_with_a_mean_between_two_integers_warn(tmp_path):
    with pytest.warns(InputStatsWarning, match="127.5, is not an integer: 128 .*0.0039 off"):
        model = small(UNIT * 2 - 1, image=(127.5, 127.5))
    path = exported(model, tmp_path, inference_input_type="uint8")
    assert details(path) == {"image": ("uint8", np.float32(1 / 127.5), 128)}
    real = (PIXELS.astype("float32") - 128) * np.float32(1 / 127.5)
    assert np.array_equal(bytes_of(path), called(model, real))


@pytest.fixture(scope="module")
def unit():
    """Makes a calibrated model, which an export that is refused does not change."""
    return small(UNIT)


@pytest.mark.parametrize(
    "stats, text",
    [
        ({"picture": (0, 255)}, "does not exist.*'picture'.*names among .'image'"),
        ({"image": (0, 0)}, "'image'.*std > 0.*\\(0, 0\\)"),
        ({"image": (0, -1)}, "std > 0"),
        ({"image": 255}, "mean, std"),
        ({"image": "01"}, "mean, std"),
        ({"image": (0, float("nan"))}, "finite"),
        ({"image": (10**400, 1)}, "finite"),
        ({"image": (0, np.complex64(1))}, "finite"),
        ({"image": (0, 1e-45)}, "1e-36"),
        ({"image": (0, 1e39)}, "finite"),
        ({"image": b"01"}, "mean, std"),
        ({"image": (0, 255, "int16")}, "type 'uint8' or 'int8'"),
        ({"image": (300, 1)}, "No integer .*a mean of 300 for uint8"),
        ({"image": (-129, 1)}, "No integer .*a mean of -129 for int8"),
        ((0, 255), "a dict with the names"),
    ],
)
def test_input_stats_refuse_invalid_values(unit, tmp_path, stats, text):
    with pytest.raises(InvalidInputStatsError, match=text):
        keras_qat.quantize_model(small_network(), quantized_input_stats=stats)
    with pytest.raises(InvalidInputStatsError, match=text):
        exported(unit, tmp_path, quantized_input_stats=stats)
    assert not list(tmp_path.iterdir())


def test_input_stats_refuse_inputs_of_ids():
    ids = keras.Input((3,), name="ids", dtype="int32")
    model = keras.Model(ids, layers.Embedding(4, 2)(ids))
    with pytest.raises(InvalidInputStatsError, match="holds ids.*'ids'"):
        keras_qat.quantize_model(model, quantized_input_stats={"ids": (0, 1)})


def test_input_stats_of_a_model_with_a_first_layer_in_float(tmp_path):
    model = keras_qat.quantize_model(
        small_network(),
        calibration_data=UNIT,
        overrides={"conv": None},
        quantized_input_stats={"image": (0, 255)},
    )
    path = exported(model, tmp_path, inference_input_type="uint8")
    assert details(path) == {"image": ("uint8", np.float32(1 / 255), 0)}


def headed(*head):
    """Makes a small network after layers that scale its pixels."""
    body = [layers.Conv2D(4, 3, name="conv"), layers.Flatten(), layers.Dense(5, name="dense")]
    return randomized(keras.Sequential([keras.Input((4, 4, 3), name="image"), *head, *body]))


IMAGENET = {"mean": [123.7, 116.3, 103.5], "variance": [3409.0, 3262.0, 3290.0]}
HEADS = {
    "rescaling": lambda: headed(layers.Rescaling(1 / 255)),
    "rescaling_to_both_sides": lambda: headed(layers.Rescaling(1 / 127.5, -1)),
    "normalization": lambda: headed(layers.Normalization(**IMAGENET)),
    "both": lambda: headed(
        layers.Rescaling(1 / 255), layers.Normalization(mean=[0.5], variance=[0.06])
    ),
}
GREY = (PIXELS * 0.7 + 10).astype("float32")


@pytest.mark.parametrize("head, data", [*((head, GREY) for head in HEADS), ("both", None)])
def test_pixels_are_the_integers_if_the_model_scales_them(tmp_path, head, data):
    model = keras_qat.quantize_model(HEADS[head](), calibration_data=data)
    if data is None:
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(GREY, np.arange(12) % 5, verbose=0)
    assert model.quantized_input_stats == {"image": (0.0, 1.0)}
    path = exported(model, tmp_path, inference_input_type="uint8")
    assert details(path) == {"image": ("uint8", 1.0, 0)}
    predicted = called(model, PIXELS.astype("float32"))
    assert np.array_equal(bytes_of(path), predicted)
    assert [each.__class__.__name__ for each in model.layers[1:3]] == ["QuantizeInput", "QConv2D"]


@pytest.mark.parametrize(
    "before",
    [
        [layers.Resizing(6, 6)],
        [layers.RandomFlip(), layers.RandomRotation(0.1), layers.Dropout(0.1)],
        [layers.Permute((2, 1, 3)), layers.ZeroPadding2D(1), layers.MaxPooling2D()],
    ],
)
def test_pixels_are_the_integers_if_moved_or_augmented_before_scaling(tmp_path, before):
    model = headed(
        *(type(each).from_config(each.get_config()) for each in before),
        layers.Normalization(**IMAGENET),
    )
    model = keras_qat.quantize_model(model, calibration_data=GREY)
    path = exported(model, tmp_path, inference_input_type="uint8")
    assert details(path) == {"image": ("uint8", 1.0, 0)}
    predicted = called(model, PIXELS.astype("float32"))
    assert np.array_equal(bytes_of(path), predicted)


@pytest.mark.parametrize("function", ["relu", "leaky_relu"])
def test_pixels_have_the_range_of_the_data_if_a_layer_computes_before_scaling(function):
    model = headed(layers.Activation(function), layers.Rescaling(1 / 255))
    model = keras_qat.quantize_model(model, calibration_data=GREY)
    assert float(model.get_layer("image_quantize").observer.maximum) == GREY.max()


def test_pixels_of_images_joined_before_scaling_are_the_integers():
    images = [keras.Input((4, 4, 3), name=name) for name in ("left", "right")]
    joined = layers.Rescaling(1 / 127.5, -1)(layers.Concatenate()(images))
    model = keras.Model(images, layers.Conv2D(2, 3)(joined))
    model = keras_qat.quantize_model(model, calibration_data={"left": GREY, "right": GREY})
    assert model.quantized_input_stats == {"left": (0.0, 1.0), "right": (0.0, 1.0)}


@pytest.mark.parametrize("data", [GREY * 3, GREY - 100, GREY / 8])
def test_pixel_inputs_have_the_range_of_other_data(data):
    model = keras_qat.quantize_model(HEADS["rescaling"](), calibration_data=data)
    observer = model.get_layer("image_quantize").observer
    assert (float(observer.minimum), float(observer.maximum)) == (data.min(), data.max())


def test_inputs_with_other_factors_have_the_range_of_the_data():
    for head in (layers.Rescaling(1 / 16), layers.Rescaling(2.0), layers.ReLU()):
        model = keras_qat.quantize_model(headed(head), calibration_data=GREY)
        assert float(model.get_layer("image_quantize").observer.maximum) == GREY.max()


def test_input_stats_override_the_range_of_pixels(tmp_path):
    model = keras_qat.quantize_model(
        HEADS["normalization"](), calibration_data=GREY / 8, quantized_input_stats={"image": (0, 4)}
    )
    path = exported(model, tmp_path, inference_input_type="uint8")
    assert details(path) == {"image": ("uint8", 0.25, 0)}
    assert np.array_equal(bytes_of(path), called(model, PIXELS / np.float32(4)))
