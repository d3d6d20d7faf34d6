"""A small detector, and its detections decoded and suppressed in NumPy."""

import functools

import keras
import numpy as np
from keras import layers

import keras_qat
from keras_qat import DetectionPostProcess
from tests import seeds
from tests.models import images, randomized

CLASSES = 3


SIZES = {4: 0.35, 2: 0.6}  # of the anchors, by the rows of a feature map


def detector(classes=CLASSES, order=("boxes", "scores"), activation="sigmoid", batch_size=None):
    """Makes a small SSD: boxes and scores of two feature maps, two for each position."""
    seeds.seed(1)
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


def calibrated(model, scheme="int8", target="litert"):
    qat = keras_qat.quantize_model(model, scheme, target=target)
    keras_qat.calibrate(qat, images(), verbose=0)
    return qat


@functools.cache
def calibrated_detector(*arguments):
    """Returns the calibrated detector. All tests share it: do not change it."""
    return calibrated(detector(), *arguments)


def exported(folder, model=None, scheme="int8", target="litert", **options):
    arguments = scheme, target
    qat = calibrated(model, *arguments) if model else calibrated_detector(*arguments)
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
    boxes, scores = (np.asarray(each) for each in qat(data))
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
