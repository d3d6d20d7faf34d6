"""Boxes of the detector: their overlap, non-maximum suppression and average precision, in NumPy."""

from __future__ import annotations

import numpy as np


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each box of `a` with each box of `b`."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(x[:, 2:] - x[:, :2], axis=-1) for x in (a, b)]
    return both / (areas[0][:, None] + areas[1][None] - both)


def corners(boxes: np.ndarray) -> np.ndarray:
    """Converts y center, x center, height and width to y min, x min, y max and x max."""
    half = boxes[..., 2:] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float, iou: float) -> list[int]:
    """Returns the boxes of one class that do not overlap a better one, best first."""
    left = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= threshold]
    kept = []
    while left:
        first, *rest = left
        kept.append(first)
        near = overlaps(boxes[[first]], boxes[rest])[0]
        left = [i for i, overlap in zip(rest, near, strict=True) if overlap <= iou]
    return kept


def average_precision(found, boxes: np.ndarray, classes: np.ndarray, kind: int) -> float:
    """Returns the area under the curve of precision over recall of a class."""
    hits, scores = [], []
    for (own, kinds, each), real, true in zip(found, boxes, classes, strict=True):
        mine, left = own[kinds == kind], real[true == kind]
        for box in mine:  # best first
            near = overlaps(box[None], left)[0] if len(left) else np.zeros(1)
            hits.append(near.max() >= 0.5)
            left = np.delete(left, near.argmax(), axis=0) if hits[-1] else left
        scores.extend(each[kinds == kind])
    right = np.cumsum(np.array(hits, int)[np.argsort(-np.array(scores), kind="stable")])
    precision = right / np.arange(1, len(right) + 1)
    # The precision at a recall is the best one at that recall or a larger one.
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(best * np.diff(right, prepend=0)) / np.sum(classes == kind))


def mean_precision(found, boxes: np.ndarray, classes: np.ndarray) -> float:
    """Returns the mean of the average precision over the classes that occur."""
    kinds = np.unique(classes[classes >= 0])
    return float(np.mean([average_precision(found, boxes, classes, kind) for kind in kinds]))
