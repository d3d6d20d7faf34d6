"""LiteRTModel. The oracles are LiteRT's interpreter, Keras and hand-computed numbers."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers

import keras_qat
from keras_qat import LiteRTModel
from keras_qat.errors import InvalidDataError, LiteRTFormatError
from keras_qat.litert import Model, Operator, Quantization, Tensor, write
from tests.models import images, labels, quantized, quantized_network
from tests.quick import slow


def exported(model, folder, **arguments):
    path = folder / "model.tflite"
    keras_qat.export_litert(model, path, **arguments)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return exported(quantized_network(), tmp_path_factory.mktemp("network"))


def interpreted(path, integers, resolver=OpResolverType.AUTO):
    """Returns the interpreter's output for integers, and the output's scale and zero point."""
    interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver)
    (tensor,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(tensor["index"], integers.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(tensor["index"], integers)
    interpreter.invoke()
    return interpreter.get_tensor(output["index"]), output["quantization"]


def relu(path, batch=None, dtype="int8", names=("x", "y"), quantization=None):
    """Writes a file with one RELU on pairs. The integer n stands for n / 2."""
    if quantization is None and dtype != "float32":
        quantization = Quantization(np.array([0.5], "float32"), np.array([0], "int64"))
    x, y = (Tensor(name, (batch, 2), dtype, quantization) for name in names)
    write(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)), path)
    return path


@pytest.fixture(scope="module")
def two_ends(tmp_path_factory):
    """Makes a model of two inputs and two outputs, and its file."""
    a, b = (keras.Input((4,), name=name) for name in ("first", "second"))
    total = layers.Add(name="total")([a, b])
    scores = layers.Dense(3, name="scores")(a)
    data = np.random.default_rng(1).random((2, 20, 4), "float32")
    model = quantized(
        keras.Model({"first": a, "second": b}, {"total": total, "scores": scores}),
        {"first": data[0], "second": data[1]},
    )
    return model, exported(model, tmp_path_factory.mktemp("two")), data


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_predict_equals_keras(dtype, tmp_path):
    model = quantized_network()
    path = exported(model, tmp_path, inference_input_type=dtype, inference_output_type=dtype)
    result = LiteRTModel(path).predict(images(50), verbose=0)
    assert result.dtype == np.float32 and result.shape == (50, 5)
    assert (result == model.predict(images(50), verbose=0)).all()


@pytest.mark.parametrize(
    ("kernels", "resolver"),
    [("reference", OpResolverType.BUILTIN_REF), ("default", OpResolverType.AUTO)],
)
def test_predict_takes_raw_inputs_unchanged(kernels, resolver, path):
    integers = np.random.default_rng(0).integers(-128, 128, (7, 8, 8, 3), "int8")
    expected, (scale, zero_point) = interpreted(path, integers, resolver)
    model = LiteRTModel(path, kernels, num_threads=2, raw_inputs=True)
    result = model.predict(integers, verbose=0)
    assert (result == (expected.astype("float32") - zero_point) * np.float32(scale)).all()


def test_predict_refuses_raw_inputs_of_another_type(path):
    with pytest.raises(InvalidDataError, match="int8, as `raw_inputs=True`.*float32"):
        LiteRTModel(path, raw_inputs=True).predict(images(4), verbose=0)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_predict_takes_integer_arrays_as_keras_does(dtype, tmp_path):
    """Integer arrays are real values, also if the file's input has the same integer type."""
    data = np.random.default_rng(0).integers(0, 100, (50, 4))
    x = keras.Input((4,), name="x")
    model = quantized(keras.Model(x, layers.Dense(2)(x)), data.astype("float32"))
    path = exported(model, tmp_path, inference_input_type=dtype)
    expected = model.predict(data.astype("float32"), verbose=0)
    for array in (data.astype(dtype), data.astype("float32")):
        assert (LiteRTModel(path).predict(array, verbose=0) == expected).all()
        assert (model.predict(array, verbose=0) == expected).all()


