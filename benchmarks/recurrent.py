"""Accuracy, size and speed of recurrent classifiers in int8, on sequences that resemble speech.

Each class is a word of three sounds, which are peaks at some of 12 frequency bands. Each sample
says the word at its own speed, pitch and loudness, after a pause of its own, in noise. A GRU and an
LSTM are trained in float, quantized, fine-tuned, exported, and compared with their files.

The converter's file is TensorFlow Lite's post-training int8 of the same float model, unrolled,
since its loop over steps needs operators that LiteRT does not have.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from common import interleave, parse, print_environment, print_table, save
from keras import layers

import keras_qat
from keras_qat import LiteRTModel

STEPS, BANDS, WORDS = 32, 12, 8
KINDS = {"GRU": layers.GRU, "LSTM": layers.LSTM}
# Of accuracy, in points.
GOAL = 0.5


def spoken(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns spectra of shape (count, STEPS, BANDS), and the words."""
    peaks = np.random.default_rng(0).uniform(1, BANDS - 2, (WORDS, 3))  # the words are the same
    rng = np.random.default_rng(seed)
    words = rng.integers(0, WORDS, count)
    starts, length = rng.uniform(0, 8, (count, 1)), rng.uniform(14, 24, (count, 1))
    place = (np.arange(STEPS)[None] - starts) / length * 3
    sound = np.clip(place.astype(int), 0, 2)
    is_spoken = (place >= 0) & (place < 3)
    centers = np.take_along_axis(peaks[words], sound, 1) + rng.normal(0, 0.6, (count, 1))
    loud = rng.uniform(0.6, 1.4, (count, 1)) * is_spoken * np.sin(np.pi * (place % 1.0)).clip(0)
    bands = np.exp(-((np.arange(BANDS) - centers[..., None]) ** 2) / 2)
    spectra = loud[..., None] * bands + rng.normal(0, 0.35, (count, STEPS, BANDS))
    return spectra.astype("float32"), words


def trained(kind: str, seed: int, data: tuple[np.ndarray, np.ndarray]) -> keras.Model:
    """Trains a classifier in float."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((STEPS, BANDS)), KINDS[kind](32, name="memory"), layers.Dense(WORDS)]
    )
    _compiled(model, 3e-3).fit(*data, batch_size=64, epochs=8, verbose=0)
    return model


def _compiled(model: keras.Model, rate: float) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], jit_compile=False)
    return model


def accuracy(outputs: np.ndarray, words: np.ndarray) -> float:
    """Returns the share of words that are recognized, in percent."""
    return 100.0 * float((outputs.argmax(1) == words).mean())


def measure(kind: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains, quantizes and compares one classifier."""
    x, words = spoken(4096, seed + 1)
    test, expected = spoken(4096, seed + 1001)
    model = trained(kind, seed, (x, words))
    qat = keras_qat.quantize_model(model, calibration_data=x[:512])
    calibrated = accuracy(qat.predict(test, verbose=0), expected)
    _compiled(qat, 3e-4).fit(x, words, batch_size=128, epochs=1, verbose=0)
    path = folder / f"{kind}.tflite"
    keras_qat.export_litert(qat, path)
    report = keras_qat.verify(qat, path, test[:16], kernels="default", verbose=0)
    outputs = LiteRTModel(path).predict(test)
    step = keras_qat.streaming(qat)
    keras_qat.export_litert(step, folder / f"{kind}_step.tflite")
    return {
        "kind": kind,
        "seed": seed,
        "float": accuracy(model.predict(test, verbose=0), expected),
        "calibrated": calibrated,
        "trained": accuracy(outputs, expected),
        "is_exact": report.exact,
        "bytes": path.stat().st_size,
        "step_bytes": (folder / f"{kind}_step.tflite").stat().st_size,
        **against_converter(model, path, x[:512], (test, expected), folder),
    }


def against_converter(
    model: keras.Model, path: Path, x: np.ndarray, test: Any, folder: Path
) -> dict[str, Any]:
    """Compares a file with the converter's of the same float model."""
    import tensorflow as tf

    memory = model.get_layer("memory")
    unrolled = keras.Sequential(
        [
            keras.Input(batch_shape=(1, STEPS, BANDS)),
            type(memory)(memory.units, unroll=True),
            layers.Dense(WORDS),
        ]
    )
    unrolled.set_weights(model.get_weights())
    converter = tf.lite.TFLiteConverter.from_keras_model(unrolled)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([each[None]] for each in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    theirs = folder / "converter.tflite"
    theirs.write_bytes(converter.convert())
    times = interleave({"ours": _runner(path), "theirs": _runner(theirs)}, rounds=50)
    return {
        "converter": accuracy(LiteRTModel(theirs).predict(test[0]), test[1]),
        "converter_bytes": theirs.stat().st_size,
        "ms": 1e3 * min(times["ours"].cpu),
        "converter_ms": 1e3 * min(times["theirs"].cpu),
    }


def _runner(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    [details] = interpreter.get_input_details()
    interpreter.resize_tensor_input(details["index"], (1, STEPS, BANDS))
    interpreter.allocate_tensors()
    interpreter.set_tensor(details["index"], np.zeros((1, STEPS, BANDS), details["dtype"]))
    return interpreter.invoke


def main() -> int:
    """Prints a row for each kind and seed, and the means."""
    args = parse(__doc__, lambda parser: parser.add_argument("--seeds", type=int, default=6))
    print_environment()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, seed in itertools.product(KINDS, range(args.seeds)):
            rows.append(measure(kind, seed, Path(folder)))
            save(args.json, rows)  # a row takes minutes: an interrupted run keeps what it has
    names = [name for name in rows[0] if name not in ("kind", "seed")]
    print_table(
        "Recurrent classifiers in int8",
        ["kind", "seed", *names],
        [[_shown(value) for value in row.values()] for row in rows],
    )
    for kind in KINDS:
        own = [row["trained"] - row["float"] for row in rows if row["kind"] == kind]
        mean, worst = float(np.mean(own)), min(own)
        print(
            f"{kind}: {mean:+.2f} points against float on average, worst {worst:+.2f}, goal -{GOAL}"
        )
    return 0


def _shown(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
