"""The contract that every rule must satisfy: its cases, and helpers that its tests share."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pathlib
import tempfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import keras_qat
from keras_qat.layers.kernels.weighted import WeightedLayer
from keras_qat.litert import Runner
from keras_qat.litert.running.expose import expose_tensors
from keras_qat.litert.running.measured_tables import with_measured_tables
from keras_qat.targets import DEFAULT_TARGET


def normal_data(model: keras.Model, rng: np.random.Generator, batch: int) -> list[np.ndarray]:
    """Returns one array for each input, each with its own spread and offset."""
    shapes = [(batch, *tensor.shape[1:]) for tensor in model.inputs]
    return [
        (rng.normal(0.3 * i, 1 + 2 * i, shape)).astype("float32") for i, shape in enumerate(shapes)
    ]


def randomize(model: keras.Model, rng: np.random.Generator) -> None:
    """Sets all weights: channels of different size, zero and negative gammas, random statistics."""
    for weight in model.weights:
        shape, kind = weight.shape, weight.path.rpartition("/")[2]
        value = rng.normal(size=shape)
        if kind == "kernel":
            value = rng.normal(size=shape) * np.exp(rng.normal(size=shape[-1])) / 4
        elif kind == "moving_variance":
            value = np.exp(rng.normal(0, 2, shape))
        elif kind == "gamma":
            value[0] = 0.0
            value[1:2] = -0.7
        if np.issubdtype(weight.dtype, np.floating):
            weight.assign(value)


@dataclasses.dataclass(frozen=True)
class Case:
    """A small Keras model that exercises one rule.

    Attributes:
        name: The name of the case in pytest.
        covers: The quantized layers under test. Each must occur in the quantized model.
        build: Makes the Keras model. Several branches in one model are cheaper than several models.
        steps: The largest difference between the training forward and the integers, in steps
            of the tensor. None if training draws random numbers.
        no_gradient: Suffixes of the paths of weights whose gradient is correctly zero.
        prepare: Sets the weights.
        data: Makes the inputs at a scale of 1.
        least_scale: The smallest factor of the data that the kernels accept.
        greatest_scale: The largest factor of the data that the function accepts.
        activations: The argument `activations` of `quantize_model`.
        target: The target that chooses the form of the layers. The kernels are the default ones.
    """

    name: str
    covers: tuple[type[keras_qat.layers.QuantizedLayer], ...]
    build: Callable[[], keras.Model]
    steps: int | None = 1
    no_gradient: tuple[str, ...] = ()
    prepare: Callable[[keras.Model, np.random.Generator], None] = randomize
    data: Callable[[keras.Model, np.random.Generator, int], list[np.ndarray]] = normal_data
    least_scale: float = 0.0
    greatest_scale: float = np.inf
    activations: str = "exact"
    target: str = DEFAULT_TARGET


def branches(
    shape: Sequence[int], *chains: Sequence[Any], prefix: str = "b"
) -> Callable[[], keras.Model]:
    """Makes a builder of a model with one input and several chains of layers on it.

    Args:
        shape: Shape of the input, without the batch.
        *chains: Sequences of functions that return a layer. The layers are named b0_0, b0_1
            and so on.
        prefix: The first letters of the names, instead of b.
    """

    def build():
        inputs = keras.Input(shape)
        outputs = []
        for i, chain in enumerate(chains):
            x = inputs
            for j, make in enumerate(chain):
                x = make(name=f"{prefix}{i}_{j}")(x)
            outputs.append(x)
        return keras.Model(inputs, outputs)

    return build


def together(*builders: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    """Makes a builder of one model with the inputs and outputs of several models."""

    def build():
        models = [build() for build in builders]
        inputs = [tensor for model in models for tensor in model.inputs]
        return keras.Model(inputs, [tensor for model in models for tensor in model.outputs])

    return build


def layer(cls: Any, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    """Returns a function that makes a new layer at each call."""
    return functools.partial(cls, *args, **kwargs)


def operation(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """Makes an element of a chain of `branches` from a function of `keras.ops`."""

    def make(name):
        del name
        return function

    return make


class Prepared:
    """A case with weights, data and a calibrated quantized model. Tests must not change it.

    Args:
        case: The case.
        seed: The seed of weights and data. With a seed other than 0 the ranges are loosened.
        scale: The factor of the data.
        batch: The number of samples.

    Attributes:
        keras_model: The float model.
        arrays: The inputs, one array each.
        x: The argument of a call of the model: the arrays, or the only array.
    """

    def __init__(self, case: Case, seed: int = 0, scale: float = 1.0, batch: int = 16):
        # Not hash(): it differs from process to process.
        rng = np.random.default_rng([zlib.crc32(case.name.encode()), seed])
        self.case, self.seed = case, seed
        self.keras_model = case.build()
        case.prepare(self.keras_model, rng)
        self._rng, self._scale = rng, min(max(scale, case.least_scale), case.greatest_scale)
        self.arrays = self.samples(batch)
        self.x = self.arrays if len(self.arrays) > 1 else self.arrays[0]

    def samples(self, batch: int) -> list[np.ndarray]:
        """Makes the inputs, one array each, for any number of samples."""
        data = self.case.data(self.keras_model, copy.deepcopy(self._rng), batch)
        # Ids are no real values, so they are not scaled.
        return [x if x.dtype == np.int32 else np.float32(self._scale) * x for x in data]

    @functools.cached_property
    def clone(self) -> keras.Model:
        """Returns the float clone."""
        return keras_qat.clone_model(self.keras_model)

    @property
    def float_twin(self) -> keras.Model:
        """Returns the clone. Returns the Keras model for targets with layers that clones lack."""
        return self.clone if self.case.target == DEFAULT_TARGET else self.keras_model

    @functools.cached_property
    def quantized(self) -> Any:
        """Returns the quantized model, calibrated on the data."""
        model = self.quantize()
        if self.seed:
            loosen(model, np.random.default_rng(self.seed))
        return model

    def quantize(self, target: str | None = None) -> Any:
        """Makes another quantized model, which a test may change."""
        model = self.quantize_uncalibrated(target, activations=self.case.activations)
        keras_qat.calibrate(model, tuple(self.arrays), verbose=0)
        return model

    def quantize_uncalibrated(self, target: str | None = None, **options: Any) -> Any:
        """Makes a quantized model that lacks ranges."""
        model = keras_qat.quantize_model(
            self.keras_model, target=target or self.case.target, **options
        )
        if target is None:
            model.set_target(DEFAULT_TARGET)
        return model

    @functools.cached_property
    def content(self) -> bytes:
        """Returns the exported file with int8 inputs and outputs."""
        return exported(self.quantized)

    @functools.cached_property
    def predicted(self) -> list[np.ndarray]:
        """Returns the outputs of `predict`, which runs a compiled graph."""
        return as_arrays(self.quantized.predict(self.x, verbose=0))

    @functools.cached_property
    def outputs(self) -> list[np.ndarray]:
        """Returns the outputs of a call, computed eagerly."""
        return as_arrays(self.quantized(self.x))

    @functools.cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """Returns the output of each layer by its name, computed eagerly."""
        return layer_outputs(self.quantized, self.arrays, training=False)

    def tensors_for(self, target: str) -> dict[str, np.ndarray]:
        """Returns the same for another target, whose kernels run the same file."""
        own = self.quantized.target
        self.quantized.set_target(target)
        try:
            return layer_outputs(self.quantized, self.arrays, training=False)
        finally:
            self.quantized.set_target(own)


def quantized_with(model: keras.Model, activations: Any = "exact", **ranges: Any) -> Any:
    """Quantizes a model with given ranges: pairs by the names of inputs and layers."""
    quantized = keras_qat.quantize_model(model, activations=activations)
    for each in quantized.layers:
        if getattr(each, "observer", None) is not None:
            each.observer.widen(*ranges[each.name.removesuffix("_quantize")])
    return quantized


# A scale of 0.5 and zero point 0.
HALVES = (-64.0, 63.5)


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


def loosen(model: Any, rng: np.random.Generator) -> None:
    """Makes each range narrower or wider than the range of the data, so that integers saturate.

    Only then do fused activations and zero points inside the range change results.
    """
    for each in model.layers:
        if getattr(each, "observer", None) is not None:
            low, high = float(each.observer.minimum), float(each.observer.maximum)
            beyond = rng.uniform(0, 0.3, 2) * (high - low)
            each.observer.reset()
            each.observer.widen(
                low * rng.uniform(0.5, 1.2) - beyond[0], high * rng.uniform(0.5, 1.2) + beyond[1]
            )


def as_arrays(values: Any) -> list[np.ndarray]:
    """Flattens the outputs of a model to numpy arrays."""
    return [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(values)]


def layer_outputs(model: Any, arrays: list[np.ndarray], *, training: bool) -> dict[str, np.ndarray]:
    """Returns the output of each layer that is called once, by its name."""
    layers = [each for each in model.layers if len(each._inbound_nodes) == 1]
    taps = keras.Model(model.inputs, [each.output for each in layers])
    values = as_arrays(taps(arrays, training=training))
    return dict(zip((each.name for each in layers), values, strict=True))


def exported(model: Any, **types: Any) -> bytes:
    """Returns the bytes of the exported file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "model.tflite")
        keras_qat.export_litert(model, path, **types)
        return path.read_bytes()


