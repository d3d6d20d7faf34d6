"""Loss, metrics and optimizer of a saved model. The state of the optimizer is not read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_qat.errors import InvalidFileWarning, warn_user
from keras_qat.loading.files.failures import described
from keras_qat.loading.files.source import Source

# Arguments of old optimizers that Keras 3 does not have, and that do not matter alone.
_DROPPED = ("decay", "is_legacy_optimizer", "jit_compile", "schedule_decay", "initial_decay")
# Wrappers, which stand for the function that they name.
_WRAPPERS = ("LossFunctionWrapper", "MeanMetricWrapper", "SumOverBatchSizeMetricWrapper")
_SHORT_METRICS = ("acc", "accuracy", "ce", "crossentropy")  # their meaning depends on the loss
_SCALING = ("initial_scale", "dynamic_growth_steps")
_RENAMED = {"lr": "learning_rate", "rho_decay": "rho"}


def compile_as_saved(model: keras.Model, training: Any, source: Source) -> None:
    """Compiles a model as it was when it was saved, with a fresh optimizer.

    If a loss, metric or optimizer is unknown, warns and does not compile the model.

    Args:
        model: The model.
        training: The file's `training_config`, or None.
        source: The file.
    """
    if not isinstance(training, dict):
        return
    metric = functools.partial(_metric, source=source)
    try:
        with keras.saving.custom_object_scope(dict(source.custom_objects)):
            model.compile(
                optimizer=_optimizer(training.get("optimizer_config"), source),
                loss=_each(training.get("loss"), functools.partial(_loss, source=source)),
                metrics=_each(training.get("metrics"), metric),
                loss_weights=training.get("loss_weights"),
                weighted_metrics=_each(training.get("weighted_metrics"), metric),
            )
            # Keras saves, but does not load, the state of an optimizer that is not built.
            model.optimizer.build(model.trainable_variables)
    except Exception as error:  # Keras raises various types here
        warn_user(
            f"The model of '{source.path}' is not compiled as it was: {described(error)}. "
            "Call `model.compile` before training it.",
            InvalidFileWarning,
        )


def _optimizer(config: Any, source: Source) -> Any:
    inner = config.get("config") if isinstance(config, dict) else None
    if not isinstance(inner, dict):
        raise ValueError("it has no optimizer")
    class_name = str(config.get("class_name")).rpartition(">")[2]
    if class_name.startswith("LossScaleOptimizer"):  # mixed precision wraps another optimizer
        scaling = {key: inner[key] for key in _SCALING if isinstance(inner.get(key), int | float)}
        return keras.optimizers.LossScaleOptimizer(
            _optimizer(inner.get("inner_optimizer"), source), **scaling
        )
    made = source.made(config)
    if made is not None:
        return made
    arguments = {_RENAMED.get(k, k): v for k, v in inner.items() if k not in _DROPPED}
    if isinstance(arguments.get("learning_rate"), dict):
        schedule = arguments["learning_rate"]
        made = source.made(schedule)
        arguments["learning_rate"] = made or keras.optimizers.schedules.deserialize(_bare(schedule))
    if inner.get("decay"):
        arguments["learning_rate"] = keras.optimizers.schedules.InverseTimeDecay(
            arguments.get("learning_rate", 0.001), decay_steps=1, decay_rate=inner["decay"]
        )
    return keras.optimizers.deserialize({"class_name": class_name, "config": arguments})


def _each(value: Any, function: Callable[[Any], Any]) -> Any:
    """Applies a function to each loss or metric in the lists and dicts of a configuration."""
    if isinstance(value, list | tuple):
        return [_each(part, function) for part in value]
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _each(part, function) for key, part in value.items()}
    return None if value is None else function(value)


def _loss(value: Any, source: Source) -> Any:
    made = source.made(_wrapped(value) or value)
    if made is not None:
        return made
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        if _wrapped(value):
            return keras.losses.get(_wrapped(value))
        arguments = {key: part for key, part in value["config"].items() if key != "fn"}
        if arguments.get("reduction") == "auto":
            del arguments["reduction"]
        return keras.losses.get({"class_name": value["class_name"], "config": arguments})
    return keras.losses.get(_named(value))


def _metric(value: Any, source: Source) -> Any:
    if value in _SHORT_METRICS and source.custom(value) is None:
        return value
    wrapped = _wrapped(value)
    if isinstance(value, dict) and wrapped:
        made = source.made(wrapped)
        function = keras.metrics.get(wrapped) if made is None else made
        return keras.metrics.MeanMetricWrapper(function, name=value["config"].get("name"))
    made = source.made(value)
    if made is not None:
        return made
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        arguments = {key: part for key, part in value["config"].items() if key != "fn"}
        return keras.metrics.get({"class_name": value["class_name"], "config": arguments})
    return keras.metrics.get(_named(value))


def _wrapped(value: Any) -> str | None:
    """Returns the name of the function that a loss or metric wraps, or None."""
    if not isinstance(value, dict) or value.get("class_name") not in _WRAPPERS:
        return None
    config = value.get("config")
    function = _named(config.get("fn")) if isinstance(config, dict) else None
    return function if isinstance(function, str) else None


def _named(value: Any) -> Any:
    """Reads a named function in the form of later versions of Keras 2."""
    is_object = isinstance(value, dict) and isinstance(value.get("config"), str)
    return value["config"] if is_object else value


def _bare(value: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": value.get("class_name"), "config": value.get("config")}
