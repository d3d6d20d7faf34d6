"""Loss, metrics and optimizer of a saved model. The state of its optimizer is not read."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_qat.errors import InvalidFileWarning
from keras_qat.legacy.failures import described
from keras_qat.legacy.source import Source

# Arguments of old optimizers that Keras 3's have not; those that matter are never in use alone.
_DROPPED = ("decay", "is_legacy_optimizer", "jit_compile", "schedule_decay", "initial_decay")
_RENAMED = {"lr": "learning_rate", "rho_decay": "rho"}


def compile_as_saved(model: keras.Model, training: Any, source: Source) -> None:
    """Compiles a model as it was when it was saved, with a fresh optimizer.

    A loss, metric or optimizer that is not known leaves it as it is, with a warning.

    Args:
        model: The model.
        training: The file's `training_config`, or None.
        source: The file.
    """
    if not isinstance(training, dict):
        return
    try:
        with keras.saving.custom_object_scope(dict(source.custom_objects)):
            model.compile(
                optimizer=_optimizer(training.get("optimizer_config")),
                loss=_simple(training.get("loss")),
                metrics=_simple(training.get("metrics")),
                loss_weights=training.get("loss_weights"),
                weighted_metrics=_simple(training.get("weighted_metrics")),
            )
    except Exception as error:  # whatever Keras says of what the file asks for
        warnings.warn(
            f"The model of '{source.path}' is not compiled as it was: {described(error)}. "
            "Call `model.compile` before training it.",
            InvalidFileWarning,
            stacklevel=4,
        )


def _optimizer(config: Any) -> Any:
    inner = config.get("config") if isinstance(config, dict) else None
    if not isinstance(inner, dict):
        raise ValueError("it has no optimizer")
    class_name = str(config.get("class_name")).rpartition(">")[2]
    arguments = {_RENAMED.get(k, k): v for k, v in inner.items() if k not in _DROPPED}
    if isinstance(arguments.get("learning_rate"), dict):
        arguments["learning_rate"] = keras.optimizers.schedules.deserialize(
            _bare(arguments["learning_rate"])
        )
    if inner.get("decay"):
        arguments["learning_rate"] = keras.optimizers.schedules.InverseTimeDecay(
            arguments.get("learning_rate", 0.001), decay_steps=1, decay_rate=inner["decay"]
        )
    return keras.optimizers.deserialize({"class_name": class_name, "config": arguments})


def _simple(value: Any) -> Any:
    """Losses and metrics by name; an object whose function has a name is that function."""
    if isinstance(value, list | tuple):
        return [_simple(part) for part in value]
    if isinstance(value, dict) and "class_name" in value:
        inner = value.get("config")
        if isinstance(inner, str):
            return inner
        if isinstance(inner, dict) and isinstance(inner.get("fn"), str):
            return inner["fn"]
        return _bare(value)
    if isinstance(value, dict):
        return {key: _simple(part) for key, part in value.items()}
    return value


def _bare(value: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": value.get("class_name"), "config": value.get("config")}
