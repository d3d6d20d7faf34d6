"""The contract that every rule must satisfy: its cases, and helpers that its tests share."""

from __future__ import annotations

import copy
import functools
import zlib
from typing import Any

import keras
import numpy as np

import keras_qat
from keras_qat.targets import DEFAULT_TARGET
from tests.layers.cases import Case
from tests.layers.litert_files import counterparts_of, exported, integers_of, run_litert


class Prepared:
    """A case with weights, data and a calibrated quantized model. Tests must not change it.

    Args:
        case: The case.
        seed: The seed of weights and data. With a seed other than 0 the ranges are loosened.
        scale: The factor of the data.
        batch: The number of samples.

    Attributes:
        keras_model: The float model.
        arrays: The inputs, one array each.
        x: The argument of a call of the model: the arrays, or the only array.
    """

    def __init__(self, case: Case, seed: int = 0, scale: float = 1.0, batch: int = 16):
        # Not hash(): it differs from process to process.
        rng = np.random.default_rng([zlib.crc32(case.name.encode()), seed])
        self.case, self.seed = case, seed
        self.keras_model = case.build()
        case.prepare(self.keras_model, rng)
        self._rng, self._scale = rng, min(max(scale, case.least_scale), case.greatest_scale)
        self.arrays = self.samples(batch)
        self.x = self.arrays if len(self.arrays) > 1 else self.arrays[0]

    def samples(self, batch: int) -> list[np.ndarray]:
        """Makes the inputs, one array each, for any number of samples."""
        data = self.case.data(self.keras_model, copy.deepcopy(self._rng), batch)
        # Ids are no real values, so they are not scaled.
        return [x if x.dtype == np.int32 else np.float32(self._scale) * x for x in data]

    @functools.cached_property
    def clone(self) -> keras.Model:
        """Returns the float clone."""
        return keras_qat.clone_model(self.keras_model)

    @property
    def float_twin(self) -> keras.Model:
        """Returns the clone. Returns the Keras model for targets with layers that clones lack."""
        return self.clone if self.case.target == DEFAULT_TARGET else self.keras_model

    @functools.cached_property
    def quantized(self) -> Any:
        """Returns the quantized model, calibrated on the data."""
        model = self.quantize()
        if self.seed:
            loosen(model, np.random.default_rng(self.seed))
        return model

    def quantize(self, target: str | None = None) -> Any:
        """Makes another quantized model, which a test may change."""
        model = self.quantize_uncalibrated(target, activations=self.case.activations)
        keras_qat.calibrate(model, tuple(self.arrays), verbose=0)
        return model

    def quantize_uncalibrated(self, target: str | None = None, **options: Any) -> Any:
        """Makes a quantized model that lacks ranges."""
        model = keras_qat.quantize_model(
            self.keras_model, target=target or self.case.target, **options
        )
        if target is None:
            model.set_target(DEFAULT_TARGET)
        return model

    @functools.cached_property
    def content(self) -> bytes:
        """Returns the exported file with int8 inputs and outputs."""
        return exported(self.quantized)

    @functools.cached_property
    def predicted(self) -> list[np.ndarray]:
        """Returns the outputs of `predict`, which runs a compiled graph."""
        return as_arrays(self.quantized.predict(self.x, verbose=0))

    @functools.cached_property
    def outputs(self) -> list[np.ndarray]:
        """Returns the outputs of a call, computed eagerly."""
        return as_arrays(self.quantized(self.x))

    @functools.cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """Returns the output of each layer by its name, computed eagerly."""
        return layer_outputs(self.quantized, self.arrays, training=False)

    def tensors_for(self, target: str) -> dict[str, np.ndarray]:
        """Returns the same for another target, whose kernels run the same file."""
        own = self.quantized.target
        self.quantized.set_target(target)
        try:
            return layer_outputs(self.quantized, self.arrays, training=False)
        finally:
            self.quantized.set_target(own)


def quantized_with(model: keras.Model, activations: Any = "exact", **ranges: Any) -> Any:
    """Quantizes a model with given ranges: pairs by the names of inputs and layers."""
    quantized = keras_qat.quantize_model(model, activations=activations)
    for each in quantized.layers:
        if getattr(each, "observer", None) is not None:
            each.observer.widen(*ranges[each.name.removesuffix("_quantize")])
    return quantized


# A scale of 0.5 and zero point 0.
HALVES = (-64.0, 63.5)


def loosen(model: Any, rng: np.random.Generator) -> None:
    """Makes each range narrower or wider than the range of the data, so that integers saturate.

    Only then do fused activations and zero points inside the range change results.
    """
    for each in model.layers:
        if getattr(each, "observer", None) is not None:
            low, high = float(each.observer.minimum), float(each.observer.maximum)
            beyond = rng.uniform(0, 0.3, 2) * (high - low)
            each.observer.reset()
            each.observer.widen(
                low * rng.uniform(0.5, 1.2) - beyond[0], high * rng.uniform(0.5, 1.2) + beyond[1]
            )


def as_arrays(values: Any) -> list[np.ndarray]:
    """Flattens the outputs of a model to numpy arrays."""
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(values)]


def layer_outputs(model: Any, arrays: list[np.ndarray], *, training: bool) -> dict[str, np.ndarray]:
    """Returns the output of each layer that is called once, by its name."""
    layers = [each for each in model.layers if len(each._inbound_nodes) == 1]
    taps = keras.Model(model.inputs, [each.output for each in layers])
    values = as_arrays(taps(arrays, training=training))
    return dict(zip((each.name for each in layers), values, strict=True))


def assert_equals_litert(prepared: Prepared, target: str = "litert") -> int:
    """Compares every tensor, integer by integer, and returns the number of integers."""
    kernels = {"reference": "BUILTIN_REF", "litert": "AUTO"}[target]
    theirs, _ = run_litert(prepared.content, prepared.arrays, kernels)
    is_own = target == prepared.quantized.target
    tensors = prepared.tensors if is_own else prepared.tensors_for(target)
    compared = 0
    for name, layer_name in counterparts_of(prepared.content, prepared.quantized).items():
        if layer_name not in tensors:
            continue  # a part of a layer, or a layer that is called more than once
        q, details = theirs[name]
        ours, q = integers_of(tensors[layer_name], details), q.astype("int64")
        wrong = np.count_nonzero(ours != q)
        assert not wrong, f"{name}: {wrong} of {q.size} differ, by up to {np.abs(ours - q).max()}"
        compared += q.size
    assert compared, "no tensor has a counterpart"
    return compared
