"""Checks that `wide-activation-range` is found exactly where its advice helps.

It uses models of `keras.applications` with the random weights of `applications_exact.py`, on random
images, or on CIFAR-10 with `--data`, the folder of the file that `cifar10_resnet8.py` reads.
`--models` adds files of trained models for images from 0 to 255, or `--scale` times that. For each
finding it measures the signal-to-noise ratio of the outputs without the advice and with it.
"""

from __future__ import annotations

import gc
import re
import warnings
from pathlib import Path

import keras
import numpy as np
from applications_exact import build, random_images
from cifar10_resnet8 import load_images
from common import parse, print_environment, print_table, save

import keras_qat

# The smallest model of each family.
NAMES = (
    "ConvNeXtTiny DenseNet121 EfficientNetB0 EfficientNetV2B0 InceptionV3 MobileNet MobileNetV2 "
    "MobileNetV3Small NASNetMobile ResNet50 ResNet50V2 VGG16 Xception"
).split()
SAMPLES = 128
SEED = 11


def resized(images: np.ndarray, model: keras.Model, is_centered: bool) -> np.ndarray:
    """Returns images in the model's size, from -1 to 1 if the model does not rescale them."""
    size = model.input_shape[1:3]
    images = keras.ops.image.resize(images.astype("float32"), size, interpolation="bicubic")
    images = np.clip(keras.ops.convert_to_numpy(images), 0, 255)
    return images / 127.5 - 1 if is_centered else images


def signal_to_noise(exact: np.ndarray, quantized: np.ndarray) -> float:
    """Returns the ratio in decibels, around the mean of each output."""
    signal = np.square(exact - exact.mean(axis=0)).sum()
    return float(10 * np.log10(signal / np.square(quantized - exact).sum()))


def measure(model: keras.Model, images: np.ndarray) -> list[dict]:
    """Returns the findings of a model, each with the ratio without and with its advice."""
    exact = model.predict(images, verbose=0)

    def ratio(overrides: dict | None) -> float:
        qat = keras_qat.quantize_model(model, overrides=overrides)
        keras_qat.calibrate(qat, images, verbose=0)
        return signal_to_noise(exact, qat.predict(images, verbose=0))

    report = keras_qat.check(model, calibration_data=images)
    found = [each for each in report.warnings if each.code == "wide-activation-range"]
    before = ratio(None)
    rows = []
    for each in found:
        names = re.findall(r'"([^"]+)": None', each.fix or "")
        after = ratio(dict.fromkeys(names)) if names else None
        rows.append({"layer": each.layer, "message": each.message, "advised_db": after})
    return [{"layer": None, "db": before, "tensors": len(report.layers)}, *rows]


def main() -> int:
    def arguments(parser) -> None:
        parser.add_argument("--names", nargs="*", default=NAMES)
        parser.add_argument("--models", nargs="*", type=Path, default=())
        parser.add_argument("--data", type=Path, help="folder of the CIFAR-10 file")
        parser.add_argument("--scale", type=float, default=1.0)

    args = parse(__doc__, arguments)
    print_environment()
    warnings.simplefilter("ignore")
    natural = None if args.data is None else load_images(args.data, SAMPLES)[0][0]
    results: dict[str, list[dict]] = {}
    for name in [*map(str, args.models), *args.names]:
        rng = np.random.default_rng(SEED)
        keras.utils.set_random_seed(SEED)
        if name in args.names:
            model = build(name, rng)
            images = random_images(model, rng, SAMPLES)
            if natural is not None:
                images = resized(natural, model, is_centered=images.min() < 0)
        else:
            model = keras_qat.load_model(name)
            images = random_images(model, rng, SAMPLES) * 127.5 + 127.5
            if natural is not None:
                images = resized(natural, model, is_centered=False)
            images *= args.scale
        results[name] = measure(model, images)
        first, *rows = results[name]
        print(f"{name}: {first['db']:.1f} dB, {len(rows)} finding(s)", flush=True)
        for row in rows:
            print("   ", row, flush=True)
        del model
        keras.backend.clear_session()
        gc.collect()
    save(args.json, results)
    table = [
        [name, f"{first['db']:.1f}", len(rows), " ".join(f"{row['advised_db']}" for row in rows)]
        for name, (first, *rows) in results.items()
    ]
    print_table("Findings", ("model", "dB", "findings", "dB with the advice"), table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
