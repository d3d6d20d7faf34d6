"""Checks that LiteRT's interpreter can run a valid file without ending the process.

The interpreter returns an error for most files that its kernels cannot compute. But some checks of
the kernels abort (`TFLITE_CHECK` in
https://github.com/tensorflow/tensorflow/tree/master/tensorflow/lite/kernels). XNNPACK reads
operands before any check. Memory that is missing is only noticed when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert.format.element_types import dense_bytes, element_type
from keras_qat.litert.format.flatbuffer import Damage, Record
from keras_qat.litert.format.operators import declaration_of, declarations
from keras_qat.litert.format.schema_tables import tables
from keras_qat.litert.reading.computed_shapes import computed_shape, contradicts
from keras_qat.litert.reading.detections import check_detections
from keras_qat.litert.reading.reader import LiteRTFile

SIZES = ("stride_", "dilation_", "filter_", "block_size")
_LARGEST_SIZE = 2**15
_MEMORY = 2**36  # bytes, if the system does not report its memory


@dataclass(frozen=True, eq=False)
class _Call:
    """An operator with the tables of its tensors."""

    name: str
    inputs: list[Record | None]
    outputs: list[Record]
    options: Record | None
    where: str


def check_runnable(file: LiteRTFile) -> None:
    """Checks that the interpreter can safely run a file.

    Args:
        file: A file that `read` found valid.

    Raises:
        LiteRTFormatError: if operators lack operands or have options of other operators, a kernel
            would abort on its quantization, or the tensors take more memory than the machine has.
    """
    try:
        for i, subgraph in enumerate(file.model["subgraphs"]):
            where = f"Model.subgraphs[{i}]"
            _check_memory(subgraph["tensors"], where)
            for j, tensor in enumerate(subgraph["tensors"]):
                _check_quantization(tensor, f"{where}.tensors[{j}] {tensor['name']!r}")
            for j, operator in enumerate(subgraph["operators"] or ()):
                name = file.operator_name(operator)
                call = _call(
                    name, operator, subgraph["tensors"], f"{where}.operators[{j}] ({name})"
                )
                _check_operands(call)
                _check_computed_shape(file, call)
                _check_types(call)
                if "anchors" in declaration_of(name).operands:
                    check_detections(call.inputs, file.custom_options(operator), call.where)
                if limit := declaration_of(name).scale_limit:
                    SCALE_CHECKS[limit](call)
    except Damage as damage:
        raise LiteRTFormatError(
            f"LiteRT cannot run the file {file.name!r}.",
            received=f"at {damage.where}: {damage.what}",
        ) from None


def _call(name: str, operator: Record, tensors: Sequence[Record], where: str) -> _Call:
    return _Call(
        name,
        [tensors[i] if i >= 0 else None for i in operator.integers("inputs")],
        [tensors[i] for i in operator.integers("outputs")],
        operator["builtin_options"] or operator["builtin_options2"],
        where,
    )


def _check_memory(tensors: Sequence[Record], where: str) -> None:
    names = getattr(os, "sysconf_names", {})  # not on Windows
    known = "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else _MEMORY
    needed = sum(
        dense_bytes(() if tensor["shape"] is None else tensor["shape"], dtype) or 0
        for tensor in tensors
        for dtype in [element_type(tensor["type"])]
    )
    if needed > most:
        raise Damage(where, f"its tensors take {needed} bytes, and the machine has {most}")


def _scales(tensor: Record | None) -> np.ndarray:
    quantization = tensor["quantization"] if tensor is not None else None
    scale = quantization["scale"] if quantization is not None else None
    return np.zeros(0, np.float32) if scale is None else scale


def _check_quantization(tensor: Record, where: str) -> None:
    scales = _scales(tensor)
    if not (np.isfinite(scales) & (scales >= np.finfo(np.float32).tiny)).all():
        what = "scales must be positive, finite and not denormal"
        raise Damage(f"{where}.quantization.scale", what)
    if scales.size:
        dtype = element_type(tensor["type"])
        limits = np.iinfo(dtype if dtype in ("int8", "uint8", "int16") else "int32")
        zeros = tensor["quantization"]["zero_point"]
        if not ((zeros >= limits.min) & (zeros <= limits.max)).all():
            raise Damage(f"{where}.quantization.zero_point", f"one is not of type {limits.dtype}")


def _check_operands(call: _Call) -> None:
    wanted = declarations().get(call.name)
    if wanted is None:
        return
    (least, most), (fewest, limit) = wanted.inputs, wanted.outputs
    if not (least <= len(call.inputs) <= most and fewest <= len(call.outputs) <= limit):
        counts = f"{len(call.inputs)} inputs and {len(call.outputs)} outputs"
        raise Damage(call.where, f"it has {counts}")
    for place, tensor in enumerate(call.inputs[: max(least, 2)]):
        if tensor is None and place not in wanted.absent:
            raise Damage(call.where, f"input {place} is absent")
    if call.options is not None and call.options.table != wanted.options:
        wants = wanted.options or "none"
        raise Damage(call.where, f"its options are {call.options.table}, not {wants}")
    _check_sizes(call, wanted.options)


def _check_sizes(call: _Call, table: str | None) -> None:
    """Checks strides, windows and blocks. Kernels divide and multiply by them unchecked."""
    for field in tables().get(table or "", ()):
        if field is not None and field.name.startswith(SIZES):
            value = field.default if call.options is None else call.options[field.name]
            if not 1 <= value <= _LARGEST_SIZE:
                raise Damage(call.where, f"{field.name} is {value}")


def _check_computed_shape(file: LiteRTFile, call: _Call) -> None:
    constants = [_int32_values(file, tensor) for tensor in call.inputs]
    computed = computed_shape(call.name, call.inputs, constants, call.options)
    if computed is not None and contradicts(call.outputs[0], computed):
        stated = call.outputs[0]["shape"].tolist()
        raise Damage(call.where, f"its result has shape {computed}, but the file states {stated}")


def _int32_values(file: LiteRTFile, tensor: Record | None) -> np.ndarray | None:
    if tensor is None or element_type(tensor["type"]) != "int32":
        return None
    data = file.data(tensor)
    return None if data is None else np.frombuffer(data, "<i4")


def _check_sum(call: _Call) -> None:
    """Checks ADD and SUB, which abort unless each rescaling is below one (`add.cc`, `sub.cc`)."""
    dtype = element_type(call.outputs[0]["type"])
    scales = [_scales(tensor) for tensor in (*call.inputs, *call.outputs)]
    if dtype not in ("int8", "uint8", "int16") or any(scale.size != 1 for scale in scales):
        return
    first, second, result = (float(scale[0]) for scale in scales)
    multiplier = 2 * max(first, second) / (2 ** (15 if dtype == "int16" else 20) * result)
    if not 0 < multiplier < 1:
        raise Damage(call.where, f"the scales {first}, {second} and {result} are too far apart")


def _check_softmax(call: _Call) -> None:
    """Checks SOFTMAX, which aborts unless logits are rescaled by more than one."""
    beta = 1.0 if call.options is None else call.options.get("beta", 1.0)
    for scale in _scales(call.inputs[0]):
        if not beta * float(scale) * 2**26 > 1:
            raise Damage(call.where, f"scale {scale} and beta {beta} are too small")


def _check_types(call: _Call) -> None:
    """Checks the types of operators such as RESHAPE, which copy bytes without conversion."""
    if "keeps_type" not in declaration_of(call.name).traits:
        return
    types = {tensor["type"] for tensor in (*call.inputs[:1], *call.outputs) if tensor is not None}
    if len(types) > 1:
        raise Damage(call.where, f"its tensors are of types {sorted(map(element_type, types))}")


# These checks run after `_check_operands`, so all necessary operands exist.
SCALE_CHECKS: dict[str, Callable[[_Call], None]] = {
    "sum": _check_sum,
    "logits": _check_softmax,
}
