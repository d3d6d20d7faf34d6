"""Files that end with TFLite_Detection_PostProcess, against decoding and suppression in NumPy."""

import importlib.util

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import flexbuffers
from keras import layers

import keras_qat
from keras_qat import DetectionPostProcess
from keras_qat.errors import ExportError, TargetFallbackWarning
from tests.micro import needs_micro
from tests.models import images, randomized
from tests.vela import compiled_by_vela

CLASSES = 3
CODE = "CUSTOM(TFLite_Detection_PostProcess)"
SIZES = {4: 0.35, 2: 0.6}  # of the anchors, by the rows of a feature map


def detector(classes=CLASSES, order=("boxes", "scores"), activation="sigmoid", batch_size=None):
    """Makes a small SSD: boxes and scores of two feature maps, two for each position."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 3), batch_size=batch_size, name="image")
    x, boxes, scores = image, [], []
    for _ in SIZES:
        x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
        boxes.append(layers.Reshape((-1, 4))(layers.Conv2D(8, 1)(x)))
        logits = layers.Reshape((-1, classes))(layers.Conv2D(2 * classes, 1)(x))
        scores.append(layers.Activation(activation)(logits))
    ends = {
        "boxes": layers.Concatenate(axis=1, name="boxes")(boxes),
        "scores": layers.Concatenate(axis=1, name="scores")(scores),
    }
    model = randomized(keras.Model(image, [ends[name] for name in order]))
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            layer.kernel.assign(layer.kernel * 2)  # so that the scores vary
    return model


def anchors():
    """Returns the anchors of the detector, in the order of its boxes."""
    found = []
    for rows, size in SIZES.items():
        y, x = (np.mgrid[:rows, :rows].reshape(2, -1, 1) + 0.5) / rows
        height, width = np.array([size, size / 2]), np.array([size / 2, size])
        each = np.broadcast_arrays(y, x, height, width)
        found.append(np.stack(each, axis=-1).reshape(-1, 4))
    return np.concatenate(found)


def exported(folder, model=None, scheme="int8", target="litert", **options):
    qat = keras_qat.quantize_model(model or detector(), scheme, target=target)
    keras_qat.calibrate(qat, images(), verbose=0)
    path = folder / "detector.tflite"
    keras_qat.export_litert(qat, path, detection=DetectionPostProcess(anchors(), **options))
    return qat, path


def decoded(boxes, scales):
    """Returns the corners (y min, x min, y max, x max) of boxes."""
    own = anchors()
    center = boxes[:, :2] / scales[:2] * own[:, 2:] + own[:, :2]
    half = np.exp(boxes[:, 2:] / scales[2:]) * own[:, 2:] / 2
    return np.concatenate([center - half, center + half], axis=-1)


def overlap(a, b):
    """Returns the intersection over union of two boxes."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    both = np.prod(sides)
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def suppressed(corners, candidates, most, iou):
    """Returns the candidates, best first, that do not overlap a better one that was kept."""
    kept = []
    for score, kind, box in sorted(candidates, key=lambda each: (-each[0], *each[1:])):
        if len(kept) < most and all(overlap(corners[box], corners[b]) <= iou for *_, b in kept):
            kept.append((score, kind, box))
    return kept


def detections(boxes, scores, *, score=0.3, iou=0.5, scales=(1, 1, 1, 1), regular=True, most=10):
    """Returns (score, class, box) of the detections of one image, and the corners of its boxes."""
    corners = decoded(boxes.astype("float64"), np.array(scales))
    if regular:
        every = [
            [(s, kind, box) for box, s in enumerate(column) if s >= score]
            for kind, column in enumerate(scores.T)
        ]
        kept = [each for one in every for each in suppressed(corners, one, most, iou)]
    else:
        best = [(row.max(), int(row.argmax()), box) for box, row in enumerate(scores)]
        by_box = sorted((each for each in best if each[0] >= score), key=lambda e: (-e[0], e[2]))
        kept = suppressed(corners, [(s, 0, box) for s, _, box in by_box], most, iou)
        kept = [(s, int(scores[box].argmax()), box) for s, _, box in kept]
    return sorted(kept, key=lambda each: (-each[0], *each[1:]))[:most] if regular else kept, corners


def check_equal(qat, path, kernels, data, background=0, **options):
    """Compares a file's outputs with those computed from the boxes and scores of Keras."""
    boxes, scores = (np.asarray(each) for each in qat.predict(data, verbose=0))
    found = keras_qat.LiteRTModel(path, kernels=kernels).predict(data, verbose=0)
    assert list(found) == ["boxes", "classes", "scores", "count"]
    for i in range(len(data)):
        kept, corners = detections(boxes[i], scores[i, :, background:], **options)
        count = int(found["count"][i])
        assert count == len(kept)
        assert found["classes"][i, :count].tolist() == [kind for _, kind, _ in kept]
        np.testing.assert_array_equal(found["scores"][i, :count], [s for s, *_ in kept])
        wanted = [corners[box] for *_, box in kept]
        np.testing.assert_allclose(found["boxes"][i, :count], wanted, rtol=1e-5, atol=1e-6)
    return found


def classes_of(found):
    """Returns the classes of the detections of each image."""
    rows = zip(found["classes"], found["count"], strict=True)
    return [row[: int(count)].tolist() for row, count in rows]


OPTIONS = {"max_detections": 10, "score_threshold": 0.3}


