"""The operator that turns the boxes and scores of a detector into a list of detections."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_qat.errors import ExportError
from keras_qat.graph.graph import unique_name
from keras_qat.litert import Model, Operator, Tensor
from keras_qat.litert.format.custom_options import custom_code
from keras_qat.litert.writing.validation import model_tensors

NAME = "TFLite_Detection_PostProcess"
CODE = custom_code(NAME)
_COORDINATES = 4
_COUNTS = ("max_detections", "detections_per_class", "max_classes_per_detection")
# The kernel makes room for so many detections at once.
_MOST_DETECTIONS = 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionPostProcess:
    """Decoding of boxes and non-maximum suppression, as the last operator of a file.

    The operator is `TFLite_Detection_PostProcess`, which LiteRT, TensorFlow Lite Micro and the Edge
    TPU's runtime have. It is not quantized. It takes the real values of boxes and scores, and
    computes in float:

        center = anchor center + box center / scale * anchor size
        size = anchor size * exp(box size / scale)

    The model has two outputs of real values: boxes of shape `(1, n, 4)`, each (y center, x center,
    height, width), and scores of shape `(1, n, classes)`, which are probabilities. The file has the
    outputs `"boxes"`, `"classes"`, `"scores"` and `"count"`, all float32. For
    `m = max_detections * max_classes_per_detection` these are (y min, x min, y max, x max) of shape
    `(1, m, 4)`, the numbers of the classes and their scores, `(1, m)`, sorted by score, and the
    number of detections, `(1,)`.

    Args:
        anchors: The anchors, of shape `(n, 4)`: y center, x center, height and width of each, in
            the unit that the boxes of the file are to have.
        boxes: Name of the output that has the boxes. By default the one whose last axis has the
            size 4.
        scores: Name of the output that has the scores. By default the other one.
        num_classes: Number of classes without a background. By default the size of the last axis of
            the scores. If it is one less, the first score is that of the background.
        scales: The factors (y, x, height, width) by which the boxes are divided: those that the
            targets of the training were multiplied by.
        max_detections: The largest number of detections.
        score_threshold: Detections with a smaller score are dropped.
        iou_threshold: Of two boxes whose intersection over union is larger, the one with the
            smaller score is dropped.
        use_regular_nms: Whether boxes of different classes never suppress each other, and a box can
            be a detection of several classes. Otherwise the kernel compares all boxes, each with
            its largest score. This is faster for many classes. The entries of the outputs after
            `"count"` are then not set, and hold any values.
        detections_per_class: The largest number of detections of a class, if `use_regular_nms`.
        max_classes_per_detection: The number of classes that are returned for each box, unless
            `use_regular_nms`.

    Raises:
        ExportError: If the anchors or an option are not valid.

    Example:
    >>> import pathlib, tempfile, keras, keras_qat
    >>> image = keras.Input((8, 8, 3))
    >>> x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    >>> boxes = keras.layers.Reshape((-1, 4), name="box")(keras.layers.Conv2D(4, 1)(x))
    >>> scores = keras.layers.Conv2D(2, 1, activation="sigmoid")(x)
    >>> scores = keras.layers.Reshape((-1, 2), name="score")(scores)
    >>> qat = keras_qat.quantize_model(keras.Model(image, [boxes, scores]))
    >>> images = np.random.default_rng(0).uniform(size=(4, 8, 8, 3))
    >>> keras_qat.calibrate(qat, images, verbose=0)
    >>> y, x = (np.mgrid[:4, :4].reshape(2, 16) + 0.5) / 4
    >>> anchors = np.stack([y, x, np.full(16, 0.3), np.full(16, 0.3)], axis=-1)
    >>> path = pathlib.Path(tempfile.mkdtemp(), "detector.tflite")
    >>> detection = DetectionPostProcess(anchors, max_detections=10, score_threshold=0.1)
    >>> _ = keras_qat.export_litert(qat, path, detection=detection)
    >>> found = keras_qat.LiteRTModel(path).predict(images, verbose=0)
    >>> {name: values.shape for name, values in found.items()}
    {'boxes': (4, 10, 4), 'classes': (4, 10), 'scores': (4, 10), 'count': (4,)}
    """

    anchors: np.ndarray
    boxes: str | None = None
    scores: str | None = None
    num_classes: int | None = None
    scales: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    max_detections: int = 100
    score_threshold: float = 0.5
    iou_threshold: float = 0.5
    use_regular_nms: bool = True
    detections_per_class: int = 100
    max_classes_per_detection: int = 1

    def __post_init__(self):
        object.__setattr__(self, "anchors", _checked_anchors(self.anchors))
        for name in _COUNTS:
            value = getattr(self, name)
            if not _is_count(value) or not 1 <= value <= _MOST_DETECTIONS:
                raise _invalid(name, value, f"an integer from 1 to {_MOST_DETECTIONS}")
        if self.num_classes is not None and not _is_count(self.num_classes):
            raise _invalid("num_classes", self.num_classes, "an integer, or None")
        if not _is_number(self.score_threshold):
            raise _invalid("score_threshold", self.score_threshold, "a finite number")
        if not _is_number(self.iou_threshold) or not 0 < self.iou_threshold <= 1:
            raise _invalid("iou_threshold", self.iou_threshold, "a number above 0 and at most 1")
        is_sequence = isinstance(self.scales, (list, tuple)) and len(self.scales) == _COORDINATES
        if not is_sequence or not all(_is_number(each) and each > 0 for each in self.scales):
            raise _invalid("scales", self.scales, "four positive numbers: y, x, height, width")
        each, most = self.max_classes_per_detection, _MOST_DETECTIONS // self.max_detections
        if self.use_regular_nms and each != 1:
            # The kernel would leave the other entries of its outputs unset.
            raise _invalid("max_classes_per_detection", each, "1, or use_regular_nms=False")
        if each > most:
            raise _invalid("max_classes_per_detection", each, f"at most {most}")

    def append_to(self, model: Model) -> Model:
        """Returns a model with the operator at its end.

        Args:
            model: A model with two float32 outputs, boxes and scores, for one sample.

        Returns:
            The model. Its other tensors are the same.

        Raises:
            ExportError: If the outputs do not fit each other, the anchors or `num_classes`.
        """
        boxes, scores = self._ends(model.outputs)
        self._check_shapes(boxes, scores)
        used = [tensor.name for tensor in model_tensors(model)]
        anchors = self.anchors
        data = Tensor(unique_name("anchors", used), anchors.shape, "float32", data=anchors)
        outputs = self._outputs(used)
        inputs = boxes, scores, data
        operator = Operator(CODE, inputs, tuple(outputs.values()), 1, self._options(scores))
        return dataclasses.replace(model, outputs=outputs, operators=(*model.operators, operator))

    def _ends(self, outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Returns the tensors of the boxes and of the scores."""
        found = {name: list(x.shape) for name, x in outputs.items()}
        if len(outputs) != 2 or len(set(outputs.values())) != 2:
            raise ExportError(
                "Post-processing takes a model with two outputs, boxes and scores.",
                received=f"the outputs {found}",
                expected=f"boxes of shape [1, {len(self.anchors)}, 4], and scores",
                fix="Make such a model: `keras.Model(model.inputs, [boxes, scores])`.",
            )
        boxes, scores = self.boxes, self.scores
        fours = [name for name, x in outputs.items() if x.shape and x.shape[-1] == _COORDINATES]
        names = list(outputs)
        if boxes is None and scores is None and len(fours) == 1:
            boxes = fours[0]
        if boxes is None and scores in names:
            boxes = next(name for name in names if name != scores)
        if scores is None and boxes in names:
            scores = next(name for name in names if name != boxes)
        if boxes not in names or scores not in names or boxes == scores:
            raise ExportError(
                "`boxes` and `scores` must name the two outputs of the model.",
                received=f"boxes={self.boxes!r} and scores={self.scores!r} for outputs {found}",
                expected=f"two names among {names}",
                fix=f"Pass `boxes={names[0]!r}, scores={names[1]!r}`, or the other way round.",
            )
        return outputs[str(boxes)], outputs[str(scores)]

    def _check_shapes(self, boxes: Tensor, scores: Tensor) -> None:
        shapes = f"boxes of shape {list(boxes.shape)} and scores of shape {list(scores.shape)}"
        is_readable = len(boxes.shape) == len(scores.shape) == 3
        if not is_readable or boxes.shape[-1] != _COORDINATES or boxes.shape[1] != scores.shape[1]:
            raise ExportError(
                "Boxes and scores do not have the shapes that post-processing takes.",
                layer=boxes.name,
                received=shapes,
                expected="boxes of shape [1, n, 4] and scores of shape [1, n, classes]",
                fix="End the model with `keras.layers.Reshape((-1, 4))` for the boxes and "
                "`keras.layers.Reshape((-1, classes))` for the scores, and concatenate those of "
                "several feature maps with `axis=1`.",
            )
        if len(self.anchors) != boxes.shape[1]:
            raise ExportError(
                "There must be one anchor for each box.",
                layer=boxes.name,
                received=f"{len(self.anchors)} anchors for {shapes}",
                expected=f"anchors of shape ({boxes.shape[1]}, 4)",
                fix="Make the anchors in the order in which the model makes boxes.",
            )
        size = int(scores.shape[-1] or 0)
        if self.num_classes is not None and self.num_classes not in (size, size - 1):
            raise ExportError(
                "`num_classes` does not fit the scores.",
                layer=scores.name,
                received=f"num_classes={self.num_classes} for {shapes}",
                expected=f"{size}, or {size - 1} if the first class is the background",
                fix=f"Pass num_classes={size}, or leave it out.",
            )

    def _outputs(self, used: list[str]) -> dict[str, Tensor]:
        """Returns the outputs of the operator. Tensors have the names that other tools give."""
        count = self.max_detections * self.max_classes_per_detection
        shapes = {
            "boxes": (1, count, _COORDINATES),
            "classes": (1, count),
            "scores": (1, count),
            "count": (1,),
        }
        names = [NAME, *(f"{NAME}:{place}" for place in range(1, len(shapes)))]
        return {
            end: Tensor(unique_name(name, used), shape, "float32")
            for (end, shape), name in zip(shapes.items(), names, strict=True)
        }

    def _options(self, scores: Tensor) -> dict[str, bool | int | float]:
        """Returns the options that the kernel reads."""
        classes = scores.shape[-1] if self.num_classes is None else self.num_classes
        scales = zip(("y_scale", "x_scale", "h_scale", "w_scale"), self.scales, strict=True)
        return {
            **{name: int(getattr(self, name)) for name in _COUNTS},
            "num_classes": int(classes or 0),
            "use_regular_nms": bool(self.use_regular_nms),
            "nms_score_threshold": float(self.score_threshold),
            "nms_iou_threshold": float(self.iou_threshold),
            **{name: float(value) for name, value in scales},
        }


