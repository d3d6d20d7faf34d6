"""Makes the files of the peers of `accuracy.py`, in an environment that has their packages.

Run `accuracy_worker.py PEER TASK JSON`. The JSON object has the task's arguments. The last printed
line is the result, a JSON object. After an error, `failed` is the first line of the error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

# This has to be set before TensorFlow is imported.
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
from accuracy_nets import NETS, TUNING_RATE, fit


def ai_edge_quantizer(
    model: str, data: str, images: list[int], weight_bits: int, algorithm: str, path: str
) -> dict[str, Any]:
    """Quantizes a float file after training, with activations of 8 bits."""
    from ai_edge_quantizer import qtyping, quantizer

    maker = quantizer.Quantizer(model)
    maker.add_static_config(
        ".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8, weight_bits, algorithm_key=algorithm
    )
    from ai_edge_litert.interpreter import Interpreter

    [(signature, ends)] = Interpreter(model).get_signature_list().items()
    x = np.load(data)["x"][images].astype("float32")
    samples = [{ends["inputs"][0]: each[None]} for each in x]
    ranges = maker.calibrate({signature: samples})
    maker.quantize(ranges).export_model(Path(path), overwrite=True)
    return {"file": path}


def tfmot(
    net: str, model: str | None, weights: str, data: str, epochs: int, seed: int, path: str
) -> dict[str, Any]:
    """Trains a float network of Keras 2 quantized by TFMOT, and exports it."""
    import tensorflow as tf
    import tensorflow_model_optimization
    import tf_keras

    if model is None:
        source = NETS[net](tf_keras)
    else:
        source = tf_keras.models.load_model(model, compile=False)
    with np.load(weights) as arrays:
        source.set_weights([arrays[f"arr_{place}"] for place in range(len(arrays.files))])
    qat = tensorflow_model_optimization.quantization.keras.quantize_model(source)
    fit(tf_keras, qat, np.load(data), epochs, seed, TUNING_RATE)
    converter = tf.lite.TFLiteConverter.from_keras_model(qat)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    Path(path).write_bytes(converter.convert())
    return {"file": path}


TASKS = {"ai_edge_quantizer": ai_edge_quantizer, "tfmot": tfmot}


def main() -> None:
    _, task, arguments = sys.argv[1:]
    try:
        result = TASKS[task](**json.loads(arguments))
    except Exception as error:  # a refusal of a peer is a result
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        result = {"failed": f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
