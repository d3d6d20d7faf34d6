"""Warns of parts of a model's training that the model made from it does not have."""

from __future__ import annotations

import keras

from keras_qat.errors import OwnTrainingWarning, warn_user
from keras_qat.graph.penalties import lost_in
from keras_qat.graph.reading import is_model

# Methods that a subclass of `keras.Model` overrides to train or to be evaluated in its own way.
_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")

# Recipes to train the new model with a model of the user's class.
_FUNCTIONAL = "trainer = {kind}(model.input, model(model.input))"
_SEQUENTIAL = "trainer = {kind}([model])"
_SUBCLASSED = """class Trainer({kind}):
    def __init__(self, inner):
        keras.Model.__init__(self)
        self.inner = inner

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


trainer = Trainer(model)"""


def warn_of_lost_training(model: keras.Model, new: keras.Model) -> None:
    """Shows an `OwnTrainingWarning` for each part of a model's training that a new model lacks.

    Args:
        model: The user's model.
        new: The rewritten or quantized model, before its weights change.

    Example:
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> warn_of_lost_training(model, model)  # lacks nothing
    """
    _warn_of_own_steps(model)
    for what, weights in lost_in(model, new):
        warn_user(
            f"The new model lacks a {what} of these weights: {', '.join(weights)}. The layer that "
            "uses them was rewritten, and the weights have another form. Add the penalty to your "
            "loss, or use the optimizer's `weight_decay`; or apply the constraint in a callback.",
            OwnTrainingWarning,
        )


def _warn_of_own_steps(model: keras.Model) -> None:
    """Warns if a model has its own way to train or evaluate, which the new model does not have."""
    own = [name for name in _STEPS if getattr(type(model), name) is not getattr(keras.Model, name)]
    if own:
        kind = type(model).__name__
        names = ", ".join(f"`{name}`" for name in own)
        recipe = _FUNCTIONAL if is_model(model) else _SUBCLASSED
        recipe = _SEQUENTIAL if isinstance(model, keras.Sequential) else recipe
        warn_user(
            f"The new model does not have the model's own {names}. It trains as Keras does. To "
            f"train it in the way of {kind}, train it inside a {kind}, and export the inner model, "
            f"here `model`:\n\n{recipe.format(kind=kind)}\n",
            OwnTrainingWarning,
        )
