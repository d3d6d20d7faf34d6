"""Object detection with a small SSD: uint8 pixels in, boxes, classes and scores out.

The network finds the digits in an image: scikit-learn's handwritten digits of any size and colour,
one to three on a noisy gradient. It predicts boxes and scores of anchors at two resolutions, which
are two outputs with ranges of their own. The file ends with the decoding of boxes and the
non-maximum suppression, so it returns a list of detections.

    python examples/detector.py                   # generated images, offline
    python examples/detector.py --data own.npz    # your own images and boxes

The second takes three arrays: `images`, uint8 of shape (n, height, width, channels); `boxes`, the
boxes of each image of shape (n, most, 4), (y min, x min, y max, x max) as fractions of its height
and width; and `classes`, integers of shape (n, most), with a class from 0 for each box and -1 for
boxes that are not there. Height and width must be multiples of 16. One image in ten is for the
test.

The first prints, after 105 seconds of processor time:

    Float: 1692 steps
    Quantized: 282 steps
    500 images that were not trained on, 765 boxes of 10 classes

    | model                   | mean AP at 0.5 | detections |
    |-------------------------|----------------|------------|
    | Keras, float            |         0.9034 |       6228 |
    | Keras, int8, calibrated |         0.9028 |       6242 |
    | Keras, int8, trained    |         0.9107 |       5867 |
    | .tflite                 |         0.9107 |       5867 |


    The average precision (AP) of a class is the area under the curve of precision over recall.
    A detection is right if it overlaps a box of its class by half of their union. The rows of
    Keras use decoding and suppression in NumPy, the row of the file those of its last operator,
    which computes in float. The integers before it equal those of Keras. The model trained in
    int8 had two more epochs than the one in float, so its precision may be larger.

    Operators: CONV_2D 11, RESHAPE 4, LOGISTIC 2, CONCATENATION 2, DEQUANTIZE 2, QUANTIZE 1,
    CUSTOM(TFLite_Detection_PostProcess) 1
    Integers that differ: 0 of 2,402,304
    The file: build/detector/detector_int8.tflite, 173.9 kB
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import textwrap
from collections import Counter

import keras
import numpy as np
from boxes import corners, mean_precision, overlaps, suppress
from keras import layers, ops
from report import console, load_arrays, positive, print_table, prove
from sklearn.datasets import load_digits

import keras_qat

SIZE = 64  # height and width of the generated images in pixels
MOST = 3  # boxes of a generated image
# The sizes of the anchors, as fractions of the image, by the pixels of a cell.
ANCHORS = {8: (0.2, 0.3), 16: (0.4, 0.5)}
WIDTH = 0.75  # of an anchor, as a fraction of its height
THRESHOLD, IOU, MOST_FOUND = 0.1, 0.5, 20  # of the non-maximum suppression
TEST = 10  # one image in so many is for the test
BATCH = 32
SIDES = np.array([[-1, 0], [0, -1], [1, 0], [0, 1]])  # corners times it are height and width

WHAT_TO_LOOK_AT = """
The average precision (AP) of a class is the area under the curve of precision over recall.
A detection is right if it overlaps a box of its class by half of their union. The rows of
Keras use decoding and suppression in NumPy, the row of the file those of its last operator,
which computes in float. The integers before it equal those of Keras. The model trained in
int8 had two more epochs than the one in float, so its precision may be larger.
"""


def draw(random: np.random.Generator, digits: list[np.ndarray], labels: np.ndarray):
    """Returns an image, uint8 of shape (SIZE, SIZE, 3), its boxes and their classes."""
    rows, columns = np.mgrid[:SIZE, :SIZE][..., None] / SIZE
    image = random.uniform(40, 160, 3) + (rows - 0.5) * random.uniform(-60, 60, 3)
    image += (columns - 0.5) * random.uniform(-60, 60, 3)
    boxes, classes = np.zeros((MOST, 4)), np.full(MOST, -1)
    for place in range(random.integers(1, MOST + 1)):
        chosen = random.integers(len(digits))
        height = int(random.integers(14, 30))
        width = max(height * digits[chosen].shape[1] // 8, 5)
        y, x = random.integers(1, SIZE - height), random.integers(1, SIZE - width)
        box = np.array([[y, x, y + height, x + width]]) / SIZE
        if place and overlaps(box, boxes[:place]).max() > 0:
            continue
        sides = zip((height, width), digits[chosen].shape, strict=True)
        scale = [np.arange(wanted) * own // wanted for wanted, own in sides]
        ink = digits[chosen][np.ix_(*scale)][..., None]
        area = image[y : y + height, x : x + width]
        area += ink * (random.uniform(190, 255, 3) - area)
        boxes[place], classes[place] = box[0], labels[chosen]
    noisy = image + random.normal(0, 8, image.shape)
    return np.clip(noisy, 0, 255).astype("uint8"), boxes.astype("float32"), classes


def generated_digits(count: int = 5000):
    """Returns images, boxes and classes for training and test, and the number of classes."""
    random, data = np.random.default_rng(0), load_digits()
    # The ink of each digit, from 0 to 1, without empty columns at its sides.
    digits = [image[:, image.max(axis=0) > 0] / 16 for image in data.images]
    parts = [(digits[i::2], data.target[i::2]) for i in range(2)]  # no digit is in both
    pictures = [draw(random, *parts[i % TEST == 0]) for i in range(count)]
    return split(*map(np.stack, zip(*pictures, strict=True))), 10


def own_data(path: pathlib.Path):
    """Returns images, boxes and classes from a file, and the number of classes."""
    images, boxes, classes = load_arrays(path, ("images", "boxes", "classes"))
    is_pixels = images.ndim == 4 and images.dtype == np.uint8 and len(images) > TEST
    if not is_pixels or images.shape[1] % 16 or images.shape[2] % 16:
        sys.exit(
            f"{path}: 'images' must be more than {TEST}, uint8 of shape (n, height, width, "
            f"channels), height and width multiples of 16, and are {images.dtype} of shape "
            f"{images.shape}."
        )
    is_whole = np.issubdtype(classes.dtype, np.integer) and classes.ndim == 2
    if not is_whole or len(classes) != len(images) or np.min(classes) < -1 or np.max(classes) < 0:
        sys.exit(
            f"{path}: 'classes' must be integers from 0, or -1 for no box, of shape "
            f"({len(images)}, most), and are {classes.dtype} of shape {classes.shape}."
        )
    if boxes.shape != (*classes.shape, 4) or np.any(boxes[classes >= 0] @ SIDES <= 0):
        sys.exit(
            f"{path}: 'boxes' must be (y min, x min, y max, x max) of shape {(*classes.shape, 4)}, "
            f"and are of shape {boxes.shape}, or have no height or width."
        )
    return split(images, boxes.astype("float32"), classes), int(np.max(classes)) + 1


def split(*arrays: np.ndarray):
    """Splits the data. One image in five is for the test."""
    is_test = np.arange(len(arrays[0])) % TEST == 0
    return [x[~is_test] for x in arrays], [x[is_test] for x in arrays]


def build_ssd(shape: tuple[int, ...], classes: int) -> keras.Model:
    """Makes a network with boxes and scores for the anchors of two feature maps."""
    image = keras.Input(shape, name="pixels")
    x = layers.Rescaling(1 / 255)(image)  # folded, so the integers are the pixels
    boxes, scores = [], []
    for filters, strides in ((16, 2), (24, 2), (32, 1), (48, 2), (64, 1), (64, 2), (64, 1)):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        step = shape[0] // x.shape[1]
        if filters == 64 and strides == 1:
            kinds = len(ANCHORS[step])
            box = layers.Conv2D(4 * kinds, 3, padding="same")(x)
            rare = keras.initializers.Constant(-3.0)  # most anchors have no object
            score = layers.Conv2D(classes * kinds, 3, padding="same", bias_initializer=rare)(x)
            boxes.append(layers.Reshape((-1, 4))(box))
            scores.append(layers.Reshape((-1, classes))(layers.Activation("sigmoid")(score)))
    parts = {"box": boxes, "score": scores}
    ends = [layers.Concatenate(axis=1, name=name)(part) for name, part in parts.items()]
    return keras.Model(image, ends, name="ssd")


def make_anchors(shape: tuple[int, ...]) -> np.ndarray:
    """Returns y center, x center, height and width of each anchor, in the order of the boxes."""
    found = []
    for step, sizes in ANCHORS.items():
        rows, columns = shape[0] // step, shape[1] // step
        y, x = np.mgrid[:rows, :columns][..., None] + 0.5
        size = np.array(sizes)
        each = np.broadcast_arrays(y / rows, x / columns, size, size * WIDTH)
        found.append(np.stack(each, axis=-1).reshape(-1, 4))
    return np.concatenate(found).astype("float32")


def targets(anchors: np.ndarray, boxes: np.ndarray, classes: np.ndarray, count: int):
    """Returns the targets of the boxes, with 1 for those to learn, and of the scores."""
    box, score = (
        np.zeros((len(boxes), len(anchors), 5)),
        np.zeros((len(boxes), len(anchors), count)),
    )
    for i, kinds in enumerate(classes):
        real, own = boxes[i][kinds >= 0], kinds[kinds >= 0]
        if not len(real):
            continue
        found = overlaps(corners(anchors), real)
        best = found.argmax(axis=1)
        best[found.argmax(axis=0)] = np.arange(len(real))  # each box has an anchor
        is_near = found.max(axis=1) > 0.4
        is_near[found.argmax(axis=0)] = True
        matched, near = real[best[is_near]], anchors[is_near]
        center, size = (matched[:, :2] + matched[:, 2:]) / 2, matched[:, 2:] - matched[:, :2]
        box[i, is_near, :2] = (center - near[:, :2]) / near[:, 2:]
        box[i, is_near, 2:4] = np.log(size / near[:, 2:])
        box[i, is_near, 4] = 1
        score[i, is_near, own[best[is_near]]] = 1
    return box, score


def box_loss(true, found):
    """Returns the Huber loss of the boxes that an anchor has."""
    error = ops.abs(true[..., :4] - found)
    loss = ops.where(error < 0.1, 5 * ops.square(error), error - 0.05)
    count = ops.maximum(ops.sum(true[..., 4], axis=1), 1)
    return ops.sum(loss * true[..., 4:], axis=(1, 2)) / count


def score_loss(true, found):
    """Returns the focal loss of the scores, relative to the number of boxes."""
    found = ops.clip(found, 1e-6, 1 - 1e-6)
    right = true * found + (1 - true) * (1 - found)
    weight = (0.75 * true + 0.25 * (1 - true)) * ops.square(1 - right)
    return ops.sum(-weight * ops.log(right), axis=(1, 2)) / ops.maximum(ops.sum(true, (1, 2)), 1)


def fit(kind: str, model: keras.Model, images, wanted, epochs: int, rate: float) -> None:
    """Trains a model, in float or quantized, with a learning rate that falls to zero."""
    steps = epochs * -(-len(images) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), [box_loss, score_loss])
    console.print(f"{kind}: {steps} steps")
    model.fit(images, wanted, batch_size=BATCH, epochs=epochs, verbose=0)


def detect_in_keras(model: keras.Model, anchors: np.ndarray, images: np.ndarray):
    """Returns the detections of each image, (boxes, classes, scores), by decoding in NumPy."""
    found = []
    for box, score in zip(*map(np.asarray, model.predict(images, verbose=0)), strict=True):
        center = box[:, :2] * anchors[:, 2:] + anchors[:, :2]
        real = corners(np.concatenate([center, np.exp(box[:, 2:]) * anchors[:, 2:]], axis=-1))
        kept = [
            (i, kind)
            for kind, each in enumerate(score.T)
            for i in suppress(real, each, THRESHOLD, IOU)
        ]
        best = sorted(kept, key=lambda each: -score[each])[:MOST_FOUND]
        places, kinds = np.array(best, int).reshape(-1, 2).T
        found.append((real[places], kinds, score[places, kinds]))
    return found


def detect_in_file(path: pathlib.Path, images: np.ndarray):
    """Returns the detections of each image by the file."""
    found = keras_qat.LiteRTModel(path).predict(images, verbose=0)
    ends = zip(*(found[name] for name in ("boxes", "classes", "scores", "count")), strict=True)
    return [tuple(end[: int(count)] for end in one) for *one, count in ends]


def main() -> None:
    """Trains in float, quantizes, trains, exports, detects, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="an .npz file: images, boxes, classes")
    parser.add_argument(
        "--epochs", type=positive, default=12, help="epochs in float; two more are quantized"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/detector"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    (training, test), classes = own_data(args.data) if args.data else generated_digits()
    (images, *real), (unseen, *true) = training, test
    anchors = make_anchors(images.shape[1:])
    wanted = targets(anchors, *real, classes)

    model = build_ssd(images.shape[1:], classes)
    fit("Float", model, images, wanted, args.epochs, 4e-3)
    found = {"Keras, float": detect_in_keras(model, anchors, unseen)}
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, images[:200], verbose=0)  # uint8, so the integers are the pixels
    found["Keras, int8, calibrated"] = detect_in_keras(qat, anchors, unseen)
    fit("Quantized", qat, images, wanted, 2, 4e-4)
    found["Keras, int8, trained"] = detect_in_keras(qat, anchors, unseen)

    path = args.output / "detector_int8.tflite"
    limits = {"score_threshold": THRESHOLD, "iou_threshold": IOU, "max_detections": MOST_FOUND}
    detection = keras_qat.DetectionPostProcess(anchors, **limits)
    keras_qat.export_litert(qat, path, inference_input_type="uint8", detection=detection)
    found[".tflite"] = detect_in_file(path, unseen)
    rows = [
        (name, mean_precision(each, *true), sum(len(kinds) for _, kinds, _ in each))
        for name, each in found.items()
    ]
    boxes = int(np.sum(true[1] >= 0))
    title = f"{len(unseen)} images that were not trained on, {boxes} boxes of {classes} classes"
    print_table(title, ("model", "mean AP at 0.5", "detections"), rows)
    console.print(WHAT_TO_LOOK_AT)
    counts = Counter(operator.name for operator in keras_qat.inspect_litert(path).operators)
    operators = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    console.print(textwrap.fill(f"Operators: {operators}", 92))
    prove(qat, path, unseen[:32])


if __name__ == "__main__":
    main()