@pytest.mark.parametrize("regular", [True, False], ids=["regular", "fast"])
@pytest.mark.parametrize(
    "kernels, target",
    [
        ("default", "litert"),
        ("reference", "reference"),
        pytest.param("tflite-micro", "tflite-micro", marks=needs_micro),
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


@pytest.mark.parametrize("scheme", ["int8", "uint8", "int8_per_tensor"])
def test_detection_of_other_schemes_and_order_of_outputs(tmp_path, scheme):
    qat, path = exported(tmp_path, detector(order=("scores", "boxes")), scheme, **OPTIONS)
    assert keras_qat.verify(qat, path, images(4), verbose=0).exact
    scores, boxes = (np.asarray(each)[0] for each in qat.predict(images(1), verbose=0))
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
    values = np.asarray(qat.predict(images(), verbose=0)[0])
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
    qat, path = exported(tmp_path, **OPTIONS)
    kernel = next(each for each in qat.trainable_variables if each.path.endswith("kernel"))
    kernel.assign(kernel * 0.9)
    report = keras_qat.verify(qat, path, images(5), verbose=0)
    assert not report.exact
    assert report.verdict.startswith("NOT EXACT UP TO TFLite_Detection_PostProcess")


@pytest.mark.parametrize("target", ["edgetpu", "ethos-u"])
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


def one_output():
    model = detector()
    return keras.Model(model.inputs, model.outputs[0])


def flat_boxes():
    model = detector()
    boxes = layers.Flatten(name="flat")(model.outputs[0])
    return keras.Model(model.inputs, [boxes, model.outputs[1]])


def fewer_scores():
    model = detector()
    return keras.Model(model.inputs, [model.outputs[0], model.outputs[1][:, :32]])


MISFITS = {
    "one output": (one_output, {}, {}, r"two outputs, boxes and scores"),
    "flat boxes": (flat_boxes, {"boxes": "flat"}, {}, r"do not have the shapes .*Reshape\(\(-1"),
    "fewer scores": (fewer_scores, {}, {}, r"do not have the shapes"),
    "anchors": (detector, {"anchors": anchors()[:-1]}, {}, r"one anchor for each box.*\(40, 4\)"),
    "classes": (detector, {"num_classes": 5}, {}, r"`num_classes` does not fit .*3, or 2 if"),
    "name": (detector, {"boxes": "box"}, {}, r"must name the two outputs .*boxes='box'"),
    "same name": (detector, {"boxes": "boxes", "scores": "boxes"}, {}, r"must name the two"),
    "batch size": (detector, {}, {"batch_size": 2}, r"one sample at a time"),
    "model's batch": (lambda: detector(batch_size=4), {}, {}, r"one sample .*'image': 4"),
    "type": (detector, {}, {"inference_output_type": "int8"}, r"are float32"),
    "anchors alone": (detector, {}, {"detection": anchors()}, r"`detection` is not .*a ndarray"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_detection_that_does_not_fit_the_model_writes_no_file(tmp_path, name):
    make, changed, options, message = MISFITS[name]
    qat = keras_qat.quantize_model(make())
    qat.set_default_ranges((-3, 3))
    detection = DetectionPostProcess(**{"anchors": anchors(), **changed})
    with pytest.raises(ExportError, match=message):
        keras_qat.export_litert(qat, tmp_path / "no.tflite", **{"detection": detection, **options})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"anchors": np.ones((3, 5))}, r"four finite numbers .*\(3, 5\)"),
        ({"anchors": np.ones(4)}, r"four finite numbers"),
        ({"anchors": np.zeros((0, 4))}, r"four finite numbers"),
        ({"anchors": "anchors"}, r"four finite numbers .*'anchors'"),
        ({"anchors": [[0, 0, 1, np.nan]]}, r"not finite"),
        ({"anchors": [[0, 0, 1, 0]]}, r"width of 0 or less"),
        ({"max_detections": 0}, r"max_detections=0"),
        ({"max_detections": 2.5}, r"max_detections=2.5"),
        ({"max_detections": True}, r"max_detections=True"),
        ({"detections_per_class": -1}, r"detections_per_class=-1"),
        ({"max_classes_per_detection": 2}, r"use_regular_nms=False"),
        (
            {
                "max_classes_per_detection": 2**12,
                "max_detections": 2**12,
                "use_regular_nms": False,
            },
            r"at most 256",
        ),
        ({"num_classes": "three"}, r"num_classes='three'"),
        ({"score_threshold": np.inf}, r"score_threshold=inf"),
        ({"iou_threshold": 0}, r"iou_threshold=0"),
        ({"iou_threshold": 1.5}, r"iou_threshold=1.5"),
        ({"scales": (1, 1, 1)}, r"four positive numbers"),
        ({"scales": (1, 1, 1, 0)}, r"four positive numbers"),
    ],
)
def test_detection_options_that_are_not_valid_are_errors(wrong, message):
    with pytest.raises(ExportError, match=message):
        DetectionPostProcess(**{"anchors": anchors(), **wrong})


def test_detection_takes_the_numbers_of_numpy_and_the_type_float32(tmp_path):
    qat, path = exported(tmp_path, max_detections=np.int64(10), score_threshold=np.float32(0.25))
    detection = DetectionPostProcess(anchors().tolist(), max_detections=10, score_threshold=0.25)
    options = {"batch_size": 1, "inference_output_type": "float32"}
    keras_qat.export_litert(qat, tmp_path / "same.tflite", detection=detection, **options)
    assert (tmp_path / "same.tflite").read_bytes() == path.read_bytes()
