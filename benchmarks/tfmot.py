"""Compares TFMOT and keras_qat: supported models, time, and agreement of model and file.

TFMOT 0.8.1 runs in a separate environment, `.venv-tfmot`, which is made on demand (network, 2 GB).
Each tool does the same tasks (`tfmot_worker.py`) with its own Keras in separate processes. This
script measures the contents and the results of the files with the same code for both tools.

`--data` and `--model` are those of `cifar10_resnet8.py`. Without them a ResNet-8 is trained on
scikit-learn's digits, enlarged to 32x32x3, first in float by Keras 2.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from applications_exact import SMALLEST
from cifar10_resnet8 import DATA_FILE, load_images
from common import float_tensors, parse, print_environment, print_table, save
from tfmot_environment import Workers, make_environment, versions

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert_model import LiteRTModel

TOOLS = ("tfmot", "keras_qat")
# One model for each module of `keras.applications` in Keras 3. Large models are last.
FAMILIES = (
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "ConvNeXtTiny",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "VGG16",
    "VGG19",
    "ResNet50",
    "ResNet50V2",
    "Xception",
    "DenseNet121",
    "InceptionV3",
    "NASNetMobile",
    "InceptionResNetV2",
)
NETWORKS = {"ResNet-8": 128, "MobileNetV2 96": 16}
KERNELS = ("default", "reference")
Row = tuple[str, ...]
Results = dict[str, Any]


def check_file(answer: Results) -> Results:
    """Adds the size of a worker's file to its answer. Rejects files that are not fully integer."""
    if "failed" in answer:
        return answer
    path = Path(answer.pop("file"))
    answer["bytes"] = path.stat().st_size
    try:
        file = LiteRTModel(path)
    except LiteRTFormatError as error:
        return {**answer, "failed": f"no file that runs: {str(error).splitlines()[0]}"}
    ends = {str(np.dtype(end.dtype)) for end in (*file.inputs, *file.outputs)}
    if floats := float_tensors(path):
        answer["failed"] = f"{len(floats)} float tensors, such as {floats[0]}"
    elif ends != {"int8"}:
        answer["failed"] = f"inputs and outputs are {sorted(ends)}"
    return answer


def for_both(workers: Workers, task: str, folder: Path, **arguments: Any) -> Results:
    """Gives both tools a task that writes a file."""
    results = {}
    for tool in TOOLS:
        path = folder / f"{tool}.tflite"
        results[tool] = check_file(workers.ask(tool, task, path=str(path), **arguments))
    return results


def measure_families(workers: Workers, folder: Path, args) -> Results:
    return {
        name: for_both(workers, "family", folder, name=name, size=SMALLEST.get(name, 32))
        for name in args.families
    }


def measure_networks(workers: Workers, folder: Path, args) -> Results:
    counts = {"rounds": args.rounds, "repeats": args.repeats}
    return {
        name: for_both(workers, "network", folder, name=name, batch=batch, **counts)
        for name, batch in NETWORKS.items()
    }


def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns scikit-learn's digits as training and validation images of pixels from 0 to 255."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    pixels = np.round(data.images * 255 / 16)[..., None]
    images = np.tile(np.kron(pixels, np.ones((1, 4, 4, 1))), (1, 1, 1, 3))
    return (images[:-500], data.target[:-500]), (images[-500:], data.target[-500:])


def write_data(args, path: Path) -> int:
    """Writes the images in training order. Returns the number of validation images."""
    training, validation = load_images(args.data, args.limit) if args.data else digits()
    order = np.random.default_rng(0).permutation(len(training[1]))[: args.limit]
    x, val_x = training[0][order], validation[0]
    labels = {"y": training[1][order], "val_y": validation[1]}
    np.savez(path, x=x.astype("float32"), val_x=val_x.astype("float32"), **labels)
    return len(val_x)


def measure_training(workers: Workers, folder: Path, args) -> Results:
    data, model = folder / "data.npz", args.model or folder / "float.h5"
    results: Results = {"images": write_data(args, data)}
    if args.model is None:
        written = workers.ask("tfmot", "pretrain", data=str(data), epochs=10, path=str(model))
        if "failed" in written:
            return {**results, **dict.fromkeys(TOOLS, written)}
    training = {"epochs": args.epochs, "rate": 1e-3, "calibration": 500}
    for tool in TOOLS:
        place = folder / tool
        place.mkdir()
        answer = workers.ask(
            tool, "train", model=str(model), data=str(data), folder=str(place), **training
        )
        file, predictions = answer.get("file"), answer.pop("predictions", None)
        results[tool] = check_file(answer)
        if "failed" not in results[tool]:
            results[tool] |= compare(Path(file), np.load(predictions), np.load(data))
    return results


def compare(file: Path, predictions: Any, data: Any) -> Results:
    """Returns the accuracies, and the differences between Keras and the file."""
    labels = data["val_y"]

    def accuracy(outputs: np.ndarray) -> float:
        return float(np.mean(np.argmax(outputs, -1) == labels))

    results: Results = {key: {"accuracy": accuracy(predictions[key])} for key in ("float", "qat")}
    for kernels in KERNELS:
        deployed = LiteRTModel(file, kernels=kernels)
        outputs = deployed.predict(data["val_x"], batch_size=250, verbose=0)
        differing = disagreement(predictions["qat"], outputs, deployed.outputs[0])
        results[kernels] = {"accuracy": accuracy(outputs), **differing}
    return results