def test_predict_takes_integers_as_real_values(tmp_path):
    model = LiteRTModel(relu(tmp_path / "relu.tflite"))
    data = [[-3, 7], [200, 1]]
    expected = [[0, 7], [63.5, 1]]  # half of the largest int8
    for dtype in ("uint8", "int32", "int64", "float64"):
        values = np.abs(data) if dtype == "uint8" else np.array(data)
        wanted = [[3, 7], [63.5, 1]] if dtype == "uint8" else expected
        assert model.predict(values.astype(dtype), verbose=0).tolist() == wanted
    assert model.predict(np.array([[-3, 7]], "int8"), verbose=0).tolist() == [[0, 7]]
    raw = LiteRTModel(tmp_path / "relu.tflite", raw_inputs=True)
    assert raw.predict(np.array([[-3, 7]], "int8"), verbose=0).tolist() == [[0, 3.5]]


@pytest.mark.parametrize("batch", [1, 4])
def test_predict_with_a_fixed_batch_takes_any_number_of_samples(batch, tmp_path):
    model = LiteRTModel(relu(tmp_path / "relu.tflite", batch))
    data = np.arange(-10, 12, dtype="float32").reshape(11, 2)
    for batch_size in (3, 32):
        result = model.predict(data, batch_size, verbose=0)
        assert (result == np.maximum(data, 0)).all()


def test_predict_takes_the_kinds_of_data_of_keras(path):
    tensorflow = pytest.importorskip("tensorflow")
    model, x = LiteRTModel(path), images(10)
    expected = model.predict(x, batch_size=3, verbose=0)
    dataset = tensorflow.data.Dataset.from_tensor_slices((x, labels(10)))
    pairs = ((part, None) for part in np.split(x, 2))
    for data in (dataset.batch(4), dataset, pairs, list(x), (x,), {"image": x}):
        assert (model.predict(data, verbose=0) == expected).all()
    assert len(model.predict(dataset.batch(4), steps=2, verbose=0)) == 8
    assert (model.predict(x[0], verbose=0) == expected[:1]).all()


def test_predict_takes_inputs_and_returns_outputs_by_name(two_ends):
    model, path, (first, second) = two_ends
    deployed = LiteRTModel(path)
    assert sorted(deployed.input_names) == ["first", "second"]
    expected = model.predict({"first": first, "second": second}, verbose=0)
    in_order = {"first": first, "second": second}
    arrays = tuple(in_order[name] for name in deployed.input_names)
    for data in (in_order, arrays, list(arrays), [arrays]):
        result = deployed.predict(data, batch_size=8, verbose=0)
        assert result.keys() == {"total", "scores"}
        assert all((result[name] == expected[name]).all() for name in result)
    for data in (in_order, arrays, list(arrays)):
        result = deployed.predict_on_batch(data)
        assert all((result[name] == expected[name]).all() for name in ("total", "scores"))


def test_evaluate_equals_keras(path):
    model, y = quantized_network(), labels(50)
    loss, metrics = (
        "sparse_categorical_crossentropy",
        ["accuracy", "sparse_top_k_categorical_accuracy"],
    )
    model = keras.Model(
        model.inputs, model.outputs
    )  # a separate model, since the shared one must not be compiled
    model.compile(loss=loss, metrics=metrics)
    expected = model.evaluate(images(50), y, verbose=0, return_dict=True)
    deployed = LiteRTModel(path)
    result = deployed.evaluate(images(50), y, metrics=metrics, loss=loss, verbose=0)
    assert result.keys() == expected.keys() and 0 < result["accuracy"] < 1
    assert result == pytest.approx(expected, rel=1e-6)
    pairs = [(images(50)[i : i + 20], y[i : i + 20]) for i in (0, 20, 40)]
    assert deployed.evaluate(pairs, verbose=0) == {"accuracy": pytest.approx(expected["accuracy"])}
    one = deployed.evaluate(
        (images(50), y), metrics=[keras.metrics.SparseCategoricalAccuracy(name="top")], verbose=0
    )
    assert one == {"top": pytest.approx(expected["accuracy"])}


