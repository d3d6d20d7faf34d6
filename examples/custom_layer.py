"""Custom layers: one that needs no registration, and one that needs `keras_qat.register`.

`SqueezeExcite` consists of Keras layers, `keras.ops` and its own weight. It needs no registration:
its `call` is traced, and becomes LiteRT's operators with trainable weights. `SoftThreshold` calls
a raw operator of TensorFlow. It cannot be traced, and `check` reports an error. A registered
function computes the same with `keras.ops`.

    python examples/custom_layer.py            # scikit-learn's digits, offline
    python examples/custom_layer.py --mnist    # MNIST, downloaded by Keras

The first prints, after half a minute of processor time:

    Before the registration:
      'threshold', unsupported-layer:
      This layer has no integer form here, and its `call` cannot be traced.
    After the registration: OK

    SoftThreshold 'threshold' becomes, by open_layers:
      threshold (QLookup): CAST, ADD, GATHER

    SqueezeExcite 'excitation' becomes, by open_layers, write_affines, fuse_activations:
      excitation_mean (QGlobalAveragePooling2D): MEAN
      excitation_squeeze (QDense): FULLY_CONNECTED
      excitation_excite (QDense): FULLY_CONNECTED
      excitation_excite_sigmoid (QSigmoid): LOGISTIC
      excitation_multiply (QBatchNormalization): DEPTHWISE_CONV_2D, RESHAPE
      excitation (QMultiply): MUL

    Float: 360 steps
    Quantized: 90 steps
    Weights of the SqueezeExcite that this moved: 5 of 5

    360 images that were not trained on

    | model                           | accuracy |
    |---------------------------------|----------|
    | Keras, float                    |   0.9639 |
    | Keras, int8, trained            |   0.9694 |
    | Keras, int8, loaded from .keras |   0.9694 |
    | .tflite                         |   0.9694 |


    The quantized model contains no custom layer: it loads, trains and exports without their
    classes. SoftThreshold is a lookup of 256 entries. Each part of SqueezeExcite is one or two
    operators. Keras and the file are equal in every integer.

    Integers that differ: 0 of 4,111,360
    The file: build/custom/custom_int8.tflite, 22.5 kB
"""

from __future__ import annotations

import argparse
import pathlib

import keras
import numpy as np
import tensorflow as tf
from digits import load_pixels
from keras import layers, ops
from report import console, positive, print_table, prove

import keras_qat

WHAT_TO_LOOK_AT = """
The quantized model contains no custom layer: it loads, trains and exports without their
classes. SoftThreshold is a lookup of 256 entries. Each part of SqueezeExcite is one or two
operators. Keras and the file are equal in every integer.
"""


