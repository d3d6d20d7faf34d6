"""Measures MLPerf Tiny's ResNet-8 on CIFAR-10: float, calibrated, trained, and as a file.

The data folder holds `cifar10_train_jpeg.npz` with the arrays `jpeg` (the bytes of all JPEG files),
`offsets` (file i is jpeg[offsets[i]:offsets[i + 1]]) and `labels`. The last 5,000 images are for
validation.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import keras
import numpy as np
from common import Stages, file_outputs, parse, print_environment, print_table, save

import keras_qat

DATA_FILE = "cifar10_train_jpeg.npz"
VALIDATION = 5000
CALIBRATION = 500
VERIFICATION = 500
GOAL = 0.3
# One epoch at a constant rate scatters by some points, so several orders are necessary.
SEEDS = (20, 21, 22, 23, 24, 25)
SCHEMES = ("int8", "uint8")
# Those of the target first.
KERNELS = ("default", "reference")


def load_images(folder: Path, limit: int | None):
    """Returns training and validation images (uint8) with their labels, in the file's order."""
    import tensorflow as tf

    with np.load(folder / DATA_FILE) as data:
        jpeg, offsets, labels = data["jpeg"].tobytes(), data["offsets"], data["labels"]
    border = len(labels) - VALIDATION
    sizes = [min(limit or size, size) for size in (border, VALIDATION)]

    def decoded(first, count):
        images = np.empty((count, 32, 32, 3), "uint8")
        for place, i in enumerate(range(first, first + count)):
            file = jpeg[offsets[i] : offsets[i + 1]]
            images[place] = tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE").numpy()
        return images, labels[first : first + count].astype("int32")

    return decoded(0, sizes[0]), decoded(border, sizes[1])


def compiled(model: keras.Model) -> keras.Model:
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    model.fit(images, labels, batch_size=64, epochs=1, verbose=0)