def first_of_each(cases: Sequence[Case], kind: type = WeightedLayer) -> list[Any]:
    """Returns the cases as parameters. All cases of a layer class but the first are slow."""
    seen, found = set(), []
    for case in cases:
        new = {cls for cls in case.covers if issubclass(cls, kind)} - seen
        seen |= new
        found.append(pytest.param(case, id=case.name, marks=() if new else pytest.mark.slow))
    return found


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


def assert_equals_litert(prepared: Prepared, target: str = "litert") -> int:
    """Compares every tensor, integer by integer, and returns the number of integers."""
    kernels = {"reference": "BUILTIN_REF", "litert": "AUTO"}[target]
    theirs, _ = run_litert(prepared.content, prepared.arrays, kernels)
    is_own = target == prepared.quantized.target
    tensors = prepared.tensors if is_own else prepared.tensors_for(target)
    compared = 0
    for name, layer_name in counterparts_of(prepared.content, prepared.quantized).items():
        if layer_name not in tensors:
            continue  # a part of a layer, or a layer that is called more than once
        q, details = theirs[name]
        ours, q = integers_of(tensors[layer_name], details), q.astype("int64")
        wrong = np.count_nonzero(ours != q)
        assert not wrong, f"{name}: {wrong} of {q.size} differ, by up to {np.abs(ours - q).max()}"
        compared += q.size
    assert compared, "no tensor has a counterpart"
    return compared
