"""Exactness of MobileNet, MobileNetV2 and ResNet50, with weights that make every layer matter.

Weights are random (nothing is downloaded). Kernels get channels of different sizes, batch norms
random scales, some negative, and moving statistics near the real ones of some batch, so that
activations neither vanish nor explode. Each model runs in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import keras
import numpy as np
from common import (
    Stages,
    float_tensors,
    parse,
    peak_rss_mib,
    print_environment,
    print_table,
    save,
)

import keras_qat

SIZE = 96
SEED = 11
CALIBRATION = 16


def random_images(rng: np.random.Generator, count: int) -> np.ndarray:
    """Images in [-1, 1] of coarse blocks and noise: a deep network would average noise alone."""
    blocks = rng.uniform(-1, 1, (count, 6, 6, 3))
    images = np.kron(blocks, np.ones((1, SIZE // 6, SIZE // 6, 1)))
    return np.clip(images + rng.normal(0, 0.2, images.shape), -1, 1).astype("float32")


def build(name: str, rng: np.random.Generator) -> keras.Model:
    """Builds a model of `keras.applications` and randomizes all of its variables."""
    model = getattr(keras.applications, name)(weights=None, input_shape=(SIZE, SIZE, 3))
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(_randomized(weight, rng))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # the moving statistics become those of the next batch
    images = random_images(rng, 32)
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        variance = norm.moving_variance.numpy()
        norm.moving_mean.assign_add(rng.normal(0, 0.1, variance.shape) * np.sqrt(variance))
        norm.moving_variance.assign(variance * rng.uniform(0.8, 1.25, variance.shape) + 1e-3)
    _spread_logits(model, images)
    return model


def _randomized(weight, rng: np.random.Generator):
    value, shape = weight.numpy(), weight.shape
    signs = np.where(rng.random(shape) < 0.15, -1, 1)
    choices = {
        "gamma": rng.uniform(0.5, 1.5, shape) * signs,
        "beta": rng.normal(0, 0.3, shape),
        "bias": rng.normal(0, 0.1, shape),
        # Channels of sizes 1 to 16: one scale for all of them would not do.
        "kernel": value * 2 ** rng.uniform(-2, 2, shape[-1]),
    }
    return choices.get(weight.name, value)


def _spread_logits(model: keras.Model, images: np.ndarray) -> None:
    """Scales the logits, so that the softmax is neither flat nor decided."""
    logits = np.log(model.predict(images, verbose=0) + 1e-30)
    for weight in model.weights[-2:]:
        weight.assign(weight * (3.0 / np.std(logits, axis=-1).mean()))


def train_one_step(qat: keras.Model, rng: np.random.Generator) -> None:
    # Gradients of a deep random network are huge: a step of bounded size leaves it a network.
    optimizer = keras.optimizers.SGD(1e-2, global_clipnorm=1.0)
    qat.compile(optimizer, "sparse_categorical_crossentropy")
    qat.fit(random_images(rng, 8), rng.integers(0, 1000, 8), batch_size=8, epochs=1, verbose=0)


def measure(name: str, count: int, folder: str) -> dict:
    """Takes one model the whole way."""
    print(name, flush=True)
    keras.utils.set_random_seed(SEED)
    rng, stages, path = np.random.default_rng(SEED), Stages(), Path(folder, f"{name}.tflite")
    model = stages.run("build", build, name, rng)
    images = random_images(rng, CALIBRATION)
    qat = stages.run("quantize", keras_qat.quantize_model, model)
    stages.run("calibrate", keras_qat.calibrate, qat, images, verbose=0)
    before = [weight.numpy() for weight in qat.trainable_weights]
    stages.run("one step", train_one_step, qat, rng)
    after = [weight.numpy() for weight in qat.trainable_weights]
    moved = sum(bool(np.any(a != b)) for a, b in zip(before, after, strict=True))
    stages.run("export", keras_qat.export_litert, qat, path)
    report = stages.run("verify", keras_qat.verify, qat, path, random_images(rng, count), verbose=0)
    return {
        "tensors": len(report.layers["reference"]),
        **_compared(report),
        "float_tensors": float_tensors(path),
        "trained_variables": f"{moved} of {len(before)}",
        "file_mib": path.stat().st_size / 2**20,
        "seconds": stages.seconds,
        "peak_rss_mib": peak_rss_mib(),
    }


def _compared(report) -> dict:
    rows = report.layers["default"]
    return {
        "samples": report.samples,
        "elements": sum(row.elements for row in rows.values()),
        "mismatches": report.mismatches(),
        "wrong_layers": [r.name for r in report.layers["reference"].values() if r.mismatches],
        "default_mismatches": report.mismatches("default"),
        "default_output_mismatches": sum(rows[name].mismatches for name in report.outputs),
        "output_elements": sum(rows[name].elements for name in report.outputs),
        "default_largest": max(row.largest_difference for row in rows.values()),
        "agreement": report.agreement,
        "float_agreement": report.float_agreement,
        "lowest_sqnr": min(row.sqnr for row in report.layers["reference"].values()),
    }


def show(results: dict[str, dict]) -> None:
    rows = {
        "tensors compared": lambda r: r["tensors"],
        "elements compared": lambda r: r["elements"],
        "mismatches, reference kernels": lambda r: r["mismatches"],
        "float tensors in the file": lambda r: len(r["float_tensors"]),
        "default kernels: elements that differ": lambda r: (
            f"{100 * r['default_mismatches'] / r['elements']:.3f}%, "
            f"by at most {r['default_largest']:g}"
        ),
        "default kernels: outputs that differ": lambda r: (
            f"{100 * r['default_output_mismatches'] / r['output_elements']:.3f}%"
        ),
        "default kernels: top-1 equal to Keras": lambda r: (
            f"{r['agreement']['default']} of {r['samples']}"
        ),
        "reference kernels: top-1 equal to float": lambda r: (
            f"{r['float_agreement']['reference']} of {r['samples']}"
        ),
        "lowest SQNR of a tensor, dB": lambda r: f"{r['lowest_sqnr']:.1f}",
        "variables that the step changed": lambda r: r["trained_variables"],
        "file, MiB": lambda r: f"{r['file_mib']:.1f}",
        "peak RSS, MiB": lambda r: f"{r['peak_rss_mib']:.0f}",
    }
    table = [(name, *map(cell, results.values())) for name, cell in rows.items()]
    for stage in next(iter(results.values()))["seconds"]:
        table.append((f"{stage}, s", *(f"{r['seconds'][stage]:.1f}" for r in results.values())))
    print_table(f"keras.applications at {SIZE}x{SIZE}, int8 in and out", ("", *results), table)
    exact = not any(r["mismatches"] or r["float_tensors"] for r in results.values())
    print(f"0 mismatches and no float tensor: {'reached' if exact else 'NOT reached'}")


def arguments(parser) -> None:
    names = ["MobileNet", "MobileNetV2", "ResNet50"]
    parser.add_argument("--names", nargs="+", default=names, help="in keras.applications")
    parser.add_argument("--images", type=int, default=4, metavar="K", help="to verify with")


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    spawn = multiprocessing.get_context("spawn")  # a clean process: its peak RSS is the model's
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool,
    ):
        results = {
            name: pool.submit(measure, name, args.images, folder).result() for name in args.names
        }
    show(results)
    save(args.json, results)


if __name__ == "__main__":
    main()
