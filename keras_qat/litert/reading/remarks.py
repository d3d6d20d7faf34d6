"""Finds oddities of a file that do not prevent it from running."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_qat.litert.format.flatbuffer import Record


def has_axis_of_its_own(tensor: Record) -> bool:
    """Returns whether a vector has a scale for each element, at an axis that does not exist.

    Old converters gave a bias the axis of its weights. Runtimes for microcontrollers ignore the
    axis of a vector.

    Args:
        tensor: A `Tensor` table.
    """
    quantization, shape = tensor["quantization"], tensor["shape"]
    if quantization is None or quantization["scale"] is None or shape is None or shape.size != 1:
        return False
    return quantization["quantized_dimension"] > 0 and quantization["scale"].size == shape[0]


def remarks(model: Record) -> Iterator[str]:
    """Yields the oddities of a model, as sentences.

    Args:
        model: The `Model` table of a valid file.
    """
    for subgraph in model["subgraphs"]:
        tensors = subgraph["tensors"]
        odd = [tensor["name"] for tensor in tensors if has_axis_of_its_own(tensor)]
        if odd:
            yield (
                f"{len(odd)} vector(s), {odd[0]!r} first, have their scales at an axis that they "
                "do not have, as old converters wrote biases."
            )
        made = set(subgraph.integers("inputs"))
        for operator in subgraph["operators"] or ():
            code = model["operator_codes"][operator["opcode_index"]]
            inputs = operator.integers("inputs")
            scratch = [i for i in inputs if _is_scratch(i, made, model, tensors)]
            if scratch and code["custom_code"]:
                yield (
                    f"The operator {code['custom_code']!r} takes {len(scratch)} tensor(s) that no "
                    f"operator computes, {tensors[scratch[0]]['name']!r} first, as working memory."
                )
            made |= set(operator.integers("outputs"))


def _is_scratch(index: int, made: set[int], model: Record, tensors: Sequence[Record]) -> bool:
    """Returns whether an input is working memory: not computed, and not a constant."""
    if index < 0 or index in made or tensors[index]["is_variable"]:
        return False
    buffer = tensors[index]["buffer"]
    data = model["buffers"][buffer]["data"] if buffer else None
    external = model["buffers"][buffer]["offset"] if buffer else 0
    return not external and (data is None or not len(data))
