"""The LSTM in one operator: contract cases, cell states, runs of files, and its limits."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import keras_qat
from keras_qat.errors import TargetError, UnsupportedLayerError
from keras_qat.layers import QLSTM
from tests.layers.cases import Case, branches, layer
from tests.layers.litert_files import exported, operators_of
from tests.micro import needs_micro
from tests.models import called
from tests.passes.customs import normal

LSTM = keras.layers.LSTM
DATA = normal((6, 5))

CASES = [
    Case(
        "lstm",
        (QLSTM,),
        branches(
            (6, 5),
            [layer(LSTM, 16, return_sequences=True)],
            [layer(LSTM, 7, use_bias=False, return_sequences=True), layer(LSTM, 3)],
        ),
        # A state that is rounded by one step changes later states by several.
        steps=4,
        greatest_scale=1e3,
        target="tflite-micro",
    ),
]


def quantized(*layers, data=DATA, **options):
    model = keras.Sequential([keras.Input((6, 5)), *layers])
    return keras_qat.quantize_model(model, calibration_data=data, target="tflite-micro", **options)


def test_lstm_file_starts_each_run_from_zero():
    """The states are variables, so a second run without resetting them shows their values."""
    qat = quantized(LSTM(4))
    interpreter = Interpreter(
        model_content=exported(qat, inference_input_type="float32"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    source, result = (
        details[0]["index"]
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    interpreter.resize_tensor_input(source, DATA.shape)
    interpreter.allocate_tensors()
    runs = []
    for _ in range(2):
        interpreter.set_tensor(source, DATA)
        interpreter.invoke()
        runs.append(interpreter.get_tensor(result))
    np.testing.assert_array_equal(*runs)


@needs_micro
@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_trained_lstm_equals_tflite_micro(scale, tmp_path):
    qat = quantized(LSTM(8, return_sequences=True), LSTM(4), data=scale * DATA)
    qat.compile("sgd", "mse")
    qat.fit(scale * DATA, np.ones((len(DATA), 4)), verbose=0)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    report = keras_qat.verify(
        qat, tmp_path / "model.tflite", scale * DATA, kernels="tflite-micro", verbose=0
    )
    assert report.exact, str(report)


@pytest.mark.parametrize(
    ("reach", "exponent"), [(0.3, -15), (1.0, -15), (1.01, -14), (8.0, -12), (33.0, -9), (1e3, -9)]
)
def test_cell_exponent_covers_the_observed_states(reach, exponent):
    [lstm] = [each for each in quantized(LSTM(4)).layers if isinstance(each, QLSTM)]
    observer = lstm.observers()["cell"]
    observer.reset()
    observer.widen(-reach, 0.1)
    assert int(lstm.cell_exponent()) == exponent


def test_lstm_of_two_calls_shares_its_weights():
    shared, x = LSTM(4), keras.Input((6, 5))
    model = keras.Model(x, keras.layers.Add()([shared(x), shared(-1.0 * x)]))
    qat = keras_qat.quantize_model(model, calibration_data=DATA, target="tflite-micro")
    assert sum(isinstance(each, QLSTM) for each in qat.layers) == 1
    assert operators_of(exported(qat)).count("UNIDIRECTIONAL_SEQUENCE_LSTM") == 2


def test_fused_lstm_keeps_its_form_on_another_target(tmp_path):
    qat = keras_qat.quantize_model(quantized(LSTM(4)), target="litert")
    assert any(isinstance(each, QLSTM) for each in qat.layers)
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(qat, path)
    assert keras_qat.verify(qat, path, DATA, kernels="default", verbose=0).exact


def test_fused_lstm_is_refused_where_its_kernel_was_not_run(tmp_path):
    qat = keras_qat.quantize_model(quantized(LSTM(4, name="memory")), target="litert-arm64")
    with pytest.raises(TargetError, match="memory"):
        keras_qat.export_litert(qat, tmp_path / "model.tflite")


def test_lstm_gates_that_overflow_are_refused():
    qat = quantized(LSTM(4, name="memory"), data=1e7 * DATA)
    with pytest.raises(UnsupportedLayerError, match="inputs of the LSTM are too large") as caught:
        exported(qat)
    assert caught.value.layer == "memory"


def test_lstm_from_keras_computes_the_same():
    source = LSTM(4, name="memory")
    expected = source(DATA)
    np.testing.assert_array_equal(QLSTM.from_keras(source)(DATA), expected)


def test_stripped_lstm_is_the_keras_layer():
    qat = quantized(LSTM(4, name="memory"))
    stripped = keras_qat.strip_quantization(qat)
    assert type(stripped.get_layer("memory")) is LSTM
    model = keras.Sequential([keras.Input((6, 5)), LSTM(4)])
    model.set_weights(qat.get_layer("memory").cell.get_weights())
    np.testing.assert_array_equal(called(stripped, DATA), called(model, DATA))
