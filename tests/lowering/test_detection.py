"""Files that end with TFLite_Detection_PostProcess, against decoding and suppression in NumPy."""

import importlib.util

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import flexbuffers

import keras_qat
from keras_qat import DetectionPostProcess
from keras_qat.errors import ExportError, TargetFallbackWarning
from tests.lowering.detectors import (
    CLASSES,
    OPTIONS,
    anchors,
    check_equal,
    classes_of,
    detections,
    detector,
    exported,
)
from tests.micro import needs_micro
from tests.models import images
from tests.quick import slow
from tests.vela import compiled_by_vela

CODE = "CUSTOM(TFLite_Detection_PostProcess)"


@pytest.mark.parametrize(
    "kernels, target, regular",
    [
        ("default", "litert", True),
        ("default", "litert", False),
        ("reference", "reference", True),
        pytest.param("reference", "reference", False, marks=pytest.mark.slow),
        pytest.param("tflite-micro", "tflite-micro", True, marks=[needs_micro, pytest.mark.slow]),
        pytest.param("tflite-micro", "tflite-micro", False, marks=needs_micro),
    ],
)
def test_detection_file_gives_the_detections_of_its_boxes_and_scores(
    tmp_path, kernels, target, regular
):
    options = {"scales": (10.0, 8.0, 5.0, 4.0), "max_detections": 20, "score_threshold": 0.75}
    options["use_regular_nms"] = regular
    qat, path = exported(tmp_path, target=target, **options)
    known = {"regular": regular, "scales": options["scales"], "most": 20, "score": 0.75}
    found = check_equal(qat, path, kernels, images(8), **known)
    assert len({*found["count"]}) > 1
    assert {kind for kinds in classes_of(found) for kind in kinds} == {*range(CLASSES)}
    if regular:  # the other way leaves the entries unset
        rows = zip(found["boxes"], found["count"], strict=True)
        assert not any(row[int(count) :].any() for row, count in rows)


def test_detection_leaves_out_the_background(tmp_path):
    model = detector(CLASSES + 1, activation="softmax")
    qat, path = exported(tmp_path, model, **OPTIONS, scores="scores", num_classes=CLASSES)
    check_equal(qat, path, "default", images(8), background=1)


def test_detection_takes_logits_as_scores(tmp_path):
    options = {**OPTIONS, "score_threshold": 1.0}
    qat, path = exported(tmp_path, detector(activation="linear"), **options)
    found = check_equal(qat, path, "default", images(8), score=1.0)
    assert found["scores"].max() > 1


def test_verify_says_where_layers_are_in_float_before_the_operator(tmp_path):
    model = detector()
    heads = [layer.name for layer in model.layers if layer.name.startswith("reshape")]
    qat = keras_qat.quantize_model(model, overrides=dict.fromkeys([*heads, "boxes"]))
    keras_qat.calibrate(qat, images(), verbose=0)
    path = tmp_path / "float.tflite"
    keras_qat.export_litert(qat, path, detection=DetectionPostProcess(anchors()))
    report = keras_qat.verify(qat, path, images(4), verbose=0)
    start = "EXACT UP TO TFLite_Detection_PostProcess, NOT FULLY INTEGER: "
    assert report.exact and report.verdict.startswith(start)


def test_detection_of_a_dict_of_outputs_has_their_keys(tmp_path):
    model = detector()
    ends = dict(zip(("location", "confidence"), model.outputs, strict=True))
    qat, path = exported(tmp_path, keras.Model(model.inputs, ends), boxes="location")
    assert keras_qat.verify(qat, path, images(4), verbose=0).exact
    with pytest.raises(ExportError, match=r"two names among \['location', 'confidence'\]"):
        exported(tmp_path, keras.Model(model.inputs, ends), boxes="boxes")


def test_detection_thresholds_are_those_of_the_operator(tmp_path):
    options = {**OPTIONS, "score_threshold": 0.55, "iou_threshold": 0.1, "max_detections": 4}
    qat, path = exported(tmp_path, **options)
    check_equal(qat, path, "default", images(8), score=0.55, iou=0.1, most=4)


def test_detection_limits_the_detections_of_a_class(tmp_path):
    _, path = exported(tmp_path, **OPTIONS, detections_per_class=1)
    found = keras_qat.LiteRTModel(path).predict(images(8), verbose=0)
    assert max(found["count"]) <= CLASSES
    kinds = [
        row[: int(n)].tolist() for row, n in zip(found["classes"], found["count"], strict=True)
    ]
    assert all(len(set(each)) == len(each) for each in kinds)


def test_detection_returns_several_classes_of_a_box(tmp_path):
    options = {"use_regular_nms": False, "max_classes_per_detection": 2}
    _, path = exported(tmp_path, **OPTIONS, **options)
    found = keras_qat.LiteRTModel(path).predict(images(1), verbose=0)
    assert found["boxes"].shape == (1, 20, 4)
    assert np.array_equal(found["boxes"][0, 0], found["boxes"][0, 1])
    assert found["scores"][0, 0] >= found["scores"][0, 1]


@pytest.mark.parametrize("scheme", ["uint8", *slow("int8", "int8_per_tensor")])
def test_detection_of_other_schemes_and_order_of_outputs(tmp_path, scheme):
    qat, path = exported(tmp_path, detector(order=("scores", "boxes")), scheme, **OPTIONS)
    assert keras_qat.verify(qat, path, images(4), verbose=0).exact
    scores, boxes = (np.asarray(each)[0] for each in qat(images(1)))
    found = keras_qat.LiteRTModel(path).predict(images(1), verbose=0)
    kept, _ = detections(boxes, scores)
    assert found["scores"][0, : len(kept)].tolist() == [s for s, *_ in kept]


