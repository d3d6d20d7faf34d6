"""Callbacks that end the training of batch normalizations, or of ranges."""

from __future__ import annotations

import keras

from keras_qat.backend import follow_trainable, sync_variables
from keras_qat.callbacks.configured import ConfiguredCallback
from keras_qat.errors import InvalidTrainingError
from keras_qat.freezing import freeze_batch_norm
from keras_qat.layers.core.held_ranges import hold_ranges


class _Scheduled(ConfiguredCallback):
    """A callback that acts once, before an epoch or before a training step.

    Args:
        epoch: The epoch before which it acts, counted from 0 as in `fit`.
        step: The training step before which it acts, counted from 0 over all epochs.
    """

    def __init__(self, epoch: int | None = None, step: int | None = None):
        super().__init__(epoch=epoch, step=step)
        given = [each for each in (epoch, step) if each is not None]
        if len(given) != 1 or not isinstance(given[0], int) or given[0] < 0:
            raise InvalidTrainingError(
                "The callback needs the time of its action.",
                received=f"epoch={epoch!r}, step={step!r}",
                expected="one of both, a whole number of 0 or more",
                fix="Write `epoch=3` for the fourth epoch, or `step=1000`.",
            )
        self.epoch, self.step = epoch, step
        self._steps, self._is_done = 0, False

    def on_train_begin(self, logs=None):
        """Starts to count training steps."""
        del logs
        self._steps, self._is_done = 0, False

    def on_epoch_begin(self, epoch, logs=None):
        """Acts if the epoch has come. Training that continues later acts at once."""
        del logs
        self._act(self.epoch is not None and epoch >= self.epoch)

    def on_train_batch_begin(self, batch, logs=None):
        """Acts if the step has come."""
        del batch, logs
        self._act(self.step is not None and self._steps >= self.step)
        self._steps += 1

    def _act(self, is_time: bool) -> None:
        if is_time and not self._is_done:
            self._is_done = True
            sync_variables(self.model)
            self.freeze()
            follow_trainable(self.model)

    def freeze(self) -> None:
        """Ends the training of a part of the model."""
        raise NotImplementedError


@keras.saving.register_keras_serializable("keras_qat")
class FreezeBatchNorm(_Scheduled):
    """Freezes the batch normalizations at an epoch or a step, see `keras_qat.freeze_batch_norm`.

    Statistics that still move change the folded weights, and so their rounding. They stay frozen
    after `fit`, until `keras_qat.unfreeze_batch_norm`.

    Args:
        epoch: The epoch before which it acts, counted from 0 as in `fit`.
        step: The training step before which it acts, counted from 0 over all epochs.

    Raises:
        InvalidTrainingError: If there is not exactly one of both.

    Example:
    >>> FreezeBatchNorm(epoch=3).get_config()
    {'epoch': 3, 'step': None}
    """

    def freeze(self) -> None:
        """Freezes the batch normalizations of the model."""
        freeze_batch_norm(self.model)


@keras.saving.register_keras_serializable("keras_qat")
class FreezeRanges(_Scheduled):
    """Holds the ranges at an epoch or a step: observed ones, learned ones, and steps of weights.

    They stay held after `fit`, in saved models and for other targets too, until `trainable` of
    their layer is set to False and to True. Weights with the rule `"minmax"` have the range of
    their extremes, which cannot be held.

    Args:
        epoch: The epoch before which it acts, counted from 0 as in `fit`.
        step: The training step before which it acts, counted from 0 over all epochs.

    Raises:
        InvalidTrainingError: If there is not exactly one of both.

    Example:
    >>> FreezeRanges(step=1000).get_config()
    {'epoch': None, 'step': 1000}
    """

    def freeze(self) -> None:
        """Freezes the ranges of the model."""
        for layer in self.quantized_layers():
            hold_ranges(layer)
