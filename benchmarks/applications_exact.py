"""Checks that every model of `keras.applications` is exact, with weights that use every layer.

Weights are random, so nothing is downloaded. Kernels have channels of different sizes. Batch norms
have random scales, some negative, and moving statistics near those of some batch, so that
activations neither vanish nor explode. Each model has the smallest input that it can be built with,
or `--size`. A separate process calibrates it, trains it for one step, makes it for each of
`--targets`, and exports and compares it with the kernels of that target, tensor by tensor.
`--markdown docs/applications.md` renews the rows of the page, which is about `--scheme int8`: those
of the large table, or for the targets of microcontrollers and ARM64 of the section about them.
`--results` reads what `--json` saved instead of measuring.

`--clone-only` is quick: it compares the rewritten float models with the originals. With
`--markdown` it renews these two columns of the page.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import keras
import numpy as np
from applications_page import (
    CLONE_COLUMNS,
    COLUMNS,
    OTHER_COLUMNS,
    is_exact,
    other_rows,
    renew_columns,
    renew_section,
    rows_of,
    write_page,
)
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

# The smallest height and width of a model if it is not 32.
SMALLEST = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
SEED = 11
CALIBRATION = 16
TARGETS = ("litert", "reference")
# Their kernels run in a separate process, sample by sample or emulated.
OTHER_TARGETS = ("tflite-micro", "litert-arm64")
# A relative tolerance. A network that amplifies rounding more than this is compared with itself.
CLONE_GOAL = 1e-4
NAMES = sorted(
    name for name in dir(keras.applications) if callable(getattr(keras.applications, name))
)


def random_images(model: keras.Model, rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns images of coarse blocks and noise: a deep network would average pure noise.

    Pixels are in [-1, 1], or 0 to 255 for models that rescale them.
    """
    size = model.input_shape[1]
    blocks = rng.uniform(-1, 1, (count, 6, 6, 3))
    images = np.kron(blocks, np.ones((1, -(-size // 6), -(-size // 6), 1)))[:, :size, :size]
    images = np.clip(images + rng.normal(0, 0.2, images.shape), -1, 1)
    rescales = (keras.layers.Rescaling, keras.layers.Normalization)
    if any(isinstance(layer, rescales) for layer in model.layers):
        images = np.round(127.5 * images + 127.5)
    return images.astype("float32")


def build(name: str, rng: np.random.Generator, size: int | None = None) -> keras.Model:
    """Builds a model of `keras.applications` and randomizes all of its variables."""
    shape = (*[size or SMALLEST.get(name, 32)] * 2, 3)
    model = getattr(keras.applications, name)(weights=None, input_shape=shape)
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    for layer in model.layers:
        for weight in layer.weights:
            # ConvNeXt initializes its branches with a factor of a millionth.
            kind = "gamma" if type(layer).__name__ == "LayerScale" else weight.name
            weight.assign(_randomized(kind, weight, rng))
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # makes the moving statistics those of the next batch
    images = random_images(model, rng, 32)
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        variance = norm.moving_variance.numpy()
        norm.moving_mean.assign_add(rng.normal(0, 0.1, variance.shape) * np.sqrt(variance))
        norm.moving_variance.assign(variance * rng.uniform(0.8, 1.25, variance.shape) + 1e-3)
    _spread_logits(model, images)
    return model


def _randomized(kind: str, weight, rng: np.random.Generator):
    value, shape = weight.numpy(), weight.shape
    signs = np.where(rng.random(shape) < 0.15, -1, 1)
    choices = {
        "gamma": lambda: rng.uniform(0.5, 1.5, shape) * signs,
        "beta": lambda: rng.normal(0, 0.3, shape),
        "bias": lambda: rng.normal(0, 0.1, shape),
        # Channels of sizes 1 to 16, for which one scale per tensor would lose accuracy.
        "kernel": lambda: value * 2 ** rng.uniform(-2, 2, shape[-1]),
        # The statistics of `Normalization` for pixels from 0 to 1.
        "mean": lambda: rng.uniform(0.4, 0.5, shape),
        "variance": lambda: rng.uniform(0.04, 0.06, shape),
    }
    return choices.get(kind, lambda: value)()


def _spread_logits(model: keras.Model, images: np.ndarray) -> None:
    """Scales the logits, so that the softmax is neither flat nor one-hot."""
    logits = keras.ops.convert_to_numpy(model(images, training=False))
    logits = np.log(logits + 1e-30)
    for weight in model.weights[-2:]:
        weight.assign(weight * (3.0 / np.std(logits, axis=-1).mean()))


def train_one_step(qat: keras.Model, images: np.ndarray, rng: np.random.Generator) -> None:
    # A deep random network has huge gradients. A step of bounded size does not destroy it.
    optimizer = keras.optimizers.SGD(1e-2, global_clipnorm=1.0)
    qat.compile(optimizer, "sparse_categorical_crossentropy")
    qat.fit(images, rng.integers(0, 1000, 8), batch_size=8, epochs=1, verbose=0)


def measure(
    name: str,
    count: int,
    folder: str | None,
    size: int | None = None,
    scheme: str = "int8",
    targets: Sequence[str] = TARGETS,
    trained: bool = True,
) -> dict:
    """Runs all steps on one model. Without a folder it only makes the clone."""
    print(name, flush=True)
    keras.utils.set_random_seed(SEED)
    rng, stages = np.random.default_rng(SEED), Stages()
    model = stages.run("build", build, name, rng, size)
    parts = [random_images(model, rng, n) for n in (CALIBRATION, 8, count)]
    differences = stages.run("clone", clone_difference, model, parts[0])
    if folder is None:
        return differences
    qat = stages.run("quantize", keras_qat.quantize_model, model, scheme, target=targets[0])
    result = {"size": model.input_shape[1], "parameters": model.count_params()}
    del model
    stages.run("calibrate", keras_qat.calibrate, qat, parts[0], verbose=0)
    before = [weight.numpy() for weight in trained_weights(qat)]
    if trained:
        stages.run("one step", train_one_step, qat, parts[1], rng)
    after = [weight.numpy() for weight in trained_weights(qat)]
    moved = sum(bool(np.any(a != b)) for a, b in zip(before, after, strict=True))
    result |= {"trained_variables": moved, "trainable_variables": len(before)}
    del before, after
    compared = {}
    for target in targets:
        if qat.target != target:
            qat = stages.run("retarget", keras_qat.quantize_model, qat, target=target)
        path = Path(folder, f"{name}_{target}.tflite")
        stages.run("export", keras_qat.export_litert, qat, path)
        report = stages.run("verify", keras_qat.verify, qat, path, parts[2], verbose=0)
        compared[target] = {
            **_compared(report),
            "float_tensors": float_tensors(path),
            "file_mib": path.stat().st_size / 2**20,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    return {
        **result,
        **differences,
        "targets": compared,
        "seconds": stages.seconds,
        "peak_rss_mib": peak_rss_mib(),
    }


def clone_difference(model: keras.Model, images: np.ndarray) -> dict[str, float]:
    """Returns the relative difference of the rewritten and the original float model.

    Both compute the same function, but round differently. Some deep random networks amplify
    rounding without bound. The effect of pixels that are a millionth larger shows by how much.
    """
    exact = np.asarray(model(images, training=False))
    clone = np.asarray(keras_qat.clone_model(model)(images, training=False))
    nudged = np.asarray(model(images * np.float32(1 + 1e-6), training=False))
    return {
        "clone_difference": float(np.max(np.abs(exact - clone)) / np.max(exact)),
        "nudged_difference": float(np.max(np.abs(exact - nudged)) / np.max(exact)),
    }


def trained_weights(qat: keras.Model) -> list:
    """Returns the trainable variables without biases that a batch norm after them cancels."""
    normalized = [x for x in qat.layers if getattr(x, "batch_normalization", None) is not None]
    without = {id(layer.bias) for layer in normalized if layer.use_bias}
    return [weight for weight in qat.trainable_weights if id(weight) not in without]


def _compared(report) -> dict:
    """Returns the differences from each of the kernels, those of the target first."""
    own = report.layers[report.kernels]
    return {
        "kernels": report.kernels,
        "samples": report.samples,
        "tensors": len(own),
        "elements": sum(row.elements for row in own.values()),
        "mismatches": {kernels: report.mismatches(kernels) for kernels in report.layers},
        "wrong_layers": [row.name for row in own.values() if row.mismatches],
        "output_elements": sum(own[name].elements for name in report.outputs),
        "output_mismatches": {
            kernels: sum(rows[name].mismatches for name in report.outputs)
            for kernels, rows in report.layers.items()
        },
        "agreement": report.agreement,
        "float_agreement": report.float_agreement,
    }


def show(results: dict[str, dict], scheme: str) -> None:
    print_table(f"keras.applications, {scheme} in and out", list(COLUMNS), rows_of(results))
    print_table("Targets", list(OTHER_COLUMNS), other_rows(results))
    for name, result in results.items():
        if "failed" in result:
            print(f"{name} failed: {result['failed']}")
    exact = sum("failed" not in result and is_exact(result) for result in results.values())
    print(f"0 mismatches and no float tensor: {exact} of {len(results)}")


def show_clones(results: dict[str, dict], goal: float) -> bool:
    """Prints the differences of the clones. Returns whether all compute the same function."""
    columns = {"model": COLUMNS["model"], **CLONE_COLUMNS}
    print_table("Clones against originals, relative", list(columns), rows_of(results, columns))
    held = [
        "failed" not in r and r["clone_difference"] <= max(goal, r["nudged_difference"])
        for r in results.values()
    ]
    near = sum(r.get("clone_difference", 1.0) <= goal for r in results.values())
    print(f"within {goal:g}: {near} of {len(held)}; or nearer than the nudged input: {sum(held)}")
    return all(held)


def arguments(parser) -> None:
    parser.add_argument("--names", nargs="+", default=NAMES, help="models of keras.applications")
    parser.add_argument(
        "--images", type=int, default=4, metavar="K", help="number of images for verify"
    )
    parser.add_argument("--size", type=int, help="height and width instead of the smallest")
    parser.add_argument("--scheme", default="int8", choices=("int8", "uint8"))
    parser.add_argument(
        "--targets",
        nargs="+",
        default=TARGETS,
        choices=TARGETS + OTHER_TARGETS,
        help="kernels to compare with; the last two need tflite-micro and `make arm64`",
    )
    parser.add_argument("--untrained", action="store_true", help="leave out the step of training")
    parser.add_argument("--clone-only", action="store_true", help="stop at the float clone")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the table here, too")
    parser.add_argument("--results", type=Path, metavar="PATH", help="read these, measure nothing")


def measure_all(args) -> dict[str, dict]:
    """Measures each model in a new process, whose peak memory is that of the model."""
    print_environment()
    spawn = multiprocessing.get_context("spawn")
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names:
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                try:
                    place = None if args.clone_only else folder
                    rest = (
                        args.images,
                        place,
                        args.size,
                        args.scheme,
                        args.targets,
                        not args.untrained,
                    )
                    results[name] = pool.submit(measure, name, *rest).result()
                except Exception as error:  # go on with the other models
                    results[name] = {"failed": f"{type(error).__name__}: {error}"}
            save(args.json, results)
    return results


def main() -> int:
    args = parse(__doc__, arguments)
    if args.results is None:
        results = measure_all(args)
    else:
        results = json.loads(args.results.read_text())["results"]
    if args.clone_only:
        if args.markdown is not None:
            renew_columns(args.markdown, results)
        return 0 if show_clones(results, CLONE_GOAL) else 1
    show(results, args.scheme)
    if args.markdown is not None:
        measured = {target for each in results.values() for target in each.get("targets", ())}
        write = write_page if set(TARGETS) <= measured else renew_section
        write(args.markdown, results)
    return 0 if all("failed" not in r and is_exact(r) for r in results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