def disagreement(in_keras: np.ndarray, outputs: np.ndarray, details: Any) -> dict[str, int]:
    """Returns the number of different classes and of different output integers.

    A class differs if other classes have a larger score in the file: integers are often equal. The
    predictions of Keras are rounded to the integers of the file.
    """
    chosen = np.take_along_axis(outputs, np.argmax(in_keras, -1)[:, None], -1)[:, 0]

    def integers(values: np.ndarray) -> np.ndarray:
        q = np.rint(values / details.scale) + details.zero_point
        limits = np.iinfo(details.dtype)
        return np.clip(q, limits.min, limits.max)

    return {
        "classes": int(np.sum(chosen != outputs.max(-1))),
        "integers": int(np.sum(integers(in_keras) != integers(outputs))),
        "of_integers": outputs.size,
    }


def measure_keras3(workers: Workers, folder: Path, args) -> Results:
    return {tool: workers.ask(tool, "keras3") for tool in TOOLS}


SECTIONS = {
    "families": measure_families,
    "keras3": measure_keras3,
    "networks": measure_networks,
    "training": measure_training,
}


def family_rows(results: Results) -> list[Row]:
    counts = (
        f"{sum('failed' not in both[tool] for both in results.values())} of {len(results)}"
        for tool in TOOLS
    )
    return [("families of keras.applications, to a fully integer file", *counts)]


def keras3_rows(results: Results) -> list[Row]:
    cells = (results[tool].get("failed", "quantized") for tool in TOOLS)
    return [("a model of Keras 3", *cells)]


def network_rows(results: Results) -> list[Row]:
    rows = []
    for name, both in results.items():
        for what, cell in NETWORK_CELLS.items():
            cells = (both[t].get("failed") or cell(both[t]) for t in TOOLS)
            rows.append((f"{name}: {what}", *cells))
    return rows


def step_cell(answer: Results) -> str:
    qat, base = (answer["timings"][key]["cpu_min"] for key in ("qat", "float"))
    return f"{qat / base:.2f} ({1000 * qat / answer['steps']:.0f} ms)"


NETWORK_CELLS = {
    "QAT step / float step, CPU time (QAT step)": step_cell,
    "export, CPU s": lambda answer: f"{answer['timings']['export']['cpu_min']:.2f}",
    "file, kB": lambda answer: f"{answer['bytes'] / 1000:.1f}",
}


def training_rows(results: Results) -> list[Row]:
    def row(what: str, cell) -> Row:
        return (what, *(results[t].get("failed") or cell(results[t]) for t in TOOLS))

    rows = [row("Keras 2 `.h5`, float accuracy", lambda r: f"{100 * r['float']['accuracy']:.2f} %")]
    rows.append(row("QAT, accuracy in Keras", lambda r: f"{100 * r['qat']['accuracy']:.2f} %"))
    for kernels in KERNELS:
        parts = {
            f"accuracy of the file, {kernels}": lambda r: f"{100 * r['accuracy']:.2f} %",
            f"classes that differ, {kernels}": lambda r: f"{r['classes']} of {results['images']}",
            f"outputs that differ, {kernels}": lambda r: f"{r['integers']} of {r['of_integers']}",
        }
        for what, cell in parts.items():
            rows.append(row(what, lambda r, cell=cell, kernels=kernels: cell(r[kernels])))
    return rows


ROWS = {
    "families": family_rows,
    "keras3": keras3_rows,
    "networks": network_rows,
    "training": training_rows,
}


def show(results: Results) -> None:
    if "families" in results:
        cells = [
            (name, *(both[tool].get("failed", "yes") for tool in TOOLS))
            for name, both in results["families"].items()
        ]
        print_table("Quantized and exported, integers throughout", ("model", *TOOLS), cells)
    rows = [row for name in ROWS if name in results for row in ROWS[name](results[name])]
    print_table("TFMOT and keras_qat", ("", *TOOLS), rows)


def arguments(parser) -> None:
    parser.add_argument("--data", type=Path, help=f"folder with {DATA_FILE}")
    parser.add_argument("--model", type=Path, help="a float model for --data, .h5 of Keras 2")
    parser.add_argument("--limit", type=int, help="number of images to train with")
    parser.add_argument("--epochs", type=int, default=1, help="of QAT (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each side")
    parser.add_argument("--repeats", type=int, default=3, help="steps in a round (default: 3)")
    parser.add_argument(
        "--families", nargs="+", default=FAMILIES, help="models of keras.applications"
    )
    parser.add_argument("--seconds", type=float, default=900, help="limit of a task")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=tuple(SECTIONS))


def main() -> int:
    args = parse(__doc__, arguments)
    if args.model is not None and args.data is None:
        raise SystemExit("--model needs --data, the images that it was trained with.")
    print_environment()
    pythons = {"tfmot": make_environment(), "keras_qat": Path(sys.executable)}
    print("TFMOT's side: " + ", ".join(f"{key} {value}" for key, value in versions().items()))
    workers, results = Workers(pythons, args.seconds), {}
    for section in args.only:
        print(f"{section} ...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            results[section] = SECTIONS[section](workers, Path(folder), args)
        save(args.json, {"tfmot_environment": versions(), **results})
    show(results)
    ours = (each.get("keras_qat", each) for each in flat(results))
    return 1 if any("failed" in each for each in ours) else 0


def flat(results: Results) -> list[Results]:
    """Yields the pairs of both tools' answers."""
    parts = [*results.get("families", {}).values(), *results.get("networks", {}).values()]
    return parts + [results[key] for key in ("keras3", "training") if key in results]


if __name__ == "__main__":
    raise SystemExit(main())
