"""The mode of PyTorch's modules."""

from __future__ import annotations

import keras


def start_in_inference(model: keras.Model) -> None:
    """Makes calls of a model without `training` inference, as those of other Keras models.

    PyTorch's modules begin in the mode of training. On the other backends nothing happens.

    Args:
        model: A Keras model.
    """
    if keras.backend.backend() == "torch":
        model.training = False


def is_training(model: keras.Model, training: bool | None) -> bool | None:
    """Returns whether a call of a model is a step of training.

    On PyTorch `model.train()` and `model.eval()` decide for calls without `training`, as for other
    modules. Keras's loops call them too, but pass `training`, after which the mode is that of
    inference again.

    Args:
        model: A Keras model, for which `start_in_inference` was called.
        training: The argument of the call.

    Example:
    >>> is_training(keras.Sequential([keras.Input((4,))]), True)
    True
    """
    if keras.backend.backend() != "torch":
        return training
    import torch  # pyright: ignore[reportMissingImports] (an optional backend)

    if training is None:
        return True if model.training else None
    if training and model.training and not torch.compiler.is_compiling():
        start_in_inference(model)
    return training
