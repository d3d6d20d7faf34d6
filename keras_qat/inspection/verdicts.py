"""Whether a file is fully integer, and why."""

from collections.abc import Iterator, Sequence

from keras_qat.inspection.report import OperatorReport, TensorReport
from keras_qat.litert.format.operators import is_foreign

INTEGERS = {
    "bool",
    "int2",
    "int4",
    "int8",
    "int16",
    "int32",
    "int64",
    "string",
    "uint4",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
}


def fully_integer(
    operators: Sequence[OperatorReport],
    tensors: Sequence[TensorReport],
    inputs: Sequence[TensorReport],
    outputs: Sequence[TensorReport],
) -> tuple[bool, tuple[str, ...]]:
    """Tells whether a file reads, computes and returns integers only.

    Unused tensors do not count.

    Args:
        operators: All operators.
        tensors: All tensors.
        inputs: Inputs of the model.
        outputs: Outputs of the model.

    Returns:
        The verdict and its reasons: each tensor and operator that is not integer, or one sentence
        if all are.
    """
    reasons = list(_reasons(operators, tensors, inputs, outputs))
    if reasons:
        return False, tuple(reasons)
    count = f"{len(operators)} operators" if len(operators) != 1 else "one operator"
    return True, (f"{count}, all inputs and all outputs have integer tensors alone",)


def _reasons(operators, tensors, inputs, outputs) -> Iterator[str]:
    """Yields the reasons why a file is not fully integer, each tensor once."""
    told = set()
    for end, group in (("input", inputs), ("output", outputs)):
        for tensor in group:
            if tensor.dtype not in INTEGERS:
                told.add((tensor.subgraph, tensor.index))
                yield f"the {end} {tensor.name!r} is {tensor.dtype}"
    by_number = {(tensor.subgraph, tensor.index): tensor for tensor in tensors}
    for operator in operators:
        where = f"operator {operator.index} of subgraph {operator.subgraph}"
        if is_foreign(operator.name):
            yield f"{where} is {operator.name}, and what it computes in is not known"
        for index in (*operator.inputs, *operator.outputs):
            key = operator.subgraph, index
            if index >= 0 and by_number[key].dtype not in INTEGERS and key not in told:
                told.add(key)
                tensor = by_number[key]
                yield f"the tensor {tensor.name!r} of {where} ({operator.name}) is {tensor.dtype}"
