"""Compares the two forms of an LSTM in a file: one operator, or operators for each step.

For each form: bytes of the file, milliseconds of LiteRT (default kernels, one thread), milliseconds
and arena of TensorFlow Lite Micro on this processor, and vela's estimates for an Ethos-U55. Needs
tflite-micro and ethos-u-vela. Weights and data are random.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from activation_forms import arena
from common import interleave, parse, print_environment, print_table, save
from ethos_u import ACCELERATOR, left_to_cpu

import keras_qat
from tests.vela import compiled_by_vela, summary_by_vela

# Steps, channels of the input, units.
SIZES = ((32, 12, 32), (100, 40, 64))
UNROLLED = [name for name in keras_qat.DEFAULT_REWRITES if name != "fuse_lstms"]
FORMS = {"one operator": None, "unrolled": UNROLLED}

_MICRO = """
import pickle, sys, time
from tflite_micro.python.tflite_micro import runtime
content, x = pickle.load(sys.stdin.buffer)
interpreter = runtime.Interpreter.from_bytes(content, arena_size=64_000_000)
best = float("inf")
for _ in range(50):
    interpreter.set_input(x, 0)
    start = time.perf_counter()
    interpreter.invoke()
    best = min(best, time.perf_counter() - start)
print(1e3 * best)
"""


def file_of(steps: int, channels: int, units: int, rewrites: list[str] | None) -> bytes:
    """Returns the file of an LSTM for one sample."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((steps, channels)), keras.layers.LSTM(units)])
    data = np.random.default_rng(0).normal(size=(32, steps, channels)).astype("float32")
    qat = keras_qat.quantize_model(
        model, calibration_data=data, target="tflite-micro", rewrites=rewrites
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        keras_qat.export_litert(qat, path, batch_size=1)
        return path.read_bytes()


def milliseconds_of_litert(files: dict[str, bytes]) -> dict[str, float]:
    """Returns the time of each file in LiteRT's default kernels, measured in turn."""
    from ai_edge_litert.interpreter import Interpreter

    runners = {}
    for form, content in files.items():
        runners[form] = Interpreter(model_content=content, num_threads=1)
        runners[form].allocate_tensors()
    times = interleave({form: runner.invoke for form, runner in runners.items()}, rounds=50)
    return {form: 1e3 * min(each.cpu) for form, each in times.items()}


def milliseconds_of_micro(content: bytes, x: np.ndarray) -> float:
    """Returns the time of a file in TensorFlow Lite Micro, on this processor."""
    child = subprocess.run(
        [sys.executable, "-c", _MICRO],
        input=pickle.dumps((content, x)),
        capture_output=True,
        check=True,
    )
    return float(child.stdout)


def measure(steps: int, channels: int, units: int) -> list[dict[str, Any]]:
    """Returns a record for each form of an LSTM."""
    files = {form: file_of(steps, channels, units, given) for form, given in FORMS.items()}
    times = milliseconds_of_litert(files)
    x = np.random.default_rng(1).integers(-128, 128, (1, steps, channels)).astype("int8")
    records = []
    for form, content in files.items():
        compiled, summary = compiled_by_vela(content, ACCELERATOR), summary_by_vela(content)
        records.append(
            {
                "steps, channels, units": f"{steps}, {channels}, {units}",
                "form": form,
                "bytes": len(content),
                "litert_ms": round(times[form], 3),
                "micro_ms": round(milliseconds_of_micro(content, x), 3),
                "micro_arena": int(arena(content, x)),
                "vela_on_cpu": len(left_to_cpu(compiled)),
                "vela_cycles": int(summary["cycles_total"]),
                "vela_bytes": len(compiled),
                "vela_sram_kb": float(summary["sram_memory_used"]),
            }
        )
    return records


def main() -> None:
    args = parse(__doc__)
    print_environment()
    records = [record for size in SIZES for record in measure(*size)]
    print_table("Forms of an LSTM", list(records[0]), [list(record.values()) for record in records])
    save(args.json, records)


if __name__ == "__main__":
    main()
