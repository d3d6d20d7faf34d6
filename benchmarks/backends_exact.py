"""Checks exactness on the backend and the device of Keras, such as a GPU under JAX or PyTorch.

A GPU adds products in different orders and, if allowed, in fewer bits. Inference must not depend on
this. The script quantizes models of `keras.applications` with random weights, trains them for a
step, exports them, and compares each tensor with LiteRT's default kernels on the CPU. The
environment chooses the backend: `KERAS_BACKEND=jax python benchmarks/backends_exact.py`. With JAX
and PyTorch, TensorFlow is not necessary.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from applications_exact import build, random_images, train_one_step
from common import Stages, parse, print_environment, print_table, save

import keras_qat

NAMES = ("MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ResNet50", "ConvNeXtTiny")


HEADINGS = ("model", "tensors", "elements", "mismatches", "verify, s")


def arguments(parser) -> None:
    parser.add_argument("--names", nargs="+", default=NAMES, help="models of keras.applications")
    parser.add_argument("--images", type=int, default=32, help="number of images to compare")
    parser.add_argument("--size", type=int, default=64, help="height and width")
    parser.add_argument("--scheme", default="int8")


def device() -> str:
    """Returns the device of the backend."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    return str([each.name for each in tf.config.get_visible_devices()])


def compare(name: str, args) -> tuple[str, int, int, int, float]:
    """Quantizes, trains, exports and verifies one model."""
    print(name)
    rng, stages = np.random.default_rng(11), Stages()
    model = stages.run("build", build, name, rng, args.size)
    images = random_images(model, rng, args.images)
    qat = stages.run(
        "quantize", keras_qat.quantize_model, model, args.scheme, calibration_data=images[:16]
    )
    stages.run("train", train_one_step, qat, images[:8], rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        stages.run("export", keras_qat.export_litert, qat, path)
        report = stages.run(
            "verify", keras_qat.verify, qat, path, images, kernels="default", verbose=0
        )
    layers = report.layers["default"].values()
    elements = sum(layer.elements for layer in layers)
    mismatches = sum(layer.mismatches for layer in layers)
    return name, len(layers), elements, mismatches, stages.seconds["verify"]


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    import keras

    where = f"{keras.backend.backend()}, Keras {keras.__version__}, on {device()}"
    rows = [compare(name, args) for name in args.names]
    cells = [(name, count, f"{elements:,}", *rest) for name, count, elements, *rest in rows]
    print_table(f"{args.scheme} with {where}", HEADINGS, cells)
    results = [dict(zip(HEADINGS, row, strict=True)) for row in rows]
    save(args.json, {"scheme": args.scheme, "where": where, "models": results})
    raise SystemExit(any(row[3] for row in rows))


if __name__ == "__main__":
    main()
