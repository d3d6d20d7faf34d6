"""Trains, quantizes and exports a ResNet v1 for CIFAR-10 that is written in three ways.

According to notes on quantizing with TensorFlow 1.x, the activation after the addition stops the
conversion. They advise to combine it with the previous layers:

- "plain": the ordinary Keras model, with `Activation("relu")` after each `add`;
- "drop-in": the same network of `keras_qat.layers` that contain batch normalization and activation;
- "moved": the advice: no activation after `add`, but one in each of the two layers before it.

The data folder holds the file that `cifar10_resnet8.py` reads.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from cifar10_resnet8 import CALIBRATION, DATA_FILE, load_images
from common import (
    Stages,
    file_outputs,
    float_tensors,
    parse,
    print_environment,
    print_table,
    save,
)
from keras import layers

import keras_qat
from keras_qat.layers import QAdd, QConv2D

BATCH = 64
VERIFICATION = 200
COMMON = {
    "padding": "same",
    "kernel_initializer": "he_normal",
    "kernel_regularizer": keras.regularizers.L2(1e-4),
}


@dataclasses.dataclass(frozen=True)
class Way:
    """The functions that write a network in one way.

    Attributes:
        convolve: Makes `(x, filters, size, strides, activation, batch_normalization)` a tensor.
        merge: Adds two tensors, and activates the sum if this way does so.
        before_merge: The activation of the two layers before the addition.
    """

    convolve: Callable[..., Any]
    merge: Callable[..., Any]
    before_merge: str | None = None


def resnet_layer(
    x, num_filters, kernel_size=3, strides=1, activation="relu", batch_normalization=True
):
    """Makes convolution, batch normalization and activation as three Keras layers."""
    x = layers.Conv2D(num_filters, kernel_size, strides, **COMMON)(x)
    if batch_normalization:
        x = layers.BatchNormalization()(x)
    return x if activation is None else layers.Activation(activation)(x)


def drop_in_layer(
    x, num_filters, kernel_size=3, strides=1, activation="relu", batch_normalization=True
):
    """Makes convolution, batch normalization and activation as one layer."""
    layer = QConv2D(
        num_filters,
        kernel_size,
        strides,
        batch_norm=batch_normalization,
        activation=activation,
        use_bias=True,
        **COMMON,
    )
    return layer(x)


WAYS = {
    "plain": Way(resnet_layer, lambda x, y: layers.Activation("relu")(layers.add([x, y]))),
    "drop-in": Way(drop_in_layer, lambda x, y: QAdd(activation="relu")([x, y])),
    "moved": Way(resnet_layer, lambda x, y: layers.add([x, y]), before_merge="relu"),
}


def resnet_v1(way: Way, depth: int, num_filters: int) -> keras.Model:
    """Makes three stacks of residual blocks for pixels between 0 and 1."""
    inputs = keras.Input((32, 32, 3), name="image")
    x = way.convolve(inputs, num_filters)
    for stack in range(3):
        for res_block in range((depth - 2) // 6):
            is_first = stack > 0 and res_block == 0
            strides = 2 if is_first else 1
            y = way.convolve(x, num_filters, strides=strides)
            y = way.convolve(y, num_filters, activation=way.before_merge)
            if is_first:
                x = way.convolve(x, num_filters, 1, strides, way.before_merge, False)
            x = way.merge(x, y)
        num_filters *= 2
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    dense = layers.Dense(10, activation="softmax", kernel_initializer="he_normal", name="classes")
    return keras.Model(inputs, dense(x), name=f"resnet{depth}v1")


def train(model: keras.Model, data, epochs: int, rate: float, seed: int) -> None:
    """Trains with a rate that ends at zero. The order of the images depends only on the seed."""
    keras.utils.set_random_seed(seed)
    steps = epochs * -(-len(data[1]) // BATCH)
    rates = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.Adam(rates), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(*data, batch_size=BATCH, epochs=epochs, verbose=0)


def correct(outputs: np.ndarray, labels: np.ndarray) -> int:
    return int(np.sum(np.argmax(outputs, -1) == labels))


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(images, batch_size=250, verbose=0)


def measure_file(qat, images: np.ndarray, labels: np.ndarray, folder: Path) -> dict[str, Any]:
    """Exports a uint8 file, and compares it with the model on the pixels of all images."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = folder / "model.tflite"
    keras_qat.export_litert(qat, path, inference_input_type="uint8", inference_output_type="uint8")
    floats = float_tensors(path)
    if floats:
        raise SystemExit(f"The file is not fully integer: {floats}")
    interpreter = Interpreter(
        model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    details = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    (scale, zero_point), (out_scale, out_zero_point) = (d["quantization"] for d in details)
    given = np.clip(np.round(images / np.float32(scale)) + zero_point, 0, 255)
    in_keras = predict(qat, images) / np.float32(out_scale) + out_zero_point
    outputs = file_outputs(path, "default", given)
    report = keras_qat.verify(qat, path, images[:VERIFICATION], kernels="default", verbose=0)
    return {
        "file_correct": correct(outputs, labels),
        "different_outputs": int(np.count_nonzero(np.round(in_keras) != outputs)),
        "verify_mismatches": report.mismatches(),
        "bytes": path.stat().st_size,
        # The interpreter has no public function that counts its operators.
        "operators": [op["op_name"] for op in interpreter._get_ops_details()],
    }


def measure(name: str, args, training, validation, stages: Stages) -> dict[str, Any]:
    """Trains, quantizes and exports the network written in one way."""
    keras.utils.set_random_seed(args.seed)
    model = resnet_v1(WAYS[name], args.depth, args.filters)
    stages.run(f"{name}: float, {args.epochs} epochs", train, model, training, args.epochs, 2e-3, 1)
    images, labels = validation
    result = {"parameters": model.count_params(), "float": correct(predict(model, images), labels)}
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, training[0][:CALIBRATION], verbose=0)
    result["calibrated"] = correct(predict(qat, images), labels)
    stages.run(
        f"{name}: QAT, {args.qat_epochs} epoch(s)", train, qat, training, args.qat_epochs, 2e-4, 2
    )
    result["trained"] = correct(predict(qat, images), labels)
    with tempfile.TemporaryDirectory() as folder:
        result |= stages.run(f"{name}: file", measure_file, qat, images, labels, Path(folder))
    return result


