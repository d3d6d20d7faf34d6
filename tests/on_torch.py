"""Functions that `test_torch.py` runs on PyTorch, in processes of their own.

The script takes a folder and the names of functions. It prints the results as JSON, by name. With
`RANK` and `WORLD_SIZE` in the environment it is one of several processes on one machine.
"""

import json
import os
import sys
from typing import Any

import keras
import numpy as np
import torch  # pyright: ignore[reportMissingImports] (an optional backend)
from torch.utils import data  # pyright: ignore[reportMissingImports]

import keras_qat
from keras_qat.layers.models.observed_ranges import named_observers

SAMPLES, BATCH = 32, 8
X = np.random.default_rng(0).normal(size=(SAMPLES, 6, 6, 2)).astype("float32")
X[17] *= 3
Y = np.arange(SAMPLES) % 3


def quantized(calibrated=True):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(4, 3),
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential([keras.Input((6, 6, 2)), *layers])
    return keras_qat.quantize_model(model, calibration_data=X if calibrated else None)


def loader(batch_size=BATCH):
    pairs = data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return data.DataLoader(pairs, batch_size=batch_size)


def ranges(model):
    return {name: [*own.limits, int(own.updates)] for name, own in named_observers(model)}


def predicted(model, **arguments):
    with torch.no_grad():
        return model(torch.tensor(X), **arguments).float().numpy()


def train(model: Any, batches, rate=0.05):
    """Trains in a loop of PyTorch, without the argument `training`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for x, y in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def data_loader(folder):
    """Calibrates with a loader of inputs and targets, and with an array."""
    del folder
    model = quantized(calibrated=False)
    keras_qat.calibrate(model, loader(SAMPLES), verbose=0)  # as many as of an array
    return [*ranges(model).values()] == [*ranges(quantized()).values()]


def own_loop(folder):
    """Trains in the mode of PyTorch's modules, and evaluates in it."""
    model, path = quantized(calibrated=False), os.path.join(folder, "model.tflite")
    model.train()
    train(model, loader())
    steps = {int(own.updates) for _, own in named_observers(model)}
    model.eval()
    is_inference = (predicted(model) == predicted(model, training=False)).all()
    keras_qat.export_litert(model, path)
    report = keras_qat.verify(model, path, X, kernels="default", verbose=0)
    return [sorted(steps), bool(is_inference), report.exact]


def own_loop_like_fit(folder):
    """Compares the weights after a loop of PyTorch with those after `fit`."""
    del folder
    model, other = quantized(), quantized()
    model.train()
    train(model, loader())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    other.compile(keras.optimizers.SGD(0.05), loss)
    other.fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0)
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def keras_loop(folder):
    """Returns whether calls without `training` are inference unless `train` was called."""
    del folder
    model = quantized()
    found = [(predicted(model) == predicted(model, training=False)).all()]
    outer = keras.Sequential([keras.Input((6, 6, 2)), model])
    for each in (model, outer):
        each.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        each.fit(X, Y, batch_size=BATCH, verbose=0)
        before = ranges(model)
        found.append((predicted(model) == predicted(model, training=False)).all())
        found.append(ranges(model) == before)
    return list(map(bool, found))


def autocast(folder):
    """Returns whether inference is exact inside of `torch.autocast`, and a training step works."""
    del folder
    model = quantized()
    exact = predicted(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = predicted(model)
        start = ranges(model)
        model.train()
        train(model, loader())
    moved = all(after[2] > start[name][2] for name, after in ranges(model).items())
    return [bool((exact == inside).all()), moved, bool(np.isfinite(predicted(model)).all())]


def compiled(folder):
    """Returns whether inference is exact after `torch.compile`."""
    del folder
    model = quantized()
    step = torch.compile(lambda x: model(x, training=False))
    with torch.no_grad():
        return bool((step(torch.tensor(X)).numpy() == predicted(model)).all())


def communicated(batches, model):
    """Returns the collective operations of training, with the sizes of their tensors."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profile:
        train(model, batches)
    events = [each for each in profile.events() if each.name.startswith("gloo:")]
    return sorted([each.name, int(np.prod(each.input_shapes[0]))] for each in events)


def distributed(folder):
    """Trains on a part of each batch. Returns ranges, weights and what a step communicates."""
    rank, count = (int(os.environ.get(name, value)) for name, value in ENVIRONMENT)
    if count > 1:
        meeting = f"file://{folder}/meeting"
        torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=count)
    model: Any = quantized(calibrated=False)
    model.train()
    part = BATCH // count
    rows = [slice(i + rank * part, i + (rank + 1) * part) for i in range(0, SAMPLES, BATCH)]
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if count > 1 else model
    batches = [(torch.tensor(X[each]), torch.tensor(Y[each])) for each in rows]
    train(wrapped, batches)
    path = os.path.join(folder, f"{rank}.tflite")
    keras_qat.export_litert(model, path)
    weights = [each.tolist() for each in model.get_weights()]
    results = {"ranges": ranges(model), "weights": weights}
    if count > 1:
        results["communicated"] = communicated(batches[:1], wrapped)
        torch.distributed.destroy_process_group()
    return results


ENVIRONMENT = (("RANK", 0), ("WORLD_SIZE", 1))

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: globals()[name](sys.argv[1]) for name in sys.argv[2:]}))