def test_evaluate_obeys_sample_weights(tmp_path):
    model = LiteRTModel(relu(tmp_path / "relu.tflite", dtype="float32"))
    x, y = np.array([[1, 2], [4, 3], [0, 1]], "float32"), np.ones((3, 2))
    weights = np.array([1, 6, 1], "float32")
    batches = [(x[:2], y[:2], weights[:2]), (x[2:], y[2:], weights[2:])]
    scores = model.evaluate(batches, metrics=None, loss="mse", verbose=0)
    # (x - 1)^2 is 0, 1 -> 1/2; 9, 4 -> 13/2; 1, 0 -> 1/2: weighted, by the number of samples
    expected = {"loss": pytest.approx((0.5 + 6 * 6.5 + 0.5) / 3)}
    assert scores == expected
    options = {"metrics": None, "loss": "mse", "batch_size": 2, "verbose": 0}
    assert model.evaluate(x, y, sample_weight=weights, **options) == expected
    for data in ((batches, None), (x, y[:2]), (x, y)):
        with pytest.raises(InvalidDataError, match="need targets|do not match"):
            model.evaluate(*data, sample_weight=weights[:2], **options)


def test_evaluate_takes_sample_weights_per_output(two_ends):
    model, path, (first, second) = two_ends
    data, y = {"first": first, "second": second}, {"total": first, "scores": np.arange(20) % 3}
    weights = {"total": np.arange(20.0), "scores": np.ones(20)}
    losses = {"total": "mse", "scores": keras.losses.SparseCategoricalCrossentropy(True)}
    deployed, options = LiteRTModel(path), {"metrics": None, "loss": losses}
    result = deployed.evaluate(data, y, sample_weight=weights, verbose=0, **options)
    predicted = model.predict(data, verbose=0)
    weighted = float(np.mean(np.mean((predicted["total"] - first) ** 2, -1) * weights["total"]))
    assert result["total_loss"] == pytest.approx(weighted, rel=1e-5)
    batches = [(data, y, weights)]
    assert deployed.evaluate(batches, verbose=0, **options) == result


def test_evaluate_takes_single_samples(tmp_path):
    model = LiteRTModel(relu(tmp_path / "relu.tflite", dtype="float32"))
    pairs = [(np.array([1, 2], "float32"), 1), (np.array([4, 3], "float32"), 1)]
    assert model.evaluate(pairs, verbose=0) == {"accuracy": 0.5}


def test_evaluate_takes_metrics_per_output(two_ends):
    _, path, (first, second) = two_ends
    deployed = LiteRTModel(path)
    data = {"first": first, "second": second}
    predicted = deployed.predict(data, verbose=0)
    y = {"total": predicted["total"] + 1, "scores": np.argmax(predicted["scores"], axis=-1)}
    metrics = {"total": ["mae"], "scores": ["accuracy"]}
    for targets in (y, [y[name] for name in deployed.output_names]):
        scores = deployed.evaluate(data, targets, metrics=metrics, verbose=0)
        assert scores == {"total_mae": pytest.approx(1), "scores_accuracy": 1.0}


@pytest.mark.parametrize("form", ["dict", *slow("list", "dataset")])
def test_evaluate_gives_the_accuracy_of_each_output_by_default(form, two_ends):
    model, path, (first, second) = two_ends
    data = {"first": first, "second": second}
    y = {"total": first.round(), "scores": np.arange(20) % 3}
    losses = {"total": "mse", "scores": keras.losses.SparseCategoricalCrossentropy(True)}
    metrics = {name: ["accuracy"] for name in y}
    copy = keras.Model(model.inputs, dict(zip(model.output_names, model.outputs, strict=True)))
    copy.compile(loss=losses, metrics=metrics)
    expected = copy.evaluate(data, y, verbose=0, return_dict=True)
    deployed = LiteRTModel(path)
    given = {
        "dict": (data, y),
        "list": (data, [y[name] for name in deployed.output_names]),
        "dataset": ([(data, y)], None),
    }[form]
    assert deployed.evaluate(*given, loss=losses, verbose=0) == pytest.approx(expected, rel=1e-5)
    accuracies = {key: value for key, value in expected.items() if key.endswith("accuracy")}
    assert len(accuracies) == 2
    assert deployed.evaluate(*given, verbose=0) == pytest.approx(accuracies)


def test_litert_model_takes_any_tensor_names(tmp_path):
    path = relu(tmp_path / "relu.tflite", dtype="float32", names=("a/b:0", "c/d;e"))
    model = LiteRTModel(path)
    assert (model.input_names, model.output_names) == (["x"], ["y"])  # the names of the signature
    assert model.evaluate({"a/b:0": np.array([[1, 2]])}, np.array([1], "float32"), verbose=0) == {
        "accuracy": 1
    }