def check_ends(
    detection: Any, inputs: Mapping[str, tuple[int | None, ...]], output_type: Any, batch: Any
) -> None:
    """Checks the arguments of an export with post-processing that concern the file's ends.

    Args:
        detection: `detection` of `export_litert`.
        inputs: The shapes of the model's inputs by name.
        output_type: `inference_output_type` of `export_litert`.
        batch: `batch_size` of `export_litert`.

    Raises:
        ExportError: If `detection` is something else, the outputs are to be integers, or the batch
            size is not 1.
    """
    if not isinstance(detection, DetectionPostProcess):
        raise ExportError(
            "`detection` is not a `DetectionPostProcess`.",
            received=f"a {type(detection).__name__}",
            fix="Pass `detection=keras_qat.DetectionPostProcess(anchors)`.",
        )
    if output_type not in (None, "float32", np.float32):
        raise ExportError(
            "The outputs of post-processing are float32.",
            received=f"inference_output_type={output_type!r}",
            expected='None or "float32"',
            fix="Leave `inference_output_type` out. For integer outputs, export without "
            "`detection`, and decode the boxes in your own code.",
        )
    sizes = {name: shape[0] for name, shape in inputs.items()}
    if batch not in (None, 1) or not {*sizes.values()} <= {None, 1}:
        raise ExportError(
            "Post-processing takes one sample at a time.",
            received=f"batch_size={batch!r}, and inputs with the batch sizes {sizes}",
            expected="a batch size of 1",
            fix="Leave `batch_size` out, and build the model with `keras.Input(shape)`.",
        )


