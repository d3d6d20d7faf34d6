"""What a sound file must keep to besides, so that LiteRT's interpreter does not stop the process.

The interpreter returns an error for most of what its kernels cannot compute, but some of their
checks abort (`TFLITE_CHECK` in
https://github.com/tensorflow/tensorflow/tree/master/tensorflow/lite/kernels), and memory that is
not there is not noticed before it is used.
"""

import os
from collections.abc import Callable, Sequence

import numpy as np

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert.computed_shapes import computed_shape, contradicts
from keras_qat.litert.element_types import dense_bytes, element_type
from keras_qat.litert.flatbuffer import Damage, Record
from keras_qat.litert.operands import Operands, operands
from keras_qat.litert.reader import LiteRTFile


def check_runnable(file: LiteRTFile) -> None:
    """Checks that the interpreter can be given a file.

    Args:
        file: A file that `read` found sound.

    Raises:
        LiteRTFormatError: if a kernel would abort on its quantization, or its tensors take more
            memory than the machine has.
    """
    try:
        for i, subgraph in enumerate(file.model["subgraphs"]):
            where = f"Model.subgraphs[{i}]"
            _check_memory(subgraph["tensors"], where)
            for j, tensor in enumerate(subgraph["tensors"]):
                _check_scales(tensor, f"{where}.tensors[{j}] {tensor['name']!r}")
            for j, operator in enumerate(subgraph["operators"] or ()):
                name = file.operator_name(operator)
                at = f"{where}.operators[{j}] ({name})"
                inputs, outputs = _operands(operator, subgraph["tensors"])
                options = operator["builtin_options"]
                _check_operands(operands().get(name), inputs, outputs, options, at)
                check = KERNEL_CHECKS.get(name)
                if check:
                    check(inputs, outputs, options, at)
                _check_computed_shape(file, name, inputs, outputs, at)
    except Damage as damage:
        raise LiteRTFormatError(
            f"LiteRT cannot run the file {file.name!r}.",
            received=f"at {damage.where}: {damage.what}",
        ) from None


def _check_memory(tensors: Sequence[Record], where: str) -> None:
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
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


def _check_scales(tensor: Record, where: str) -> None:
    scales = _scales(tensor)
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise Damage(f"{where}.quantization.scale", "scales must be positive and finite")


def _operands(
    operator: Record, tensors: Sequence[Record]
) -> tuple[list[Record | None], list[Record]]:
    inputs = [] if operator["inputs"] is None else operator["inputs"].tolist()
    outputs = [] if operator["outputs"] is None else operator["outputs"].tolist()
    return [tensors[i] if i >= 0 else None for i in inputs], [tensors[i] for i in outputs]


def _check_operands(
    wanted: Operands | None,
    inputs: list[Record | None],
    outputs: list[Record],
    options: Record | None,
    where: str,
) -> None:
    if wanted is None:
        return
    (least, most), (fewest, limit) = wanted.inputs, wanted.outputs
    if not (least <= len(inputs) <= most and fewest <= len(outputs) <= limit):
        raise Damage(where, f"it has {len(inputs)} inputs and {len(outputs)} outputs")
    if None in inputs[:least]:
        raise Damage(where, f"input {inputs.index(None)} is absent")
    if options is not None and options.table != wanted.options:
        raise Damage(where, f"its options are {options.table}, not {wanted.options or 'none'}")


def _check_computed_shape(
    file: LiteRTFile,
    name: str,
    inputs: list[Record | None],
    outputs: list[Record],
    where: str,
) -> None:
    if len(inputs) < 2 or inputs[0] is None or inputs[1] is None:
        return
    if element_type(inputs[1]["type"]) != "int32":
        return
    computed = computed_shape(name, inputs[0], file.data(inputs[1]))
    if computed is not None and contradicts(outputs[0], computed):
        raise Damage(where, f"its result will be of shape {computed}, which the file denies")


def _check_sum(
    inputs: list[Record | None], outputs: list[Record], options: Record | None, where: str
) -> None:
    """ADD and SUB abort unless each rescaling is by less than one (`add.cc`, `sub.cc`)."""
    scales = [_scales(tensor) for tensor in [*inputs[:2], *outputs[:1]]]
    if len(scales) < 3 or any(scale.size != 1 for scale in scales):
        return
    if element_type(outputs[0]["type"]) not in ("int8", "uint8", "int16"):
        return
    first, second, result = (float(scale[0]) for scale in scales)
    shift = 15 if element_type(outputs[0]["type"]) == "int16" else 20
    multiplier = 2 * max(first, second) / (2**shift * result)
    if not 0 < multiplier < 1:
        raise Damage(where, f"the scales {first}, {second} and {result} are too far apart")


def _check_softmax(
    inputs: list[Record | None], outputs: list[Record], options: Record | None, where: str
) -> None:
    """SOFTMAX aborts unless logits are rescaled by more than one (`softmax_quantized_common`)."""
    beta = 1.0 if options is None or "beta" not in options else options["beta"]
    for scale in _scales(inputs[0] if inputs else None):
        if not beta * float(scale) * 2**26 > 1:
            raise Damage(where, f"scale {scale} and beta {beta} are too small")


def _check_moves(
    inputs: list[Record | None], outputs: list[Record], options: Record | None, where: str
) -> None:
    """RESHAPE copies as many bytes as its input has (`reshape.cc`); no kernel here converts."""
    types = {t["type"] for t in outputs} | {t["type"] for t in inputs[:1] if t is not None}
    if len(types) > 1:
        raise Damage(where, f"its tensors are of types {sorted(map(element_type, types))}")


_Check = Callable[[list[Record | None], list[Record], Record | None, str], None]
KERNEL_CHECKS: dict[str, _Check] = {
    "ADD": _check_sum,
    "SUB": _check_sum,
    "SOFTMAX": _check_softmax,
    "LOG_SOFTMAX": _check_softmax,
} | dict.fromkeys(
    """
    BATCH_TO_SPACE_ND BROADCAST_TO CONCATENATION DEPTH_TO_SPACE EXPAND_DIMS GATHER GATHER_ND
    MAX_POOL_2D MIRROR_PAD PACK PAD PADV2 RELU RELU6 RESHAPE REVERSE_V2 SLICE SPACE_TO_BATCH_ND
    SPACE_TO_DEPTH SQUEEZE STRIDED_SLICE TILE TRANSPOSE UNPACK
    """.split(),
    _check_moves,
)
