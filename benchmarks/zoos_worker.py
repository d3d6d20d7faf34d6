"""Builds one model of `zoos.py`, quantizes, exports and verifies it, and prints the result.

The last line of the output is a JSON object. The verdict is "exact" if no element of any tensor
differs from LiteRT's default kernels and the file has no float tensor, "refused" if `keras_qat`
raised one of its errors, "fault" for everything else, and "not built" if the package failed.
"""

from __future__ import annotations

import collections
import importlib
import json
import os
import sys
import tempfile
import time
import unittest.mock
from pathlib import Path

# Keras 3 was called keras_core before its release.
os.environ["KECAM_BACKEND"] = "keras_core"

import keras
import numpy as np
from common import float_tensors
from zoos_models import ZooModel
from zoos_more_models import MODELS

import keras_qat

SEED = 11
SAMPLES = 4
LENGTH = 12
# The modules that are imported by name.
_TORCH = ("torch", "torch.nn", "torch.nn.functional", "torch.utils", "torch.utils.data")


def build(zoo: ZooModel) -> keras.Model:
    """Builds a model of fixed input sizes, and randomizes its variables."""
    module, _, name = zoo.build.rpartition(".")
    if zoo.package == "kecam":
        _open_kecam()
    made = getattr(importlib.import_module(module), name)(**zoo.arguments)
    model = made if isinstance(made, keras.Model) else None
    if zoo.inputs is not None or model is None or None in _sizes(model):
        inputs = _fixed_inputs(zoo, made)
        model = keras.Model(inputs, made(inputs))
    rng = np.random.default_rng(SEED)
    _randomize(model, rng)
    _set_statistics(model, samples(zoo, model, 8, rng))
    return model


def _open_kecam() -> None:
    """Lets keras_cv_attention_models be imported without PyTorch, which only its training needs."""
    sys.modules["keras_core"] = keras
    for name in _TORCH:
        sys.modules.setdefault(name, unittest.mock.MagicMock())


def _sizes(model: keras.Model) -> list[int | None]:
    return [size for tensor in model.inputs for size in tensor.shape[1:]]


def _fixed_inputs(zoo: ZooModel, made):
    if zoo.inputs is not None:
        return keras.Input(zoo.inputs)
    return keras.tree.map_structure(
        lambda tensor: keras.Input(
            tuple(LENGTH if size is None else size for size in tensor.shape[1:]),
            dtype=tensor.dtype,
            name=tensor.name,
        ),
        made.input,
    )


def _randomize(model: keras.Model, rng: np.random.Generator) -> None:
    """Gives normalizations and biases values that a trained model could have."""
    for weight in model.weights:
        shape = weight.shape
        signs = np.where(rng.random(shape) < 0.15, -1, 1)
        choices = {
            "gamma": lambda shape=shape, signs=signs: rng.uniform(0.5, 1.5, shape) * signs,
            "beta": lambda shape=shape: rng.normal(0, 0.3, shape),
            "bias": lambda shape=shape: rng.normal(0, 0.1, shape),
        }
        value = keras.ops.convert_to_numpy(weight)
        if weight.name in choices:
            weight.assign(choices[weight.name]())
        elif weight.trainable and not np.any(value):
            weight.assign(rng.normal(0, 0.5, shape))  # tokens and positions
        elif weight.trainable and 0 < np.max(np.abs(value)) < 1e-3:
            weight.assign(rng.uniform(0.5, 1.5, shape))  # scales of residual branches


def _set_statistics(model: keras.Model, data) -> None:
    """Sets the moving statistics of batch normalizations to those of a batch, changed a little."""
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(data, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.moving_variance.assign(norm.moving_variance + 1e-3)


def samples(zoo: ZooModel, model: keras.Model, count: int, rng: np.random.Generator):
    """Returns random inputs in the structure of the model's inputs."""
    made = [_sample(zoo, tensor, count, rng) for tensor in model.inputs]
    if len(made) == 1:
        return made[0]
    return keras.tree.pack_sequence_as(model.input, made)


def _sample(zoo: ZooModel, tensor, count: int, rng: np.random.Generator) -> np.ndarray:
    shape, name = (count, *tensor.shape[1:]), tensor.name
    if "mask" in name:
        return np.ones(shape, tensor.dtype)
    if "int" in tensor.dtype:
        return rng.integers(0, 2 if "segment" in name else zoo.ids, shape).astype(tensor.dtype)
    if len(shape) != 4:
        return rng.normal(0, 1, shape).astype(tensor.dtype)
    # Images of coarse blocks and noise: a deep network would average pure noise.
    repeats = [-(-size // 6) for size in shape[1:3]]
    blocks = np.kron(rng.uniform(-1, 1, (count, 6, 6, shape[3])), np.ones((1, *repeats, 1)))
    blocks = blocks[:, : shape[1], : shape[2]]
    return np.clip(blocks + rng.normal(0, 0.2, shape), -1, 1).astype(tensor.dtype)


def measure(zoo: ZooModel) -> dict:
    """Runs all steps on one model. Returns the verdict and its facts."""
    keras.utils.set_random_seed(SEED)
    try:
        model = build(zoo)
    except Exception as error:
        return {"verdict": "not built", "cause": _text(error)}
    rng = np.random.default_rng(SEED + 1)
    data, more = (samples(zoo, model, SAMPLES, rng) for _ in range(2))
    facts = {
        "inputs": [list(tensor.shape[1:]) for tensor in model.inputs],
        "parameters": model.count_params(),
    }
    try:
        return facts | _deployed(model, data, more)
    except keras_qat.errors.KerasQatError as error:
        return facts | {"verdict": "refused", "cause": _text(error)}
    except Exception as error:
        return facts | {"verdict": "fault", "cause": _text(error)}


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _deployed(model: keras.Model, data, more) -> dict:
    """Quantizes, calibrates, exports and verifies."""
    qat = keras_qat.quantize_model(model, target="litert")
    keras_qat.calibrate(qat, data, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        keras_qat.export_litert(qat, path)
        report = keras_qat.verify(qat, path, more, kernels=("default",), verbose=0)
        floats = float_tensors(path)
        operators = keras_qat.inspect_litert(path).operators
        counts = collections.Counter(operator.name for operator in operators)
    rows = report.layers[report.kernels].values()
    wrong = sum(row.mismatches for row in rows)
    facts = {
        "elements": sum(row.elements for row in rows),
        "mismatches": wrong,
        "float_tensors": floats,
        "operators": dict(counts.most_common()),
    }
    if wrong or floats:
        cause = f"{wrong} elements differ" if wrong else f"float tensors: {', '.join(floats[:3])}"
        return facts | {"verdict": "fault", "cause": cause}
    return facts | {"verdict": "exact"}


def main() -> int:
    name, start = sys.argv[1], time.perf_counter()
    result = measure(next(zoo for zoo in MODELS if zoo.name == name))
    print(json.dumps({**result, "seconds": round(time.perf_counter() - start, 1)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
