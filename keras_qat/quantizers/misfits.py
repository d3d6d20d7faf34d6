"""Calibrated ranges that do not fit the values in training."""

from __future__ import annotations

from keras_qat.quantizers.observers import RangeObserver

# Parts of a range's width: the largest excess of training values, and the smallest used part.
_MOST_LEFT = 0.5
_LEAST_TAKEN = 1.0 / 8.0
# Fewer training steps are not representative.
_ENOUGH_STEPS = 20
MISFIT_FIX = (
    "Calibrate again, `keras_qat.calibrate(model, data)`, and train on; or let training move the "
    'ranges, `keras_qat.calibrate(model, data, range_rule="moving_average")`.'
)


def range_misfit(name: str, observer: RangeObserver) -> str | None:
    """Describes how a calibrated range that training holds does not fit the values in training.

    Args:
        name: Name of the tensor.
        observer: Its observer.

    Returns:
        A sentence. None if values exceed the range by at most half of its width and use an eighth
        of it or more, if the range is not held or is learned, or after too few steps.

    Example:
    >>> import keras
    >>> observer = RangeObserver()
    >>> observer.build()
    >>> observer.widen(0.0, 1.0)
    >>> for _ in range(20):
    ...     observer.track(keras.ops.array([[1.0], [1.6]]))
    >>> range_misfit("conv", observer)
    "'conv' takes 0 to 1.6 in training, and has the calibrated range 0 to 1."
    """
    if observer.learns or not observer.is_held or observer.updates.numpy() <= _ENOUGH_STEPS:
        return None
    low, high = (min(observer.seen_range[0], 0.0), max(observer.seen_range[1], 0.0))
    least, most = min(observer.limits[0], 0.0), max(observer.limits[1], 0.0)
    width = most - least
    is_left = max(high - most, least - low) > _MOST_LEFT * width
    if not is_left and high - low >= _LEAST_TAKEN * width:
        return None
    return (
        f"'{name}' takes {low:.4g} to {high:.4g} in training, and has the calibrated range "
        f"{least:.4g} to {most:.4g}."
    )
