"""quantized_input_stats: the real values of the integers of a quantized model's inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_qat.errors import InputStatsWarning, InvalidGraphError, InvalidInputStatsError, warn_user
from keras_qat.graph import Edge, read_model
from keras_qat.layers.boundary.quantize import BoundaryLayer
from keras_qat.layers.models.neighbours import assign_params
from keras_qat.quantizers import InputStats


def checked_input_stats(
    quantized_input_stats: Any, names: list[str], ids: set[str]
) -> dict[str, InputStats]:
    """Returns the checked statistics of each input.

    Args:
        quantized_input_stats: The argument of the user: a dict from names to `(mean, std)`.
        names: The names of the model's inputs.
        ids: The names of the inputs of ids.

    Raises:
        InvalidInputStatsError: If the argument is not such a dict, or names an unknown input.
    """
    if not isinstance(quantized_input_stats, Mapping):
        raise InvalidInputStatsError(
            "`quantized_input_stats` must be a dict with the names of inputs.",
            received=f"quantized_input_stats={quantized_input_stats!r}",
            expected=f"a dict from names among {names} to (mean, std)",
            fix=f"Pass quantized_input_stats={{'{names[0]}': (mean, std)}}.",
        )
    for name in quantized_input_stats:
        if name not in names or name in ids:
            problem = "holds ids, which are integers already" if name in ids else "does not exist"
            raise InvalidInputStatsError(
                f"`quantized_input_stats` is about an input that {problem}.",
                layer=str(name),
                expected=f"names among {[n for n in names if n not in ids]}",
                fix="Use the names of the model's `keras.Input`s.",
            )
    checked = {name: InputStats.of(value, name) for name, value in quantized_input_stats.items()}
    for name, stats in checked.items():
        if stats.mean != stats.zero:
            warn_user(
                f"The mean of the input '{name}', {stats.mean:g}, is not an integer: {stats.zero} "
                f"represents 0, and each value is {abs(stats.zero - stats.mean) / stats.std:.2g} "
                "off. A Rescaling layer at the beginning of the model is exact.",
                InputStatsWarning,
            )
    return checked


def input_boundaries(model: keras.Model) -> Iterator[tuple[str, BoundaryLayer | None]]:
    """Yields each input of a quantized model and the layer that has its range. None for ids."""
    graph = read_model(model)
    consumers = graph.consumers()
    for name in graph.inputs:
        heads = (node.head for node in consumers.get(Edge(name), ()))
        yield name, next((head for head in heads if isinstance(head, BoundaryLayer)), None)


def set_input_stats(model: keras.Model, quantized_input_stats: Any) -> None:
    """Sets the statistics of a quantized model's inputs.

    Args:
        model: A quantized model.
        quantized_input_stats: A dict from names of inputs to `(mean, std)`.

    Raises:
        InvalidInputStatsError: If the argument is invalid, or an input shares its quantization
            parameters with other tensors. Then the model is not changed.
    """
    boundaries = dict(input_boundaries(model))
    ids = {name for name, boundary in boundaries.items() if boundary is None}
    wanted = checked_input_stats(quantized_input_stats, list(boundaries), ids)
    try:
        _assign(model, boundaries, wanted)
    except InvalidGraphError as error:
        raise InvalidInputStatsError(
            "This input shares its quantization parameters with other tensors.",
            layer=next(iter(wanted)),
            received=error.what,
            fix="Pass `quantized_input_stats` to `quantize_model`, which requantizes the input.",
        ) from error


def _assign(model: keras.Model, boundaries: Mapping[str, Any], stats: Mapping[str, Any]) -> None:
    """Sets statistics and links the layers again. If that fails, restores the old statistics."""
    old = {name: boundaries[name].stats for name in stats}
    for name, own in stats.items():
        boundaries[name].stats = own
    try:
        assign_params(read_model(model))
    except InvalidGraphError:
        for name, own in old.items():
            boundaries[name].stats = own
        assign_params(read_model(model))
        raise
    _forget_compiled(model)


def _forget_compiled(model: keras.Model) -> None:
    """Makes the functions of the training loop again: compiled ones contain the old parameters."""
    model.make_train_function(force=True)
    model.make_test_function(force=True)
    model.make_predict_function(force=True)


def check_input_stats(model: keras.Model) -> None:
    """Warns of inputs with observed data that does not fit their statistics.

    If the user did not give the type of the statistics, the data decides.
    """
    boundaries: dict[str, Any] = {
        name: boundary
        for name, boundary in input_boundaries(model)
        if boundary is not None and boundary.stats is not None and boundary.observer.is_observed
    }
    ends = {name: boundary.observer.limits for name, boundary in boundaries.items()}
    settled = {name: boundary.stats.settled(*ends[name]) for name, boundary in boundaries.items()}
    changed = {name: own for name, own in settled.items() if own != boundaries[name].stats}
    if changed:
        # Inputs that share their parameters keep their statistics. They get a warning below.
        with contextlib.suppress(InvalidGraphError):
            _assign(model, boundaries, changed)
    for name, boundary in boundaries.items():
        if not boundary.stats.fits(*ends[name]):
            _warn(name, boundary.stats, ends[name])


def _warn(name: str, stats: InputStats, ends: tuple[float, float]) -> None:
    low, high = stats.range
    other = "int8" if stats.dtype == "uint8" else "uint8"
    warn_user(
        f"The input '{name}' has {stats.dtype} integers for {low:.6g} to {high:.6g}, by "
        f"quantized_input_stats=({stats.mean:g}, {stats.std:g}), but its data was {ends[0]:.6g} to "
        f"{ends[1]:.6g}. Give the correct mean and std, with '{other}' as the third value if they "
        f"are for {other}, or scale the data as in training.",
        InputStatsWarning,
    )