def _checked_anchors(anchors: Any) -> np.ndarray:
    """Returns the anchors as a float32 array."""
    try:
        array = np.array(anchors, "float32")
    except (TypeError, ValueError):
        raise _wrong_anchors(repr(anchors)) from None
    if array.ndim != 2 or array.shape[1:] != (_COORDINATES,) or not array.size:
        raise _wrong_anchors(f"anchors of shape {array.shape}")
    if not np.isfinite(array).all() or not (array[:, 2:] > 0).all():
        raise _wrong_anchors("numbers that are not finite, or a height or width of 0 or less")
    array.setflags(write=False)
    return array


def _wrong_anchors(received: str) -> ExportError:
    return ExportError(
        "The anchors must be an array with four finite numbers for each box.",
        received=received,
        expected="y center, x center, height and width of each anchor, of shape (n, 4)",
        fix="Stack them: `np.stack([y, x, height, width], axis=-1)`.",
    )


def _invalid(name: str, value: Any, expected: str) -> ExportError:
    return ExportError(
        "An option of the post-processing is not valid.",
        received=f"{name}={value!r}",
        expected=expected,
        fix=f"Change `{name}`, or leave it out.",
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float, np.integer, np.floating))
    return is_real and not isinstance(value, bool) and math.isfinite(value)