def test_predict_takes_ids_as_integers(tmp_path):
    ids = keras.Input((3,), dtype="int32", name="ids")
    model = quantized(keras.Model(ids, layers.Embedding(9, 4)(ids)), np.array([[0, 8, 3]], "int32"))
    deployed = LiteRTModel(exported(model, tmp_path))
    data = np.array([[5, 0, 8], [1, 2, 3]])
    for values in (data, data.astype("float32"), data.astype("uint8")):
        assert (deployed.predict(values, verbose=0) == model.predict(data, verbose=0)).all()
    for values in (data + 0.5, data + 2**40):
        with pytest.raises(InvalidDataError, match="'ids' takes whole numbers"):
            deployed.predict(values, verbose=0)


def test_summary_has_inputs_outputs_and_operators(path, capsys):
    LiteRTModel(path).summary()
    text = capsys.readouterr().out
    for end in ("image", "? x 8 x 8 x 3", "int8", "head", "0.00390625", "-128"):
        assert end in text
    report = keras_qat.inspect_litert(path)
    assert (
        f"{len(report.operators)} operators: 1 ADD, " in text and f"{report.size:,} bytes" in text
    )
    assert "Fully integer: yes" in text


def test_predict_and_evaluate_show_the_progress_bar_of_keras(path, capsys):
    model = LiteRTModel(path)
    model.predict(images(40))
    assert "2/2" in capsys.readouterr().out
    model.evaluate(images(40), labels(40))
    assert "accuracy: " in capsys.readouterr().out
    model.predict(images(4), verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (images(4)[..., :2], "wrong shape"),
        (np.full((2, 8, 8, 3), np.nan), "not finite"),
        (images(0), "no batches"),
        (np.array([["a"]]), "not numeric"),
        (iter(()), "no batches"),
        ({"other": images(2)}, "lacks inputs"),
        (3.5, "cannot be read"),
    ],
)
def test_predict_refuses_data_that_do_not_fit(data, message, path):
    with pytest.raises(InvalidDataError, match=message):
        LiteRTModel(path).predict(data, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((images(4), labels(3)), "do not match the data"),
        ((images(4),), "no targets"),
        (([images(4)],), "no targets"),
        (([images(4)], labels(4)), "do not match the data"),
        ((iter([images(4)]), labels(4)), "do not match the data"),
        ((images(4), np.zeros((4, 7))), "cannot compute the loss"),
    ],
)
def test_evaluate_refuses_targets_that_do_not_fit(arguments, message, path):
    with pytest.raises(InvalidDataError, match=message):
        LiteRTModel(path).evaluate(*arguments, metrics=["mse"], verbose=0)


def test_evaluate_refuses_unknown_metrics(path):
    with pytest.raises(InvalidDataError, match="no_such_metric"):
        LiteRTModel(path).evaluate(images(4), labels(4), metrics=["no_such_metric"], verbose=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernels": "fast"},
        {"num_threads": 0},
        {"num_threads": "2"},
        {"num_threads": True},
        {"num_threads": 2**40},
    ],
)
def test_litert_model_refuses_unknown_arguments(arguments, path):
    with pytest.raises(LiteRTFormatError, match=next(iter(arguments))):
        LiteRTModel(path, **arguments)


def test_litert_model_refuses_other_files(tmp_path):
    with pytest.raises(LiteRTFormatError):
        LiteRTModel(tmp_path / "none.tflite")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"not a model at all")
    with pytest.raises(LiteRTFormatError):
        LiteRTModel(damaged)


def test_litert_model_refuses_an_output_without_a_batch(tmp_path):
    x, axis = (
        Tensor("x", (None, 2), "float32"),
        Tensor("axis", (1,), "int32", data=np.array([0], "int32")),
    )
    y = Tensor("y", (2,), "float32")
    options = {"keepDims": False}
    operator = Operator("REDUCE_MAX", (x, axis), (y,), 1, options)
    write(Model({"x": x}, {"y": y}, (operator,)), tmp_path / "max.tflite")
    with pytest.raises(LiteRTFormatError, match="'y' does not have one row for each sample"):
        LiteRTModel(tmp_path / "max.tflite").predict(np.ones((5, 2), "float32"), verbose=0)
