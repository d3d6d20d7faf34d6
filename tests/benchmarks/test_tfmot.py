import types

import numpy as np
import pytest

DETAILS = types.SimpleNamespace(scale=1 / 256, zero_point=-128, dtype=np.int8)


@pytest.fixture
def tfmot(script):
    return script("tfmot")


def real(*rows):
    return np.array(rows, "float32") / 256


def test_disagreement_of_equal_predictions_is_zero(tfmot):
    values = real([250, 3, 3], [0, 255, 1])
    assert tfmot.disagreement(values, values, DETAILS) == {
        "classes": 0,
        "integers": 0,
        "of_integers": 6,
    }


def test_disagreement_rounds_predictions_of_keras_to_integers(tfmot):
    # The file has no integer for 1.0. The nearest value, 255 / 256, counts as equal.
    in_keras = np.array([[1.0, 0.4 / 256, 0.6 / 256]], "float32")
    found = tfmot.disagreement(in_keras, real([255, 0, 0]), DETAILS)
    assert found == {"classes": 0, "integers": 1, "of_integers": 3}


def test_disagreement_counts_a_class_that_the_file_scores_lower(tfmot):
    in_keras, file = real([9, 8, 1], [8, 9, 1]), real([8, 9, 1], [9, 9, 1])
    assert tfmot.disagreement(in_keras, file, DETAILS)["classes"] == 1


def test_rows_have_failures_and_figures(tfmot):
    timings = {key: {"cpu_min": value} for key, value in (("qat", 3), ("float", 2), ("export", 4))}
    results = {
        "ResNet-8": {
            "tfmot": {"failed": "ValueError: no"},
            "keras_qat": {"timings": timings, "bytes": 98_760, "steps": 4},
        }
    }
    assert tfmot.network_rows(results) == [
        ("ResNet-8: QAT step / float step, CPU time (QAT step)", "ValueError: no", "1.50 (750 ms)"),
        ("ResNet-8: export, CPU s", "ValueError: no", "4.00"),
        ("ResNet-8: file, kB", "ValueError: no", "98.8"),
    ]


def test_counts_of_families(tfmot):
    yes, no = {"bytes": 1}, {"failed": "RuntimeError: no"}
    results = {
        "A": {"tfmot": yes, "keras_qat": yes},
        "B": {"tfmot": no, "keras_qat": yes},
        "C": {"tfmot": no, "keras_qat": no},
    }
    assert tfmot.family_rows(results)[0][1:] == ("1 of 3", "2 of 3")


def test_families_are_one_per_module_of_keras_applications(tfmot):
    import keras

    homes = [getattr(keras.applications, name).__module__ for name in tfmot.FAMILIES]
    every = {
        getattr(keras.applications, name).__module__
        for name in dir(keras.applications)
        if callable(getattr(keras.applications, name))
    }
    assert sorted(homes) == sorted(every)


def test_check_file_reports_a_file_that_does_not_run(tfmot, tmp_path):
    path = tmp_path / "bad.tflite"
    path.write_bytes(b"no model")
    answer = tfmot.check_file({"file": str(path), "seconds": {}})
    assert answer["failed"].startswith("no file that runs: ")
    assert answer["bytes"] == 8


def file_of(model, path, **types):
    import keras_qat

    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, np.eye(4, dtype="float32"), verbose=0)
    keras_qat.export_litert(qat, path, **types)
    return {"file": str(path)}


def test_check_file_takes_only_fully_integer_files(tfmot, tmp_path):
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    ends = {f"inference_{end}_type": "int8" for end in ("input", "output")}
    good = tfmot.check_file(file_of(model, tmp_path / "good.tflite", **ends))
    floats = {**ends, "inference_output_type": "float32"}
    assert good == {"bytes": (tmp_path / "good.tflite").stat().st_size}
    answer = tfmot.check_file(file_of(model, tmp_path / "bad.tflite", **floats))
    assert "float tensors, such as" in answer["failed"]
    other = {**ends, "inference_input_type": "uint8"}
    answer = tfmot.check_file(file_of(model, tmp_path / "other.tflite", **other))
    assert answer["failed"] == "inputs and outputs are ['int8', 'uint8']"
