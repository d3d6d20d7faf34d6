"""Changes that callbacks make to a model between two training steps of `fit`."""

from __future__ import annotations

from typing import Any

import keras


def sync_variables(model: Any) -> None:
    """Gives the variables of a model in `fit` the values of the last training step.

    JAX's training steps are functions from values to values. Variables have no values meanwhile.

    Args:
        model: The model in training.
    """
    if keras.backend.backend() == "jax":
        model.jax_state_sync()


def follow_trainable(model: Any) -> None:
    """Lets the next training steps of `fit` update the variables that are trainable now.

    Args:
        model: The model in training, after a change of `trainable`.
    """
    if keras.backend.backend() == "jax":
        _update_a_part(model, getattr(model.optimizer, "inner_optimizer", model.optimizer))
    model.make_train_function(force=True)


def _update_a_part(model: Any, optimizer: Any) -> None:
    """Lets an optimizer take values of those of its variables that the model still trains.

    Keras's `stateless_apply`, which only JAX calls, asks for all variables that the optimizer was
    built with. `apply` takes a part of them on every backend.
    """

    def stateless_apply(optimizer_variables, grads, trainable_variables):
        kinds = model.trainable_variables, optimizer.variables
        mapping = [
            *zip(kinds[0], trainable_variables, strict=True),
            *zip(kinds[1], optimizer_variables, strict=True),
        ]
        with keras.StatelessScope(mapping) as scope:
            optimizer.apply(grads, kinds[0])
        return tuple([scope.get_current_value(each) for each in variables] for variables in kinds)

    optimizer.stateless_apply = stateless_apply
