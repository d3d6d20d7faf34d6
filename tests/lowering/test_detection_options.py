"""Options of detections, and models that they do not fit."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat import DetectionPostProcess
from keras_qat.errors import ExportError
from tests.lowering.detectors import (
    anchors,
    calibrated,
    calibrated_detector,
    detector,
    exported,
)


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
    qat = calibrated_detector() if make is detector else calibrated(make())
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
