"""The arms of `accuracy.py`, which make an integer file of a float network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
from accuracy_nets import TUNING_RATE, fit
from tfmot_environment import Workers

import keras_qat

CALIBRATION = 512
# Of the bytes of constants, for mixed widths.
SHARE = 0.6


@dataclasses.dataclass(frozen=True)
class Task:
    """One network, one order of the images.

    Attributes:
        net: The name of the network.
        source: The float model.
        model: The Keras 2 file of the float model. None if `accuracy_nets.NETS` has the network.
        weights: The `.npz` file of the float weights.
        images: The `.npz` file of the images.
        data: Its arrays.
        epochs: The number of epochs.
        seed: Gives the order of the images, and chooses those of calibration.
        folder: A folder for files.
        workers: The processes of the peers.
    """

    net: str
    source: keras.Model
    model: Path | None
    weights: Path
    images: Path
    data: Any
    epochs: int
    seed: int
    folder: Path
    workers: Workers

    @property
    def path(self) -> Path:
        return self.folder / "model.tflite"

    def calibration(self) -> np.ndarray:
        """Returns the places of the images of calibration."""
        rng = np.random.default_rng((self.seed, 1000))
        return rng.permutation(len(self.data["y"]))[:CALIBRATION]

    def calibration_images(self) -> np.ndarray:
        return self.data["x"][np.sort(self.calibration())].astype("float32")


@dataclasses.dataclass(frozen=True)
class Ours:
    """A model of this package.

    Attributes:
        scheme: The scheme.
        options: Further arguments of `quantize_model`.
        calibration: Further arguments of `calibrate`.
        is_trained: Whether it is trained after calibration.
    """

    scheme: str = "int8"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    calibration: dict[str, Any] = dataclasses.field(default_factory=dict)
    is_trained: bool = True

    def make(self, task: Task) -> dict[str, Any]:
        qat = keras_qat.quantize_model(task.source, self.scheme, **self.options)
        keras_qat.calibrate(qat, task.calibration_images(), verbose=0, **self.calibration)
        if self.is_trained:
            fit(keras, qat, task.data, task.epochs, task.seed, TUNING_RATE)
        types = {"inference_input_type": "int8", "inference_output_type": "int8"}
        if self.scheme == "uint8":
            types = dict.fromkeys(types, "uint8")
        keras_qat.export_litert(qat, task.path, **types)
        return {"file": str(task.path), "keras": qat}


@dataclasses.dataclass(frozen=True)
class Mixed:
    """A model of this package whose constants have 60 % of the bytes of those of the int8 file.

    Half of them cannot be reached with weights of 4 bits, since biases keep 32 bits.

    Attributes:
        is_trained: Whether it is trained after calibration.
    """

    is_trained: bool = True

    def make(self, task: Task) -> dict[str, Any]:
        Ours(is_trained=False).make(task)
        images = task.calibration_images()
        whole = keras_qat.inspect_litert(task.path).weight_bytes
        budget = keras_qat.Budget(weights_bytes=int(SHARE * whole))
        options = {"budget": budget, "calibration_data": images}
        return Ours(options=options, is_trained=self.is_trained).make(task)


@dataclasses.dataclass(frozen=True)
class Converter:
    """TensorFlow Lite's quantization after training."""

    def make(self, task: Task) -> dict[str, Any]:
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_keras_model(task.source)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        images = task.calibration_images()
        converter.representative_dataset = lambda: ([each[None]] for each in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        task.path.write_bytes(converter.convert())
        return {"file": str(task.path)}


@dataclasses.dataclass(frozen=True)
class AiEdgeQuantizer:
    """Google's quantizer of float files, after training.

    Attributes:
        weight_bits: The width of weights.
        algorithm: The name of the algorithm.
    """

    weight_bits: int
    algorithm: str

    def make(self, task: Task) -> dict[str, Any]:
        import tensorflow as tf

        float_file = task.folder / "float.tflite"
        float_file.write_bytes(tf.lite.TFLiteConverter.from_keras_model(task.source).convert())
        return task.workers.ask(
            "peers",
            "ai_edge_quantizer",
            model=str(float_file),
            data=str(task.images),
            images=task.calibration().tolist(),
            path=str(task.path),
            **dataclasses.asdict(self),
        )


@dataclasses.dataclass(frozen=True)
class Tfmot:
    """TFMOT's quantization-aware training, in Keras 2."""

    def make(self, task: Task) -> dict[str, Any]:
        return task.workers.ask(
            "peers",
            "tfmot",
            net=task.net,
            model=task.model and str(task.model),
            weights=str(task.weights),
            data=str(task.images),
            epochs=task.epochs,
            seed=task.seed,
            path=str(task.path),
        )


METHODS = {"method": ["equalize", "adaround", "bias_correction"]}
ENDS = {"overrides": "ends_int8"}

ARMS: dict[str, Any] = {
    "converter, int8": Converter(),
    "ai-edge-quantizer, w8a8 min/max": AiEdgeQuantizer(8, "min_max_uniform_quantize"),
    "ai-edge-quantizer, w8a8 MSE": AiEdgeQuantizer(8, "MSE"),
    "ai-edge-quantizer, w8a8 GPTQ": AiEdgeQuantizer(8, "GPTQ"),
    "ai-edge-quantizer, w4a8 min/max": AiEdgeQuantizer(4, "min_max_uniform_quantize"),
    "ai-edge-quantizer, w4a8 MSE": AiEdgeQuantizer(4, "MSE"),
    "ai-edge-quantizer, w4a8 GPTQ": AiEdgeQuantizer(4, "GPTQ"),
    **{
        f"{name}, {arm}": Ours(scheme, options, calibration, is_trained)
        for arm, calibration, is_trained in (
            ("calibrated", {}, False),
            ("all methods", METHODS, False),
            ("trained", {}, True),
        )
        for name, scheme, options in (
            ("int8", "int8", {}),
            ("int8_per_tensor", "int8_per_tensor", {}),
            ("uint8", "uint8", {}),
            ("int4", "int4", {}),
            ("int4 with int8 ends", "int4", ENDS),
        )
    },
    "int4 by min/max, trained": Ours("int4", {"weight_range_rule": "minmax"}),
    "int4 by lsq, trained": Ours("int4", {"weight_range_rule": "lsq"}),
    "60 % of the weights, calibrated": Mixed(is_trained=False),
    "60 % of the weights, trained": Mixed(),
    "TFMOT, int8, trained": Tfmot(),
}
