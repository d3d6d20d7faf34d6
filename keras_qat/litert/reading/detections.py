"""Checks the operands of TFLite_Detection_PostProcess, whose kernel does not check all of them.

The kernel (tflite/kernels/detection_postprocess.cc) reads an anchor for each box, and makes room
for as many detections as its options say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_qat.litert.format.element_types import element_type
from keras_qat.litert.format.flatbuffer import Damage, Record

_MOST_DETECTIONS = 2**20
_COORDINATES = 4
_COUNTS = ("max_detections", "max_classes_per_detection", "num_classes")


def check_detections(
    inputs: Sequence[Record | None], options: Mapping[str, Any], where: str
) -> None:
    """Checks that the kernel reads and writes only the memory of its tensors.

    Args:
        inputs: The tables of its operands: boxes, scores and anchors.
        options: Its options by name.
        where: The operator, for messages.

    Raises:
        Damage: If types, shapes or options do not fit each other.
    """
    boxes, scores, anchors = (_shape(tensor) for tensor in inputs)
    types = [element_type(tensor["type"]) for tensor in inputs if tensor is not None]
    if types[0] not in ("float32", "uint8") or types[1] not in ("float32", "uint8"):
        raise Damage(where, f"it has no kernel for inputs of types {types[:2]}")
    if types[2] != types[0]:
        raise Damage(where, f"its anchors are {types[2]}, and its boxes {types[0]}")
    is_readable = len(boxes) == len(scores) == 3 and boxes[:2] == scores[:2]
    if not is_readable or boxes[0] != 1 or boxes[2] < _COORDINATES:
        raise Damage(where, f"its boxes have shape {boxes}, and its scores {scores}")
    if len(anchors) != 2 or anchors[0] < boxes[1] or anchors[1] != _COORDINATES:
        raise Damage(where, f"its boxes have shape {boxes}, and its anchors {anchors}")
    counts = {name: options.get(name, 0) for name in _COUNTS}
    counts["detections_per_class"] = options.get("detections_per_class", 1)
    if not all(1 <= count <= _MOST_DETECTIONS for count in counts.values()):
        raise Damage(where, f"its options are {counts}")
    if counts["max_detections"] * counts["max_classes_per_detection"] > _MOST_DETECTIONS:
        raise Damage(where, f"its options are {counts}")
    if scores[2] - counts["num_classes"] not in (0, 1):
        raise Damage(where, f"it has {counts['num_classes']} classes, and scores {scores}")


def _shape(tensor: Record | None) -> list[int]:
    return [] if tensor is None else tensor.integers("shape")
