"""How a training step changes the state of an observer."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

from keras_qat.backend import traced_once
from keras_qat.quantizers.reach import is_narrow, reach_width
from keras_qat.quantizers.specification import Free

# Values of `held`. `FROZEN` is added while the layer of the tensor is not trainable.
MOVING, HELD, REPLACED = 0, 1, -1
FROZEN = 4

# A range is replaced if it fits none of this many samples in a row. A single sample may be an
# outlier, or small.
_ENOUGH_SAMPLES = 64
# Data that takes less of the usual range may be of another kind, and would lose two bits there.
_FAIR_PART = 0.25


class State(NamedTuple):
    """The state of an observer: the values of its variables, see `RangeObserver`."""

    minimum: Any
    maximum: Any
    updates: Any
    seen: Any
    held: Any
    unfit: Any


@traced_once
def next_state(minimum, maximum, updates, seen, held, unfit, parts, *, specification):
    """Returns the state after a batch.

    Args:
        minimum: float32 scalar tensor.
        maximum: float32 scalar tensor.
        updates: int32 scalar tensor.
        seen: float32 tensor of shape (2,).
        held: int32 scalar tensor.
        unfit: int32 scalar tensor.
        parts: float32 tensor of shape (replicas, 4), the `batch_reach` on each replica, which has
            a part of the batch.
        specification: The specification of the tensor.
    """
    batch, counts = ops.max(parts[:, :2], axis=0), ops.sum(parts[:, 2:], axis=0)
    far, count = counts[0], counts[1]
    old = ops.stack([-minimum, maximum])
    old_width = reach_width(old)
    is_seen = ops.isfinite(batch[0])
    batch = ops.where(is_seen, _usual_reach(batch, specification), seen)
    share = far / count
    is_frozen = is_held_frozen(held)
    is_unfit = ops.logical_or(share > 0.5, is_narrow(batch, old_width))
    unfit = ops.where(is_unfit, unfit + ops.cast(count, "int32"), 0)
    is_replaced = unfit >= _ENOUGH_SAMPLES
    if specification.keeps_calibration:
        is_replaced = ops.logical_and(is_replaced, held != HELD)
    is_replaced = ops.logical_and(is_replaced, ops.logical_not(is_frozen))
    is_range = ops.logical_and(old_width > 0, ops.isfinite(maximum - minimum))
    is_known = ops.logical_and(is_range, updates > 0)
    is_replaced = ops.logical_or(is_replaced, ops.logical_not(is_known))
    # Far samples may be outliers. They move the range by their share of the batch.
    limit = old_width * ops.where(share > 0, share, 1.0)
    seen = ops.where(is_replaced, batch, specification.rule.moved(seen, batch, limit))
    is_kept = ops.logical_or(is_frozen, ops.logical_not(is_replaced))
    held = ops.where(is_kept, held, -ops.abs(held))
    is_fixed = ops.logical_or(held == HELD, ops.logical_and(is_frozen, is_known))
    new = ops.where(is_fixed, old, seen)
    unfit = ops.where(is_replaced, 0, unfit)
    updates = ops.where(is_seen, ops.maximum(updates, 0) + 1, updates)
    return State(-new[0], new[1], updates, seen, held, unfit)


def is_held_frozen(held):
    """Returns whether `FROZEN` was added to a value of `held`.

    Args:
        held: int32 scalar tensor, or a number.

    Example:
    >>> [is_held_frozen(each) for each in (HELD, HELD + FROZEN, REPLACED + FROZEN)]
    [False, True, True]
    """
    return held >= REPLACED + FROZEN


def frozen(held, updates, is_frozen: bool):
    """Returns the value of `held` after a layer was frozen, or became trainable again.

    Args:
        held: int32 scalar tensor.
        updates: int32 scalar tensor. A tensor that was not observed yet has no range to hold.
        is_frozen: Whether the layer was frozen.
    """
    changes = is_held_frozen(held) != is_frozen
    if is_frozen:
        return ops.where(ops.logical_and(changes, updates > 0), held + FROZEN, held)
    return ops.where(changes, held - FROZEN, held)


def _usual_reach(reach, specification: Free):
    low, high = usual(-reach[0], reach[1], specification)
    return ops.stack([-low, high])


def usual(low, high, specification: Free):
    """Returns an observed range, or the usual range instead.

    The usual range is returned if the observed range is inside it and takes a fair part of it.

    Args:
        low: The observed minimum.
        high: The observed maximum.
        specification: The specification of the tensor.
    """
    if specification.usual_range is None:
        return low, high
    least, most = specification.usual_range
    is_usual = ops.logical_and(low >= least, high <= most)
    is_usual = ops.logical_and(is_usual, high - low > _FAIR_PART * (most - least))
    return ops.where(is_usual, least, low), ops.where(is_usual, most, high)