class SqueezeExcite(layers.Layer):
    """Scales each channel by a function of the means of all channels. Needs no registration.

    `strength` is a weight of the layer itself. The inner layers have the other weights.
    """

    def build(self, input_shape):
        channels = input_shape[-1]
        self.mean = layers.GlobalAveragePooling2D(keepdims=True, name="mean")
        self.squeeze = layers.Dense(channels // 4, activation="relu", name="squeeze")
        self.excite = layers.Dense(channels, activation="sigmoid", name="excite")
        self.squeeze.build((None, 1, 1, channels))
        self.excite.build((None, 1, 1, channels // 4))
        self.strength = self.add_weight(shape=(channels,), initializer="ones", name="strength")

    def call(self, x):
        gate = self.excite(self.squeeze(self.mean(x)))
        return ops.multiply(x, gate * self.strength)


class SoftThreshold(layers.Layer):
    """Moves each value towards zero by a threshold, as in denoising. Has to be registered."""

    def __init__(self, threshold=0.25, **kwargs):
        super().__init__(**kwargs)
        self.threshold = threshold

    def call(self, x):
        most = tf.constant(self.threshold, x.dtype)
        return x - tf.raw_ops.ClipByValue(t=x, clip_value_min=-most, clip_value_max=most)


def soft_threshold(layer: SoftThreshold, x):
    """Computes `SoftThreshold.call` with `keras.ops`."""
    return ops.soft_shrink(x, layer.threshold)


def build_network(size: int) -> keras.Model:
    """Makes a small convolutional network with both layers."""
    return keras.Sequential(
        [
            keras.Input((size, size, 1), name="pixels"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            SoftThreshold(name="threshold"),
            layers.Conv2D(32, 3, strides=2, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            SqueezeExcite(name="excitation"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="custom",
    )


def show_findings(report) -> None:
    """Prints the first sentence of each finding."""
    for finding in report.errors:
        reason = finding.message.partition(". ")[0]
        console.print(f"  {finding.layer!r}, {finding.code}:\n  {reason}.")


def show_custom_layers(model: keras.Model, report) -> None:
    """Prints the layers that each custom layer becomes, and the passes that made them."""
    own = {layer.name for layer in model.layers if isinstance(layer, SqueezeExcite | SoftThreshold)}
    for row in report.layers:
        if row.name in own:
            console.print(f"\n{row.kind} {row.name!r} becomes, by {', '.join(row.rewrites)}:")
            for made in row.becomes:
                console.print(f"  {made}: {', '.join(made.operators)}")


def weights_of(model: keras.Model, name: str) -> list[np.ndarray]:
    """Returns the trainable weights of all layers that a layer became."""
    made = (layer for layer in model.layers if layer.name.startswith(name))
    return [ops.convert_to_numpy(w) for layer in made for w in layer.trainable_weights]


def fit(kind: str, model: keras.Model, training, epochs: int, rate: float) -> None:
    """Trains a model, in float or quantized, with a learning rate that falls to zero."""
    batch = 32 if len(training[1]) < 10_000 else 128
    steps = epochs * -(-len(training[1]) // batch)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    console.print(f"{kind}: {steps} steps")
    model.fit(*training, batch_size=batch, epochs=epochs, verbose=0)


def accuracy(model, test) -> float:
    """Returns the accuracy of a Keras model or of a file: both have `predict`."""
    x, y = test
    return float(np.mean(np.argmax(model.predict(x, verbose=0), axis=-1) == y))


def main() -> None:
    """Checks, registers, checks again; trains, exports, evaluates, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", action="store_true", help="MNIST instead of the bundled digits")
    parser.add_argument(
        "--epochs", type=positive, default=8, help="epochs in float; two more are quantized"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/custom"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    training, test = load_pixels(args.mnist)
    model = build_network(test[0].shape[1])

    console.print("Before the registration:")
    show_findings(keras_qat.check(model))
    # Usually `register` is a decorator. Here it comes later, to show the findings before it.
    keras_qat.register(SoftThreshold)(soft_threshold)
    report = keras_qat.check(model)
    console.print("After the registration:", "OK" if report.ok else "not OK")
    show_custom_layers(model, report)
    console.print()

    fit("Float", model, training, args.epochs, 4e-3)
    rows = [("Keras, float", accuracy(model, test))]
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, training[0][:500], verbose=0)
    before = weights_of(qat, "excitation")
    fit("Quantized", qat, training, 2, 4e-4)
    after = weights_of(qat, "excitation")
    moved = sum(np.any(a != b) for a, b in zip(before, after, strict=True))
    console.print(f"Weights of the SqueezeExcite that this moved: {moved} of {len(after)}\n")
    rows.append(("Keras, int8, trained", accuracy(qat, test)))
    qat.save(args.output / "custom.keras")
    loaded = keras.saving.load_model(args.output / "custom.keras")
    rows.append(("Keras, int8, loaded from .keras", accuracy(loaded, test)))

    path = args.output / "custom_int8.tflite"
    keras_qat.export_litert(loaded, path, inference_input_type="uint8")
    rows.append((".tflite", accuracy(keras_qat.LiteRTModel(path), test)))
    title = f"{len(test[1])} images that were not trained on"
    print_table(title, ("model", "accuracy"), rows)
    console.print(WHAT_TO_LOOK_AT)
    prove(loaded, path, test[0][:256])


if __name__ == "__main__":
    main()
