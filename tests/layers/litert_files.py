"""Files of cases in LiteRT's own interpreter: their operators, constants and tensors."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import keras_qat
from keras_qat.litert import Runner
from keras_qat.litert.running.expose import expose_tensors
from keras_qat.litert.running.measured_tables import with_measured_tables


def constants_of(content: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the values and the scales of each constant in a file, by name."""
    interpreter = Interpreter(
        model_content=content, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    return {
        details["name"]: (
            interpreter.get_tensor(details["index"]),
            details["quantization_parameters"]["scales"],
        )
        for details in interpreter.get_tensor_details()
        if "/" in details["name"]
    }


def operators_of(content: bytes) -> list[str]:
    """Returns the names of the file's operators in order."""
    return [name for name, _ in versions_of(content)]


def versions_of(content: bytes) -> list[tuple[str, int]]:
    """Returns the name and the version of each operator of the file in order."""
    model = schema.ModelT.InitFromPackedBuf(content)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    codes = [(names[code.builtinCode], code.version) for code in model.operatorCodes]
    return [codes[op.opcodeIndex] for op in model.subgraphs[0].operators]


def exported(model: Any, **types: Any) -> bytes:
    """Returns the bytes of the exported file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        keras_qat.export_litert(model, path, **types)
        return path.read_bytes()


def half_away(steps: np.ndarray) -> np.ndarray:
    """Rounds to nearest, ties away from zero. Exact for float32 values."""
    wide = steps.astype("float64")
    return np.sign(wide) * np.floor(np.abs(wide) + 0.5)


def run_litert(
    content: bytes, x: list[np.ndarray], kernels: str = "AUTO"
) -> tuple[dict[str, tuple[np.ndarray, dict]], list[str]]:
    """Runs a file with int8 inputs, quantized by hand, in LiteRT's own interpreter.

    The reference kernels lack ELU, see `keras_qat.litert.running.measured_tables`. The delegate of
    the default kernels computes only the tensors that are outputs of the file.

    Returns:
        The integers and the details of every tensor, by name, and the names of the outputs.
    """
    is_reference = kernels == "BUILTIN_REF"
    names = [t.name for t in Runner(content).outputs]
    content = with_measured_tables(content) if is_reference else expose_tensors(content)
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType[kernels],
        experimental_preserve_all_tensors=is_reference,
    )
    inputs = interpreter.get_input_details()
    for details, array in zip(inputs, x, strict=True):
        interpreter.resize_tensor_input(details["index"], array.shape)
    interpreter.allocate_tensors()
    for details, array in zip(inputs, x, strict=True):
        interpreter.set_tensor(details["index"], _as_input(array, details, is_reference))
    interpreter.invoke()
    wanted = interpreter.get_tensor_details()
    if not is_reference:
        wanted = inputs + interpreter.get_output_details()
    values = {d["name"]: (interpreter.get_tensor(d["index"]), d) for d in wanted}
    return values, names


def _as_input(array: np.ndarray, details: dict, is_reference: bool) -> np.ndarray:
    """Quantizes an input by hand, as QUANTIZE would. Ids and real values stay unchanged."""
    if details["dtype"] != np.int8:
        return array.astype(details["dtype"])
    scale, zero_point = details["quantization"]
    steps = half_away(array / np.float32(scale))
    if not is_reference:
        steps = np.rint(array * (np.float32(1.0) / np.float32(scale)))
    q = np.clip(steps + zero_point, -128, 127)
    return q.astype("int8")


def integers_of(values: np.ndarray, details: dict) -> np.ndarray:
    """Returns the integers of real values. The values must lie on the grid to the last bit.

    Booleans and plain integers have no grid.
    """
    if values.dtype.kind in "bi":
        assert not details["quantization"][0]
        return values.astype("int64")
    scale, zero_point = np.float32(details["quantization"][0]), details["quantization"][1]
    centered = np.rint(values.astype("float64") / np.float64(scale))
    np.testing.assert_array_equal(centered.astype("float32") * scale, values)
    return (centered + zero_point).astype("int64")


def computed_tensors(content: bytes) -> list[str]:
    """Returns the names of the tensors that the file's operators compute, without variables."""
    graph = schema.ModelT.InitFromPackedBuf(content).subgraphs[0]
    outputs = [graph.tensors[i] for op in graph.operators for i in op.outputs]
    return [tensor.name.decode() for tensor in outputs if not tensor.isVariable]


def counterparts_of(content: bytes, model: Any) -> dict[str, str]:
    """Returns the layer of each input and each computed tensor of the file.

    Outputs have the names of the model's outputs. If a layer with such a name makes another
    tensor, the name of that tensor ends with its type.
    """
    graph = schema.ModelT.InitFromPackedBuf(content).subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    inputs = [names[i] for i in graph.inputs]
    makers = [tensor._keras_history.operation.name for tensor in model.outputs]
    outputs = dict(zip((names[i] for i in graph.outputs), makers, strict=True))
    inner = [name for name in computed_tensors(content) if name not in outputs]
    stems = {name: name.removesuffix("_int8").removesuffix("_uint8") for name in inner}
    found = {name: stem if stem in outputs else name for name, stem in stems.items()}
    return found | {name: f"{name}_quantize" for name in inputs} | outputs
