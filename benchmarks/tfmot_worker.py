"""Runs one task of the comparison with TFMOT by one of the two tools.

Run `tfmot_worker.py TOOL TASK JSON` in the environment of the tool. The JSON object has the task's
arguments. The last printed line is the result, a JSON object. After an error, `failed` is the first
line of the error, and `stage` is the stage of the task. All measurements run the same code for both
tools, each with its own Keras.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import interleave

SEED, BATCH = 7, 64


class Tfmot:
    """Keras 2 and TFMOT's default 8-bit scheme, exported by TensorFlow's converter."""

    def __init__(self):
        # This has to be set before TensorFlow is imported.
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import tf_keras

        self.keras: Any = tf_keras

    def load(self, path: str) -> Any:
        return self.keras.models.load_model(path, compile=False)

    def quantize(self, model: Any, images: np.ndarray) -> Any:
        """Quantizes a model. TFMOT has no calibration: it observes ranges during training."""
        import tensorflow_model_optimization as tfmot

        return tfmot.quantization.keras.quantize_model(model)

    def export(self, qat: Any, path: str) -> None:
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_keras_model(qat)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        Path(path).write_bytes(converter.convert())


class KerasQat:
    """Keras 3 and keras_qat's default scheme."""

    def __init__(self):
        import keras

        self.keras: Any = keras

    def load(self, path: str) -> Any:
        import keras_qat

        return keras_qat.load_model(path)

    def quantize(self, model: Any, images: np.ndarray) -> Any:
        import keras_qat

        qat = keras_qat.quantize_model(model)
        keras_qat.calibrate(qat, images, verbose=0)
        return qat

    def export(self, qat: Any, path: str) -> None:
        import keras_qat

        keras_qat.export_litert(
            qat, path, inference_input_type="int8", inference_output_type="int8"
        )


TOOLS = {"tfmot": Tfmot, "keras_qat": KerasQat}


class Stages:
    """The seconds of each stage, and the current stage."""

    def __init__(self):
        self.now = "start"
        self.seconds: dict[str, float] = {}

    def run(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.now, start = name, time.perf_counter()
        result = call(*args, **kwargs)
        self.seconds[name] = round(time.perf_counter() - start, 3)
        return result


def compiled(tool: Any, model: Any, rate: float, eager: bool = False) -> Any:
    optimizer = tool.keras.optimizers.SGD(rate, momentum=0.9)
    # Both run without XLA, which Keras 2 uses only on request.
    model.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        run_eagerly=eager,
        jit_compile=False,
    )
    return model


def application(tool: Any, name: str, size: int, classes: int = 1000) -> Any:
    build = getattr(tool.keras.applications, name)
    return build(weights=None, input_shape=(size, size, 3), classes=classes)


