"""Compares normalizations with the converter's, and times operators they could be made of.

Prints milliseconds of LiteRT's default kernels (interleaved, the minimum of 50), and the
signal-to-noise ratio of both files' reference integers against the float model, for inputs of one
variance and for groups with variances up to 100 times apart. docs/performance.md quotes it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import parse, print_environment, print_table, save  # isort: skip, finds the package
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers
from runtime_choices import Chain, constant, grid

import keras_qat
from keras_qat.litert import to_bytes

CASES: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "layer, 56x56x96": ((56, 56, 96), layers.LayerNormalization),
    "layer, 14x14x384": ((14, 14, 384), layers.LayerNormalization),
    "layer, 197x768": ((197, 768), layers.LayerNormalization),
    "8 groups, 32x32x64": ((32, 32, 64), lambda: layers.GroupNormalization(8)),
    "RMS, 64x512": ((64, 512), layers.RMSNormalization),
}
ROWS, SIZE = 3136, 96


def data_of(shape: tuple[int, ...], spread: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, *shape))
    return (x * spread ** rng.uniform(-0.5, 0, (4, *shape[:-1], 1))).astype("float32")


def converted(model: keras.Model, x: np.ndarray) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[i : i + 1]] for i in range(len(x)))
    sets = tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS
    converter.target_spec.supported_ops = list(sets)
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def ours(model: keras.Model, x: np.ndarray) -> bytes:
    quantized = keras_qat.quantize_model(model, calibration_data=x)
    with tempfile.TemporaryDirectory() as folder:
        keras_qat.export_litert(quantized, Path(folder, "model.tflite"))
        return Path(folder, "model.tflite").read_bytes()


def interpreter_of(content: bytes, **options: Any) -> Interpreter:
    interpreter = Interpreter(model_content=content, **options)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        x = np.random.default_rng(0).integers(-100, 100, details["shape"])
        interpreter.set_tensor(details["index"], x.astype(details["dtype"]))
    return interpreter


def milliseconds(files: dict[str, bytes], threads: int) -> dict[str, float]:
    running = {name: interpreter_of(file, num_threads=threads) for name, file in files.items()}
    best = dict.fromkeys(files, np.inf)
    for _ in range(50):
        for name, interpreter in running.items():
            start = time.perf_counter()
            interpreter.invoke()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def decibels(content: bytes, x: np.ndarray, exact: np.ndarray) -> float:
    interpreter = interpreter_of(content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    noise = 0.0
    for each, expected in zip(x, exact, strict=True):
        scale, zero_point = inputs["quantization"]
        q = np.clip(np.rint(each / scale) + zero_point, -128, 127).astype("int8")
        interpreter.set_tensor(inputs["index"], q[None])
        interpreter.invoke()
        scale, zero_point = outputs["quantization"]
        y = (interpreter.get_tensor(outputs["index"])[0].astype("float64") - zero_point) * scale
        noise += np.sum((y - expected) ** 2)
    return float(10 * np.log10(np.sum(exact.astype("float64") ** 2) / noise))


def measure(name: str) -> list[dict[str, Any]]:
    shape, make = CASES[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, make()(inputs))
    result: dict[str, dict[str, Any]] = {}
    files: dict[str, bytes] = {}
    for spread in (1, 100):
        x = data_of(shape, spread)
        files = {"ours": ours(model, x), "converter": converted(model, x)}
        exact = np.array(model(x))
        for who, file in files.items():
            record = result.setdefault(who, {"normalization": name, "file": who})
            record[f"db_{spread}"] = round(decibels(file, x, exact), 1)
            plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            kernels = Interpreter(model_content=file, experimental_op_resolver_type=plain)
            record["operators"] = len(kernels._get_ops_details())
    for threads in (1, 2):
        for who, best in milliseconds(files, threads).items():
            result[who][f"ms_{threads}"] = round(best, 3)
    return list(result.values())


def operator_files() -> dict[str, bytes]:
    """Makes files of one operator on 3136 rows of 96 values, with one value per row as operand."""
    whole, column = (SIZE,), (1,)
    axes, keep = constant("axes", np.array([1], "int32")), {"keepDims": True}
    one = {dtype: constant("one", np.ones((1, 1), dtype), grid(1)) for dtype in ("int8", "int32")}
    wide = {"inDataType": "INT8", "outDataType": "INT32"}
    found = {}

    def add(name, code, shape=whole, dtype="int8", into=None, **options):
        chain = Chain(whole, 0.05, 0, dtype)
        chain.add(code, shape, grid(0.05), into or dtype, **options)
        found[f"{code}, {name}"] = to_bytes(chain.model())

    for code in ("SUB", "MUL", "SQUARED_DIFFERENCE"):
        add("int8", code, version=2, operands=(..., one["int8"]))
    for code in ("MUL", "FLOOR_DIV", "MINIMUM"):
        given = {"operands": (..., one["int32"])}
        add("int32", code, dtype="int32", **given)
    add("int8", "MEAN", column, version=2, options=keep, operands=(..., axes))
    add("int32", "SUM", column, "int32", options=keep, operands=(..., axes))
    add("int8 to int32", "CAST", into="int32", options=wide)
    add("int8 to int16", "QUANTIZE", into="int16", version=2)
    add("int8", "ABS", version=2)
    return found


def main() -> None:
    args = parse(__doc__)
    print_environment()
    records = [record for name in CASES for record in measure(name)]
    print_table("Normalizations", list(records[0]), [list(record.values()) for record in records])
    files, operators = operator_files(), []
    for name, content in files.items():
        interpreter = Interpreter(model_content=content, num_threads=1)
        (inputs,) = interpreter.get_input_details()
        interpreter.resize_tensor_input(inputs["index"], [ROWS, SIZE])
        interpreter.allocate_tensors()
        best = np.inf
        for _ in range(50):
            start = time.perf_counter()
            interpreter.invoke()
            best = min(best, 1e3 * (time.perf_counter() - start))
        operators.append({"operator": name, "ms_1": round(best, 3)})
    print_table("Operators", ["operator", "ms, 1 thread"], [list(o.values()) for o in operators])
    save(args.json, {"normalizations": records, "operators": operators})


if __name__ == "__main__":
    main()