def show(results: dict[str, dict], count: int) -> None:
    rows = [
        (
            name,
            *(
                f"{row[key] / count:.4f}"
                for key in ("float", "calibrated", "trained", "file_correct")
            ),
            f"{row['different_outputs']} of {10 * count}",
            row["verify_mismatches"],
            f"{row['bytes'] / 1000:.1f}",
            len(row["operators"]),
        )
        for name, row in results.items()
    ]
    headings = ("written", "float", "int8, calibrated", "int8, trained", ".tflite ref.")
    headings += ("outputs != Keras", "verify: mismatches", "file kB", "operators")
    print_table(f"Accuracy on {count} validation images", headings, rows)
    equal = all(row["trained"] == row["file_correct"] for row in results.values())
    exact = not any(r["different_outputs"] + r["verify_mismatches"] for r in results.values())
    held = equal and exact
    print(f"All files fully integer and equal to Keras: {'reached' if held else 'NOT reached'}")


def arguments(parser) -> None:
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {DATA_FILE}")
    parser.add_argument("--depth", type=int, default=20, help="6n + 2 layers (default: 20)")
    parser.add_argument("--filters", type=int, default=16, help="of the first stack (default: 16)")
    parser.add_argument("--limit", type=int, help="number of images to train with")
    parser.add_argument("--epochs", type=int, default=6, help="of the float model (default: 6)")
    parser.add_argument("--qat-epochs", type=int, default=1, help="(default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    stages = Stages()
    pairs = stages.run("decode", load_images, args.data, args.limit)
    training, validation = ((np.float32(x) / np.float32(255), y) for x, y in pairs)
    results = {}
    for name in WAYS:
        results[name] = measure(name, args, training, validation, stages)
        keras.backend.clear_session()
    show(results, len(validation[1]))
    content = {"images": [len(training[1]), len(validation[1])], **vars(args), "ways": results}
    save(args.json, {**content, "seconds": stages.seconds, "data": None, "json": None})


if __name__ == "__main__":
    main()
