import collections
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import threading
from typing import Any

import keras
import pytest

import keras_qat
from tests.processes import ROOT, run_program

L = keras.layers
WORKER = pathlib.Path(__file__).with_name("mutations.py")
OLD = ("convolutions", "functions_of_shapes", "nested", "recurrent", "dict_inputs", "compiled")
OLD += ("operators", "wrappers")
# Reading a damaged file takes well under a second. The rest is for a busy machine.
LONGEST = 300


@pytest.fixture
def bases(keras2, tmp_path):
    """Makes the files to damage: of Keras 2, of Keras 3, of a quantized model, and of weights."""
    for name in OLD:
        shutil.copy(keras2.path(name), tmp_path / f"{name}.h5")
    shutil.copy(keras2.folder / "nested_weights.h5", tmp_path)
    x = keras.Input((8, 8, 3))
    y = L.BatchNormalization()(L.Conv2D(4, 3, activation="relu")(x))
    y = keras.ops.relu6(L.SeparableConv2D(4, 3)(y)) + 0.5
    model = keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(y)))
    model.save(tmp_path / "network.keras")
    keras_qat.quantize_model(model).save(tmp_path / "quantized.keras")
    layers = [keras.Input((6, 6, 2)), L.DepthwiseConv2D(3), L.Flatten(), L.Dense(2)]
    keras.Sequential(layers).save(tmp_path / "new.h5")
    return tmp_path


def outcomes(folder, count):
    """Returns the outcome of each seed. If a process dies, another one goes on after its seed."""
    found, seed = {}, 0
    while seed < count:
        with Worker(folder, seed, count) as worker:
            for line in worker.lines():
                number, _, text = line.partition(" ")
                found[int(number)], seed = text, int(number) + 1
            if seed < count:
                found[seed] = "HANG" if worker.hangs else f"CRASH {worker.process.wait()}"
                seed += 1
    return found


class Worker:
    """A process that loads damaged files."""

    def __init__(self, folder, first, last):
        command = [sys.executable, str(WORKER), str(folder), str(first), str(last)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with open(folder / "log", "ab") as log:
            self.process: Any = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.hangs = False

    def __enter__(self):
        return self

    def lines(self):
        waiting = queue.Queue()

        def read():
            for line in self.process.stdout:
                waiting.put(line.rstrip())
            waiting.put(None)

        threading.Thread(target=read, daemon=True).start()
        while True:
            try:
                line = waiting.get(timeout=LONGEST)
            except queue.Empty:
                self.hangs = True
                return
            if line is None:
                return
            if line.split(" ")[0].isdigit():
                yield line

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def check(found, count):
    kinds = collections.Counter(text.partition(" ")[0] for text in found.values())
    print(f"{count} damaged files: {dict(kinds)}")
    assert len(found) == count
    wrong = {seed: text for seed, text in found.items() if text not in ("loaded", "refused")}
    assert not wrong
    return kinds


def test_load_model_refuses_damaged_files(bases):
    result = run_program(WORKER, bases, 0, 14)
    assert result.returncode == 0, result.stderr
    lines = [line.partition(" ") for line in result.stdout.splitlines()]
    kinds = check({int(number): text for number, _, text in lines if number.isdigit()}, 14)
    assert kinds["refused"] > 7


@pytest.mark.slow
def test_load_model_refuses_2000_damaged_files(bases):
    kinds = check(outcomes(bases, 2000), 2000)
    assert kinds["refused"] > 1000
