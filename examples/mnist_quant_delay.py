"""TensorFlow 1's MNIST script today: float first, quantized later, everything in uint8.

The notes on quantizing with TensorFlow 1.x train a small convolutional network in float, continue
with fake quantization after `quant_delay` steps, freeze a graph and convert it with
`inference_type = uint8` and `quantized_input_stats`. This example does the same in one process with
the same network. Its batch normalizations are *after* the activations, where they cannot be folded
into the previous convolutions.

    python examples/mnist_quant_delay.py            # scikit-learn's digits, offline
    python examples/mnist_quant_delay.py --mnist    # MNIST, downloaded by Keras

The first prints, after a minute on two cores:

    Epoch 1 of 3: float, 90 steps
    Epoch 2 of 3: quantized, 90 steps
    Epoch 3 of 3: quantized, 90 steps
    Correct, of 360 images that were not trained on

    | model                 | correct | accuracy |
    |-----------------------|---------|----------|
    | epoch 1: Keras, float |     334 |   0.9278 |
    | epoch 1: Keras, uint8 |     339 |   0.9417 |
    | epoch 2: Keras, float |     348 |   0.9667 |
    | epoch 2: Keras, uint8 |     351 |   0.9750 |
    | epoch 3: Keras, float |     349 |   0.9694 |
    | epoch 3: Keras, uint8 |     350 |   0.9722 |
    | .tflite               |     350 |   0.9722 |


    Epoch 1 trains in float, but inference is quantized: "Keras, uint8" is the accuracy of a
    file exported at that moment. The difference between the two lines of each epoch is the
    cost of 8 bits. The last line of Keras and that of the file are equal.

    Keras 350 = .tflite 350
    Types in the file: int32, uint8
    Integers that differ: 0 of 2,417,664
    The file: build/mnist/mnist_uint8.tflite, 19.3 kB
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from digits import load_pixels
from keras import layers
from report import console, positive, print_table, prove

import keras_qat
from keras_qat.litert import Runner

WHAT_TO_LOOK_AT = """
Epoch 1 trains in float, but inference is quantized: "Keras, uint8" is the accuracy of a
file exported at that moment. The difference between the two lines of each epoch is the
cost of 8 bits. The last line of Keras and that of the file are equal.
"""


def build_network(size: int) -> keras.Model:
    """Makes the network of the notes: batch normalizations are after the activations."""

    def norm():
        return layers.BatchNormalization(momentum=0.9)  # training has only 90 steps

    return keras.Sequential(
        [
            keras.Input((size, size, 1), name="pixels"),
            layers.Conv2D(16, 3, activation="relu"),
            norm(),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            norm(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            norm(),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="mnist",
    )


def evaluate(model: keras.Model, pixels: np.ndarray, labels: np.ndarray) -> int:
    """Returns the number of images that a Keras model classifies correctly."""
    probabilities = model.predict(pixels / np.float32(255), batch_size=256, verbose=0)
    return int(np.sum(np.argmax(probabilities, axis=-1) == labels))


def evaluate_file(path: pathlib.Path, pixels: np.ndarray, labels: np.ndarray) -> int:
    """Returns the number of images that a file classifies correctly. It takes pixels unchanged."""
    (scores,) = Runner(path).run([pixels])
    return int(np.sum(np.argmax(scores, axis=-1) == labels))


def types_in(path: pathlib.Path) -> list[str]:
    """Returns the types of all tensors of a file, including constants."""
    # Delegates would add tensors.
    kernels = OpResolverType.BUILTIN_REF
    file = Interpreter(str(path), experimental_op_resolver_type=kernels)
    return sorted({np.dtype(details["dtype"]).name for details in file.get_tensor_details()})


def train(training, test, epochs: int):
    """Trains one epoch in float and the others quantized. Returns the model and its scores."""
    x, y = training
    batch = 16 if len(y) < 10_000 else 128
    steps = -(-len(y) // batch)
    qat = keras_qat.quantize_model(
        build_network(x.shape[1]),
        scheme="uint8",
        quant_delay=steps,
        quantized_input_stats={"pixels": (0, 255)},  # real = (pixel - 0) / 255
    )
    qat.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    rows = []
    for epoch in range(1, epochs + 1):
        kind = "float" if epoch == 1 else "quantized"
        console.print(f"Epoch {epoch} of {epochs}: {kind}, {steps} steps")
        qat.fit(x / np.float32(255), y, batch_size=batch, verbose=0)
        plain = keras_qat.strip_quantization(qat)
        rows.append((f"epoch {epoch}: Keras, float", evaluate(plain, *test)))
        rows.append((f"epoch {epoch}: Keras, uint8", evaluate(qat, *test)))
    return qat, rows


def main() -> None:
    """Trains, exports, evaluates, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", action="store_true", help="MNIST instead of the bundled digits")
    parser.add_argument(
        "--epochs", type=positive, default=3, help="one in float, the others quantized"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/mnist"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    training, test = load_pixels(args.mnist)
    qat, rows = train(training, test, args.epochs)

    path = args.output / "mnist_uint8.tflite"
    keras_qat.export_litert(qat, path)  # uint8 inputs and outputs, the type of the scheme
    rows.append((".tflite", evaluate_file(path, *test)))
    title = f"Correct, of {len(test[1])} images that were not trained on"
    rated = [(name, correct, correct / len(test[1])) for name, correct in rows]
    print_table(title, ("model", "correct", "accuracy"), rated)
    console.print(WHAT_TO_LOOK_AT)
    in_keras, in_file = rows[-2][1], rows[-1][1]
    console.print(f"Keras {in_keras} = .tflite {in_file}")
    console.print(f"Types in the file: {', '.join(types_in(path))}")
    if in_keras != in_file:
        sys.exit("Keras and the file score differently: please report it.")
    prove(qat, path, test[0][:256] / np.float32(255))


if __name__ == "__main__":
    main()