def evaluate(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> dict:
    loss, accuracy = model.evaluate(images, labels, batch_size=250, verbose=0)
    return {"loss": loss, "accuracy": accuracy, "correct": round(accuracy * len(labels))}


def measure_quantized(name, qat, validation, folder, stages) -> dict:
    """Returns accuracies in Keras and of the file, their differences, and `verify`."""
    images, labels = validation
    result = stages.run(f"{name}: Keras evaluate", evaluate, qat, images, labels)
    path = folder / "model.tflite"
    types = {"inference_input_type": "uint8", "inference_output_type": "float32"}
    stages.run(f"{name}: export", keras_qat.export_litert, qat, path, **types)
    in_keras = qat.predict(images, batch_size=250, verbose=0)
    for kernels in KERNELS:
        outputs = stages.run(f"{name}: {kernels}", file_outputs, path, kernels, images)
        correct = int(np.sum(np.argmax(outputs, -1) == labels))
        result[kernels] = {
            "correct": correct,
            "accuracy": correct / len(labels),
            "different_outputs": int(np.count_nonzero(outputs != in_keras)),
        }
    some = images[:VERIFICATION]
    report = stages.run(f"{name}: verify", keras_qat.verify, qat, path, some, verbose=0)
    print(f"  {report.verdict}")
    elements = sum(row.elements for row in report.layers[report.kernels].values())
    result["verify"] = {
        "samples": report.samples,
        "tensors": len(report.layers[report.kernels]),
        "elements": elements,
        "mismatches": report.mismatches(),
        "reference_mismatches": report.mismatches("reference"),
    }
    result["file_bytes"] = path.stat().st_size
    return result


def run(args) -> dict:
    stages = Stages()
    training, validation = stages.run("decode", load_images, args.data, args.limit)
    source = compiled(keras.saving.load_model(args.model, compile=False))
    results = {
        "images": [len(training[1]), len(validation[1])],
        "float, as loaded": stages.run("float: evaluate", evaluate, source, *validation),
        "schemes": {scheme: {} for scheme in args.schemes},
        "seeds": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            trained = compiled(keras.models.clone_model(source))
            trained.set_weights(source.get_weights())
            stages.run(f"float: one epoch, seed {seed}", train, trained, *training, seed)
            row = results["seeds"][seed] = {"float": evaluate(trained, *validation)}
            for scheme, measured in results["schemes"].items():
                measure = None
                if seed == args.seeds[0]:  # files of other seeds are as exact
                    rest = (validation, Path(folder), stages)
                    measure = functools.partial(measure_into, measured, rest)
                qat = train_quantized(source, scheme, training, seed, stages, measure)
                row[scheme] = evaluate(qat, *validation)
    results["seconds"] = stages.seconds
    return results


def measure_into(measured: dict, rest: tuple, name: str, qat: keras.Model) -> None:
    measured[name] = measure_quantized(name, qat, *rest)


def train_quantized(source, scheme, training, seed, stages, measure) -> keras.Model:
    """Quantizes, calibrates and trains. Calls `measure` before and after the epoch."""
    qat = compiled(keras_qat.quantize_model(source, scheme))
    keras_qat.calibrate(qat, training[0][:CALIBRATION], verbose=0)
    if measure is not None:
        measure(f"{scheme}, calibrated", qat)
    stages.run(f"{scheme}: one epoch, seed {seed}", train, qat, *training, seed)
    if measure is not None:
        measure(f"{scheme}, one epoch", qat)
    return qat


def show(results: dict) -> None:
    floats = {
        "float, as loaded": results["float, as loaded"],
        "float, one epoch": next(iter(results["seeds"].values()))["float"],
    }
    rows = []
    for name, row in (floats | quantized_rows(results)).items():
        kernels = [row.get(key) for key in KERNELS]
        accuracies = [f"{k['accuracy']:.4f}" if k else "" for k in kernels]
        different = [k["different_outputs"] if k else "" for k in kernels]
        verified = row.get("verify")
        wrong = f"{verified['mismatches']} of {verified['elements']}" if verified else ""
        rows.append((name, f"{row['accuracy']:.4f}", *accuracies, *different, wrong))
    headings = ("model", "Keras", ".tflite default", ".tflite ref.")
    headings += ("outputs != Keras (default)", "(ref.)", "verify: mismatches, all layers")
    count = results["images"]
    print_table(f"CIFAR-10 accuracy, {count[0]} to train, {count[1]} to validate", headings, rows)
    print_goals(results)


def quantized_rows(results: dict) -> dict:
    return {name: row for rows in results["schemes"].values() for name, row in rows.items()}


def print_goals(results: dict) -> None:
    """Prints whether each goal was reached."""
    quantized = quantized_rows(results).values()
    goals = {
        "0 mismatches against the default kernels": all(
            row["verify"]["mismatches"] == row["default"]["different_outputs"] == 0
            for row in quantized
        ),
        "accuracy in Keras and of the file equal to the last digit": all(
            row["correct"] == row["default"]["correct"] for row in quantized
        ),
    }
    for scheme, losses in show_seeds(results).items():
        error = np.std(losses, ddof=1) / len(losses) ** 0.5 if len(losses) > 1 else float("nan")
        mean = float(np.mean(losses))
        points = f"{mean:+.2f}, standard error {error:.2f}, {len(losses)} seed(s)"
        goals[f"{scheme} at most {GOAL} points below float trained alike (mean {points})"] = (
            mean <= GOAL
        )
    results["goals"] = goals
    for text, held in goals.items():
        print(f"{text}: {'reached' if held else 'NOT reached'}")


def show_seeds(results: dict) -> dict[str, list[float]]:
    """Prints the results of each order of the images. Returns the points that each scheme lost."""
    losses: dict[str, list[float]] = {scheme: [] for scheme in results["schemes"]}
    rows = []
    for seed, row in results["seeds"].items():
        percent = {name: 100 * each["accuracy"] for name, each in row.items()}
        for scheme, lost in losses.items():
            lost.append(percent["float"] - percent[scheme])
        ends = (f"{lost[-1]:+.2f}" for lost in losses.values())
        rows.append((seed, *(f"{each:.2f}" for each in percent.values()), *ends))
    headings = ("seed", "float, %", *(f"{scheme}, %" for scheme in losses))
    headings += tuple(f"{scheme}: points lost" for scheme in losses)
    print_table(
        "One epoch each, with a different order of the images for each seed", headings, rows
    )
    return losses


def arguments(parser) -> None:
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {DATA_FILE}")
    parser.add_argument("--model", type=Path, required=True, help="the pretrained .h5 file")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="orders of the images")
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, choices=SCHEMES)
    parser.add_argument("--limit", type=int, help="largest number of images of each split")


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    results = run(args)
    show(results)
    save(args.json, results)


if __name__ == "__main__":
    main()