def resnet8(tool: Any) -> Any:
    """Makes MLPerf Tiny's ResNet-8: three stacks of one residual block for 32x32x3 images."""
    layers = tool.keras.layers

    def conv(x, filters, size, strides, activation):
        x = layers.Conv2D(filters, size, strides, "same")(x)
        x = layers.BatchNormalization()(x)
        return layers.Activation("relu")(x) if activation else x

    inputs = tool.keras.Input((32, 32, 3))
    x = conv(inputs, 16, 3, 1, True)
    for stack, filters in enumerate((16, 32, 64)):
        strides = 2 if stack else 1
        y = conv(x, filters, 3, strides, True)
        y = conv(y, filters, 3, 1, False)
        x = layers.Conv2D(filters, 1, strides, "same")(x) if stack else x
        x = layers.Activation("relu")(layers.add([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    outputs = layers.Dense(10, activation="softmax")(x)
    return tool.keras.Model(inputs, outputs)


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "ResNet-8": resnet8,
    "MobileNetV2 96": lambda tool: application(tool, "MobileNetV2", 96, 10),
}


def family(tool: Any, stages: Stages, name: str, size: int, path: str) -> dict[str, Any]:
    """Quantizes, trains for one step and exports a model of `keras.applications`."""
    model = stages.run("build", application, tool, name, size)
    images = np.random.default_rng(SEED).random((4, size, size, 3), "float32")
    qat = stages.run("quantize", tool.quantize, model, images)
    # Building a graph would take far longer than one step.
    compiled(tool, qat, 1e-6, eager=True)
    stages.run("train", qat.train_on_batch, images, np.arange(4))
    stages.run("export", tool.export, qat, path)
    return {"file": path}


def network(
    tool: Any, stages: Stages, name: str, batch: int, rounds: int, repeats: int, path: str
) -> dict[str, Any]:
    """Times a training step against that of the float model, and the export."""
    rng = np.random.default_rng(SEED)
    # A tool may change its model.
    source, base = (stages.run("build", NETWORKS[name], tool) for _ in range(2))
    images = rng.random((batch, *source.input_shape[1:]), "float32")
    labels = rng.integers(0, 10, batch)
    qat = stages.run("quantize", tool.quantize, source, images)
    models = {"float": compiled(tool, base, 1e-4), "qat": compiled(tool, qat, 1e-4)}

    def steps(model: Any) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats):
                model.train_on_batch(images, labels)

        return run

    timings = stages.run(
        "train", interleave, {key: steps(model) for key, model in models.items()}, rounds
    )
    exporting = {"export": lambda: tool.export(qat, path)}
    timings |= stages.run("export", interleave, exporting, 1)
    seconds = {key: each.to_dict() for key, each in timings.items()}
    return {"file": path, "timings": seconds, "steps": repeats}


def pretrain(tool: Any, stages: Stages, data: str, epochs: int, path: str) -> dict[str, Any]:
    """Trains a float ResNet-8 and saves it as `.h5`."""
    arrays = np.load(data)
    tool.keras.utils.set_random_seed(SEED)
    model = compiled(tool, resnet8(tool), 1e-2)
    fitted = stages.run("train", fit, model, arrays, epochs)
    model.save(path)
    return {"loss": fitted}


def fit(model: Any, arrays: Any, epochs: int) -> float:
    """Trains on the images in their order, which is equal for both tools."""
    history = model.fit(
        arrays["x"], arrays["y"], batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0
    )
    return history.history["loss"][-1]


def train(
    tool: Any,
    stages: Stages,
    model: str,
    data: str,
    epochs: int,
    rate: float,
    calibration: int,
    folder: str,
) -> dict[str, Any]:
    """Loads a float model, trains it quantized, exports it, and saves predictions of both."""
    arrays = np.load(data)
    source = stages.run("load", tool.load, model)
    before = source.predict(arrays["val_x"], batch_size=250, verbose=0)
    qat = stages.run("quantize", tool.quantize, source, arrays["x"][:calibration])
    stages.run("train", fit, compiled(tool, qat, rate), arrays, epochs)
    after = qat.predict(arrays["val_x"], batch_size=250, verbose=0)
    path, predictions = str(Path(folder, "model.tflite")), str(Path(folder, "predictions.npz"))
    np.savez(predictions, float=before, qat=after)
    stages.run("export", tool.export, qat, path)
    return {"file": path, "predictions": predictions}


def keras3(tool: Any, stages: Stages) -> dict[str, Any]:
    """Quantizes a small model of Keras 3."""
    import keras

    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    images = np.random.default_rng(SEED).random((4, 8, 8, 3), "float32")
    stages.run("quantize", tool.quantize, model, images)
    return {"keras": keras.__version__}


TASKS = {each.__name__: each for each in (family, network, pretrain, train, keras3)}


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"


def main() -> None:
    tool, task, arguments = sys.argv[1:]
    stages = Stages()
    try:
        result = TASKS[task](TOOLS[tool](), stages, **json.loads(arguments))
    except Exception as error:  # a refusal of a tool is a result
        result = {"failed": first_line(error), "stage": stages.now}
    print(json.dumps({**result, "seconds": stages.seconds}))


if __name__ == "__main__":
    main()
