"""Signal-to-noise ratio of a network that removes noise from sound, with 8 and 16 bits.

Sounds resemble voices: a few harmonics of a pitch that glides, loud and quiet by 50 dB. A network
of one-dimensional convolutions estimates the clean sound. It is trained in float, quantized with
activations of 8 bits (`int8`) and of 16 bits (`int16x8`), and fine-tuned. Files are judged on
LiteRT's default kernels, beside the converter's. The ratio is the mean over the sounds, so quiet
sounds count as much as loud ones.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from common import parse, print_environment, print_table, save
from keras import layers

import keras_qat
from keras_qat import LiteRTModel

LENGTH, COUNT, SCHEMES = 256, 2048, ("int8", "int16x8")
DECIBELS = 50.0


def sounds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns noisy and clean sounds of shape (count, LENGTH, 1)."""
    rng = np.random.default_rng(seed)
    time = np.arange(LENGTH)[None, :, None]
    pitch = rng.uniform(0.01, 0.06, (count, 1, 1)) * (
        1 + rng.uniform(-0.3, 0.3, (count, 1, 1)) * time / LENGTH
    )
    harmonics = np.arange(1, 5)
    phases = 2 * np.pi * (np.cumsum(pitch, 1) * harmonics + rng.random((count, 1, 4)))
    clean = (np.sin(phases) * rng.uniform(0.1, 1.0, (count, 1, 4)) / harmonics).sum(-1)
    loudness = 10 ** (-rng.uniform(0, DECIBELS, (count, 1)) / 20)
    noise = rng.normal(0, 0.2, clean.shape)
    shape = (count, LENGTH, 1)
    noisy = (loudness * (clean + noise)).reshape(shape)
    return noisy.astype("float32"), (loudness * clean).reshape(shape).astype("float32")


def network() -> keras.Model:
    x = sound = keras.Input((LENGTH, 1))
    for width in (16, 16, 16):
        x = layers.Conv1D(width, 9, padding="same", activation="relu")(x)
    return keras.Model(sound, layers.Conv1D(1, 9, padding="same")(x))


def relative_error(expected: Any, estimated: Any) -> Any:
    """Returns the logarithm of the relative error: the loss counts quiet sounds as loud ones."""
    error, power = (
        keras.ops.sum(each**2, axis=(1, 2)) for each in (estimated - expected, expected)
    )
    return keras.ops.log((error + 1e-9) / (power + 1e-9))


def fit(model: keras.Model, data: tuple[np.ndarray, np.ndarray], rate: float, epochs: int) -> None:
    steps = epochs * (COUNT // 32)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), relative_error, jit_compile=False)
    model.fit(*data, batch_size=32, epochs=epochs, verbose=0)


def ratio(estimated: np.ndarray, clean: np.ndarray) -> float:
    """Returns the mean signal-to-noise ratio in dB."""
    error, power = (np.sum(each**2, axis=(1, 2)) for each in (estimated - clean, clean))
    return float(np.mean(10 * np.log10(power / error)))


def converted(model: keras.Model, scheme: str, noisy: np.ndarray, path: Path) -> None:
    """Writes the converter's file of a scheme."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([each[None]] for each in noisy)
    sets, dtype = tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.int8
    if scheme == "int16x8":
        sets = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        dtype = tf.int16
    converter.target_spec.supported_ops = [sets]
    converter.inference_input_type = converter.inference_output_type = dtype
    path.write_bytes(converter.convert())


def measure(seed: int, folder: Path) -> list[dict[str, Any]]:
    """Returns a row for the float network and for each file of a seed."""
    keras.utils.set_random_seed(seed)
    data, (noisy, clean) = sounds(COUNT, 2 * seed + 1), sounds(1024, 2 * seed + 2)
    source = network()
    fit(source, data, 2e-3, 20)
    rows = [{"arm": "float", "ratio": ratio(source.predict(noisy, verbose=0), clean)}]
    path = folder / "model.tflite"

    def add(arm: str, qat: keras.Model | None = None) -> None:
        outputs = LiteRTModel(path).predict(noisy, verbose=0)
        row = {"arm": arm, "ratio": ratio(outputs, clean), "bytes": path.stat().st_size}
        if qat is not None:
            row["differ"] = int(np.sum(qat.predict(noisy, verbose=0) != outputs))
        rows.append(row)

    for scheme in SCHEMES:
        converted(source, scheme, data[0][:256], path)
        add(f"converter, {scheme}")
        qat = keras_qat.quantize_model(source, scheme)
        keras_qat.calibrate(qat, data[0][:256], verbose=0)
        for arm in ("calibrated", "trained"):
            if arm == "trained":
                fit(qat, data, 2e-4, 5)
            keras_qat.export_litert(qat, path)
            add(f"{scheme}, {arm}", qat)
    return [{"seed": seed, **row} for row in rows]


def main() -> None:
    args = parse(__doc__, lambda parser: parser.add_argument("--seeds", type=int, default=6))
    print_environment()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.seeds):
            rows += measure(seed, Path(folder))
            save(args.json, rows)
    table = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        ratios = [row["ratio"] for row in mine]
        error = np.std(ratios, ddof=1) / len(ratios) ** 0.5 if len(ratios) > 1 else 0.0
        cells = [mine[0].get("bytes", ""), sum(row["differ"] for row in mine if "differ" in row)]
        table.append((arm, f"{np.mean(ratios):.2f} ± {error:.2f}", *cells))
    headings = ("arm", "signal to noise, dB", "bytes", "outputs != Keras")
    print_table(f"Noise removed from sounds, {args.seeds} seed(s)", headings, table)


if __name__ == "__main__":
    main()