def test_detection_takes_the_names_of_boxes_and_scores(tmp_path):
    """With four classes the shapes do not tell boxes from scores."""
    own = {"boxes": "boxes"}, {"scores": "scores"}, {"boxes": "boxes", "scores": "scores"}
    model = detector(4)
    contents = {exported(tmp_path, model, **each)[1].read_bytes() for each in own}
    assert len(contents) == 1
    with pytest.raises(ExportError, match="must name the two outputs .* To fix it: Pass"):
        exported(tmp_path, detector(4))


def test_detection_file_has_the_operator_that_other_tools_write(tmp_path):
    _, path = exported(tmp_path, **OPTIONS, scales=(10.0, 10.0, 5.0, 5.0))
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    graph = model.subgraphs[0]
    last = graph.operators[-1]
    code = model.operatorCodes[last.opcodeIndex]
    assert (code.builtinCode, code.customCode) == (schema.BuiltinOperator.CUSTOM, code.customCode)
    assert code.customCode == b"TFLite_Detection_PostProcess" and code.version == 1
    assert flexbuffers.Loads(bytearray(bytes(last.customOptions))) == {
        "max_detections": 10,
        "max_classes_per_detection": 1,
        "detections_per_class": 100,
        "use_regular_nms": True,
        "nms_score_threshold": pytest.approx(0.3),
        "nms_iou_threshold": 0.5,
        "num_classes": CLASSES,
        "y_scale": 10.0,
        "x_scale": 10.0,
        "h_scale": 5.0,
        "w_scale": 5.0,
    }
    boxes, scores, data = (graph.tensors[i] for i in last.inputs)
    assert [boxes.type, scores.type, data.type] == [schema.TensorType.FLOAT32] * 3
    assert list(boxes.shape) == [1, 40, 4] and list(scores.shape) == [1, 40, CLASSES]
    stored = np.frombuffer(bytes(model.buffers[data.buffer].data), "float32")
    np.testing.assert_array_equal(stored.reshape(40, 4), anchors().astype("float32"))


def test_detection_file_runs_in_the_interpreter_by_position_and_by_signature(tmp_path):
    _, path = exported(tmp_path, **OPTIONS)
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    details = interpreter.get_output_details()
    assert [each["shape"].tolist() for each in details] == [[1, 10, 4], [1, 10], [1, 10], [1]]
    assert [each["name"].partition(":")[0] for each in details] == [CODE[7:-1]] * 4
    runner = interpreter.get_signature_runner()
    assert set(runner.get_output_details()) == {"boxes", "classes", "scores", "count"}


def test_boxes_and_scores_have_ranges_of_their_own(tmp_path):
    qat, path = exported(tmp_path)
    tensors = {each.name: each for each in keras_qat.inspect_litert(path).tensors}
    boxes, scores = (tensors[f"{name}_int8"].quantization for name in ("boxes", "scores"))
    assert boxes is not None and scores is not None
    assert (scores.scale, scores.zero_point) == ((1 / 256,), (-128,))
    values = np.asarray(qat(images())[0])
    width = values.max() - values.min()
    assert boxes.scale[0] != scores.scale[0] and 0.8 < width / (255 * boxes.scale[0]) <= 1.01


def test_inspect_litert_shows_the_operator_and_its_options(tmp_path):
    _, path = exported(tmp_path, **OPTIONS)
    report = keras_qat.inspect_litert(path)
    assert report.operators[-1].name == CODE
    assert report.operators[-1].options["max_detections"] == 10
    assert report.oldest_runtime.name == "TensorFlow Lite 1.14"
    assert not any("not known" in reason for reason in report.because)
    assert "SSD" not in str(report) and "boxes, classes, scores, count" in str(report)


def test_verify_proves_a_detection_file_up_to_the_operator(tmp_path):
    qat, path = exported(tmp_path, **OPTIONS)
    report = keras_qat.verify(qat, path, images(5), verbose=0)
    rows = report.layers["default"]
    assert report.exact and {"boxes", "scores", "boxes_int8", "scores_int8"} <= rows.keys()
    assert report.outputs == ("boxes", "scores") or report.outputs == ("scores", "boxes")
    assert report.verdict.startswith("EXACT UP TO TFLite_Detection_PostProcess: ")
    assert "in float from the last tensors, and was not compared" in report.verdict
    assert report.to_dict()["not_run"] == ("TFLite_Detection_PostProcess",)


def test_verify_finds_a_difference_before_the_operator(tmp_path):
    qat, path = exported(tmp_path, detector(), **OPTIONS)
    kernel = next(each for each in qat.trainable_variables if each.path.endswith("kernel"))
    kernel.assign(kernel * 0.9)
    report = keras_qat.verify(qat, path, images(5), verbose=0)
    assert not report.exact
    assert report.verdict.startswith("NOT EXACT UP TO TFLite_Detection_PostProcess")


@pytest.mark.parametrize("target", ["ethos-u", *slow("edgetpu")])
def test_detection_runs_on_the_cpu_of_accelerators(tmp_path, target):
    with pytest.warns(TargetFallbackWarning, match=r"PostProcess\) of .* runs on the CPU"):
        qat, path = exported(tmp_path, target=target, **OPTIONS)
    check_equal(qat, path, "reference", images(4))
    if target == "ethos-u" and importlib.util.find_spec("ethosu"):
        compiled = keras_qat.inspect_litert(compiled_by_vela(path.read_bytes()))
        names = [operator.name for operator in compiled.operators]
        assert names == ["CUSTOM(ethos-u)", "DEQUANTIZE", "DEQUANTIZE", CODE]
        own = keras_qat.inspect_litert(path).operators[-1].options
        assert compiled.operators[-1].options == own
