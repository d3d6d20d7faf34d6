"""Heads of the YOLO family as boxes with anchors, as docs/detection.md writes them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat import DetectionPostProcess
from tests import seeds
from tests.models import called, images, randomized
from tests.quick import some_quick

CELLS = 4
STEP = 1 / CELLS
CORNERS = np.mgrid[:CELLS, :CELLS].reshape(2, -1).T * STEP
PRIORS = np.tile([0.3, 0.45], (CELLS * CELLS, 1))
RATIO = (STEP / PRIORS).astype("float32")
LOG_4 = float(2 * np.log(2))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# For each head: the boxes of the page in `keras.ops`, the anchors of the page, and the head's own
# decoding to centers and sizes in NumPy. `t` and `u` are the raw outputs for a cell.
HEADS = {
    "yolov3": (
        lambda t, u: (ops.sigmoid(t) * RATIO, u),
        (CORNERS, PRIORS),
        lambda t, u: ((sigmoid(t) + CORNERS / STEP) * STEP, PRIORS * np.exp(u)),
    ),
    "yolov5": (
        lambda t, u: ((2 * ops.sigmoid(t) - 0.5) * RATIO, 2 * ops.log_sigmoid(u) + LOG_4),
        (CORNERS, PRIORS),
        lambda t, u: (
            (sigmoid(t) * 2 - 0.5 + CORNERS / STEP) * STEP,
            PRIORS * (sigmoid(u) * 2) ** 2,
        ),
    ),
    "yolox": (
        lambda t, u: (t, u),
        (CORNERS, np.full_like(CORNERS, STEP)),
        lambda t, u: ((t + CORNERS / STEP) * STEP, np.exp(u) * STEP),
    ),
    "yolov8": (
        lambda t, u: ((u - t) / 2, ops.log(ops.maximum(t + u, 1 / 16))),
        (CORNERS + STEP / 2, np.full_like(CORNERS, STEP)),
        lambda t, u: (
            (CORNERS / STEP + 0.5 + (u - t) / 2) * STEP,
            np.maximum(t + u, 1 / 16) * STEP,
        ),
    ),
}


def head(name):
    """Makes a model of boxes and scores, and one of the raw outputs with the same weights."""
    seeds.seed(1)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    # Distances to the sides of a box are not negative.
    activation = "softplus" if name == "yolov8" else None
    t, u = (layers.Reshape((-1, 2))(layers.Conv2D(2, 1, activation=activation)(x)) for _ in "tu")
    item, kind = (layers.Reshape((-1, n))(layers.Conv2D(n, 1)(x)) for n in (1, 3))
    boxes = ops.concatenate(HEADS[name][0](t, u), axis=-1)
    model = keras.Model(image, [boxes, ops.sigmoid(item) * ops.sigmoid(kind)])
    return randomized(model), keras.Model(image, [t, u])


@pytest.mark.parametrize("name", some_quick(HEADS, 3))
def test_yolo_head_is_decoded_as_the_head_decodes_it(name, tmp_path):
    (model, raw), (_, anchors, decode) = head(name), HEADS[name]
    qat = keras_qat.quantize_model(model, calibration_data=images(32))
    path = tmp_path / "yolo.tflite"
    # Every box is a detection, since none suppresses another.
    options = {"score_threshold": 0.0, "iou_threshold": 1.0, "use_regular_nms": False}
    detection = DetectionPostProcess(np.concatenate(anchors, axis=-1), **options)
    keras_qat.export_litert(qat, path, detection=detection)
    assert keras_qat.verify(qat, path, images(4), verbose=0).exact

    centers, sizes = decode(*(np.asarray(x)[0] for x in called(raw, images(1))))
    corners = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=-1)
    found = keras_qat.LiteRTModel(path).predict(images(1), verbose=0)
    assert found["count"] == [len(corners)]
    scores = np.asarray(called(qat, images(1))[1])[0].max(axis=-1)
    order = np.argsort(-scores, kind="stable")
    error = np.abs(found["boxes"][0, : len(corners)] - corners[order])
    assert error.max() < 0.05 and error.mean() < 0.01  # the boxes have 8 bits
