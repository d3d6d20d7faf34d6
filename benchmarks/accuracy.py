"""Measures the accuracy of integer files on CIFAR-10: ours, the converter's, and the peers'.

All arms start from the same float weights and see the same batches. A seed gives the order of the
images and chooses those of calibration. Files are judged on LiteRT's default kernels, by images
that no training sees. `--data` and `--model` are those of `cifar10_resnet8.py`; the other networks
are trained in float first. The peers run in an environment of their own, `.venv-accuracy`, which
is made on demand (network, 3 GB).

Each result is saved at once, and results that are there already are not measured again, so an
interrupted run goes on. A full run takes a day on two cores.
"""

from __future__ import annotations

import functools
import gc
import gzip
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from accuracy_arms import ARMS, Task
from accuracy_nets import DATA_FILE, FLOAT_RATE, NETS, TUNING_RATE, fit, percent, write_images
from accuracy_page import HEADINGS, goals, tables, write_page
from common import ROOT, environment, float_tensors, parse, print_environment, print_table, save
from tfmot_environment import Workers, make_environment

from keras_qat import LiteRTModel

ENVIRONMENT = ROOT / ".venv-accuracy"
HERE = Path(__file__).parent
PRETRAINED = "resnet8"


def float_model(net: str, args, images: Path) -> keras.Model:
    """Returns a trained float network. It is trained once."""
    if net == PRETRAINED:
        return keras.saving.load_model(args.model, compile=False)
    path = args.folder / f"{net}-{args.float_epochs}.weights.h5"
    keras.utils.set_random_seed(0)
    model = NETS[net](keras)
    if not path.exists():
        print(f"  {net}: {args.float_epochs} epochs in float ...", flush=True)
        fit(keras, model, np.load(images), args.float_epochs, 0, FLOAT_RATE)
        model.save_weights(path)
    model.load_weights(path)
    return model


def measured(arm: str, task: Task) -> dict[str, Any]:
    """Returns the accuracy and the size of an arm's file."""
    start = time.perf_counter()
    labels, images = task.data["val_y"], task.data["val_x"]
    if arm == "float, as given":
        return {"accuracy": percent(_outputs(task.source, images), labels)}
    if arm == "float, trained":
        model = keras.models.clone_model(task.source)
        model.set_weights(task.source.get_weights())
        fit(keras, model, task.data, task.epochs, task.seed, TUNING_RATE)
        return {"accuracy": percent(_outputs(model, images), labels)}
    result = ARMS[arm].make(task)
    qat = result.pop("keras", None)
    if "failed" in result:
        return result
    path = Path(result["file"])
    outputs = LiteRTModel(path).predict(images.astype("float32"), batch_size=250, verbose=0)
    row = {
        "accuracy": percent(outputs, labels),
        "bytes": path.stat().st_size,
        "gzip_bytes": len(gzip.compress(path.read_bytes(), mtime=0)),
        "float_tensors": len(float_tensors(path)),
    }
    if qat is not None:
        row["different_outputs"] = int(np.count_nonzero(_outputs(qat, images) != outputs))
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def _outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(images.astype("float32"), batch_size=250, verbose=0)


def measure_all(args) -> dict[str, Any]:
    """Measures the results that are missing. Returns all."""
    args.folder.mkdir(parents=True, exist_ok=True)
    images = args.folder / f"images-{args.limit or 'all'}.npz"
    if not images.exists():
        write_images(args.data, images, args.limit)
    results = json.loads(args.json.read_text())["results"] if args.json.exists() else {}
    data = dict(np.load(images))
    for seed, net in itertools.product(args.seeds, args.nets):
        rows = results.setdefault(net, {})
        missing = [arm for arm in args.arms if str(seed) not in rows.get(arm, {})]
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as folder:
            task = make_task(net, seed, args, (images, data), Path(folder))
            for arm in missing:
                row = rows.setdefault(arm, {})[str(seed)] = measured(arm, task)
                print(f"{net}, seed {seed}, {arm}: {row}", flush=True)
                save(args.json, results)
                gc.collect()
    return results


def make_task(net: str, seed: int, args, images: tuple[Path, Any], folder: Path) -> Task:
    """Loads or trains the float network of a task."""
    source = float_model(net, args, images[0])
    weights = args.folder / f"{net}.npz"
    np.savez(weights, *source.get_weights())
    model = args.model if net == PRETRAINED else None
    workers = Workers({"peers": args.python}, 24 * 3600, HERE / "accuracy_worker.py")
    return Task(net, source, model, weights, *images, args.epochs, seed, folder, workers)


def arguments(parser) -> None:
    arms = ("float, as given", "float, trained", *ARMS)
    nets = (PRETRAINED, *NETS)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {DATA_FILE}")
    parser.add_argument("--model", type=Path, required=True, help="the pretrained ResNet-8, .h5")
    parser.add_argument("--nets", nargs="+", default=nets, choices=nets)
    parser.add_argument("--arms", nargs="+", default=arms, choices=arms, metavar="ARM")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(6))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--float-epochs", type=int, default=20)
    parser.add_argument("--limit", type=int, help="number of images to train with")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "accuracy")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    parser.add_argument("--python", type=Path, help="a Python with the peers (default: make one)")


def main() -> None:
    args = parse(__doc__, arguments)
    args.json = args.json or ROOT / "docs" / "accuracy.json"
    print_environment()
    make = functools.partial(make_environment, ENVIRONMENT, HERE / "requirements-accuracy.txt")
    args.python = args.python or make()
    results = measure_all(args)
    for name, rows in tables(results).items():
        print_table(name, HEADINGS, rows)
    print("\n".join(goals(results)))
    save(args.json, results)
    if args.markdown:
        write_page(args.markdown, results, environment(), args.epochs)


if __name__ == "__main__":
    main()
