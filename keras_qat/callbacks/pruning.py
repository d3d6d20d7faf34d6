"""Magnitude pruning: sets small weights to zero during training, and keeps them there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import sync_variables
from keras_qat.errors import InvalidPruningError, NotQuantizedError
from keras_qat.layers.kernels.weighted import WeightedLayer

Pattern = tuple[int, int]


@keras.saving.register_keras_serializable("keras_qat")
class MagnitudePruning(keras.callbacks.Callback):
    """Sets the weights of smallest magnitude to zero, more and more of them during training.

    A zero has an integer of its own, so that fake quantization and the file keep it. The share of
    zeros grows from 0 at `begin_step` to its final value at `end_step`, fast at first: by the
    schedule of "To prune, or not to prune" (Zhu and Gupta 2017, https://arxiv.org/abs/1710.01878).
    After each batch the pruned weights are zero again. Steps are counted by the optimizer, so that
    a training that is resumed continues the schedule.

    Kernels of convolutions, depthwise and transposed convolutions and dense layers are pruned, each
    to the same share.

    Args:
        sparsity: The final share of zeros, from 0 to 1. Or a pair (n, m): at most n of m
            consecutive weights are not zero, such as (2, 4). Consecutive weights are those of one
            output channel, along the input channels first. None prunes nothing, and keeps the
            zeros that the kernels have.
        begin_step: The first step at which weights are pruned.
        end_step: The step at which the share is final.
        frequency: The number of steps between two selections of weights.
        exclude: Names of layers that are not pruned.

    Raises:
        InvalidPruningError: If an argument is not valid, or `exclude` has a name that is not the
            name of a layer with a kernel.
        NotQuantizedError: If the model has no layer with a kernel from `quantize_model` or
            `clone_model`.

    Example:
    >>> import keras_qat
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")])
    >>> qat = keras_qat.quantize_model(model)
    >>> qat.compile("sgd", "mse")
    >>> x, y = np.ones((4, 8), "float32"), np.ones((4, 4), "float32")
    >>> history = qat.fit(x, y, callbacks=[MagnitudePruning(0.75)], verbose=0)
    >>> int(np.sum(ops.convert_to_numpy(qat.get_layer("head").kernel) == 0))
    24
    """

    def __init__(
        self,
        sparsity: float | Pattern | None = 0.5,
        *,
        begin_step: int = 0,
        end_step: int = 0,
        frequency: int = 100,
        exclude: Sequence[str] = (),
    ):
        super().__init__()
        self.sparsity: Any = tuple(sparsity) if isinstance(sparsity, list) else sparsity
        self.begin_step, self.end_step = begin_step, end_step
        self.frequency, self.exclude = frequency, tuple(exclude)
        self._masks: dict[str, Any] = {}
        self._next: float = begin_step
        self._check()

    def _check(self) -> None:
        sparsity: Any = self.sparsity
        if isinstance(sparsity, tuple):
            is_valid = len(sparsity) == 2 and all(type(n) is int for n in sparsity)
            is_valid = is_valid and 0 <= sparsity[0] <= sparsity[1] and sparsity[1] > 0
        else:
            is_number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
            is_valid = sparsity is None or (is_number and 0 <= sparsity <= 1)
        if not is_valid:
            raise InvalidPruningError(
                "The sparsity is neither a share nor a pattern.",
                received=f"sparsity={sparsity!r}",
                expected="a number from 0 to 1, a pair (n, m) with n <= m, or None",
                fix="Pass sparsity=0.5 for half of the weights, or (2, 4) for two of four.",
            )
        steps = (self.begin_step, self.end_step, self.frequency)
        are_numbers = all(isinstance(n, int) and not isinstance(n, bool) for n in steps)
        if not are_numbers or not 0 <= steps[0] <= max(steps[:2]) or steps[2] < 1:
            raise InvalidPruningError(
                "The steps of pruning are not whole numbers of training steps.",
                received=f"begin_step={steps[0]!r}, end_step={steps[1]!r}, frequency={steps[2]!r}",
                expected="begin_step >= 0, end_step >= 0 and frequency >= 1",
                fix="Pass numbers of batches, such as end_step=1000.",
            )

    def on_train_begin(self, logs=None):
        """Finds the kernels, and sets the weights to zero that are pruned at this step."""
        del logs
        kernels = dict(self._kernels())
        if not kernels:
            raise NotQuantizedError(
                "The model has no layer with a kernel to prune.",
                layer=self.model.name,
                received=f"a {type(self.model).__name__}",
                expected="a model from `quantize_model` or `clone_model`",
                fix="Pass the callback to `fit` of the quantized model.",
            )
        unknown = set(self.exclude) - set(kernels)
        if unknown:
            raise InvalidPruningError(
                "`exclude` names a layer that has no kernel.",
                received=sorted(unknown),
                expected=f"names out of {sorted(kernels)}",
                fix="Leave the name out.",
            )
        self._masks = {}
        if self.sparsity is None:
            self._masks = {
                name: ops.cast(layer.kernel != 0, "float32")
                for name, layer in kernels.items()
                if name not in self.exclude
            }
        self._next = np.inf if self.sparsity is None else self.begin_step
        self._prune()

    def on_train_batch_end(self, batch, logs=None):
        """Selects the weights to prune if it is time, and sets them to zero."""
        del batch, logs
        self._prune()

    def on_train_end(self, logs=None):
        """Sets the pruned weights to zero: optimizers may have averaged the weights."""
        del logs
        self._prune()

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "sparsity": self.sparsity,
            "begin_step": self.begin_step,
            "end_step": self.end_step,
            "frequency": self.frequency,
            "exclude": list(self.exclude),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MagnitudePruning:
        """Makes the callback of a configuration."""
        return cls(**config)

    def _kernels(self) -> Iterator[tuple[str, WeightedLayer]]:
        """Yields the name and the layer of each kernel, once."""
        seen = set()
        for layer in self.model.layers:
            is_weighted = isinstance(layer, WeightedLayer)
            if not is_weighted or id(layer.kernel) in seen:
                continue
            seen.add(id(layer.kernel))
            if any(layer.kernel is variable for variable in layer.variables):
                yield layer.name, layer

    def _prune(self) -> None:
        """Selects the weights to prune if it is time, and sets them to zero."""
        sync_variables(self.model)
        step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        if step >= self._next:
            self._select(step)
            last = max(self.begin_step, self.end_step)
            self._next = np.inf if step >= last else min(step + self.frequency, last)
        for name, layer in self._kernels():
            if name in self._masks:
                layer.kernel.assign(layer.kernel * self._masks[name])

    def _select(self, step: int) -> None:
        """Chooses the weights that are zero from a step on."""
        steps = max(self.end_step - self.begin_step, 1)
        left = max(self.end_step - step, 0) / steps
        for name, layer in self._kernels():
            if name not in self.exclude:
                operator, sizes = layer.kernel_operator, np.abs(ops.convert_to_numpy(layer.kernel))
                matrices = operator.to_matrices(layer, sizes)
                kept = operator.from_matrices(layer, _kept(matrices, self.sparsity, 1 - left**3))
                self._masks[name] = ops.convert_to_tensor(kept.astype("float32"))


def _kept(matrices: np.ndarray, sparsity: float | Pattern, progress: float) -> np.ndarray:
    """Returns the weights that are not pruned.

    Args:
        matrices: Magnitudes `(groups, products, outputs)`.
        sparsity: The final share of zeros, or the pattern.
        progress: From 0 to 1, the part of the final share that is pruned now.

    Example:
    >>> sizes = np.array([4, 1, 2, 3, 9], "float32").reshape(1, 5, 1)
    >>> _kept(sizes, 0.6, 1.0).ravel().tolist()
    [True, False, False, False, True]
    >>> _kept(sizes, (2, 4), 1.0).ravel().tolist()
    [True, False, False, True, True]
    """
    if not isinstance(sparsity, tuple):
        count = round(sparsity * progress * matrices.size)
        return (_ranks(matrices.reshape(-1), 0) >= count).reshape(matrices.shape)
    most, block = sparsity
    groups, products, outputs = matrices.shape
    whole = products - products % block
    kept = np.ones(matrices.shape, bool)
    blocks = matrices[:, :whole].reshape(groups, -1, block, outputs)
    ranks = _ranks(blocks, 2).reshape(groups, whole, outputs)
    kept[:, :whole] = ranks >= round((block - most) * progress)
    return kept


def _ranks(values: np.ndarray, axis: int) -> np.ndarray:
    """Returns the place of each value in the ascending order along an axis."""
    order = np.argsort(values, axis=axis, kind="stable")
    return np.argsort(order, axis=axis, kind="stable")
