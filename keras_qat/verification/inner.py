"""Comparison of the tensors between the operators of one layer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from keras_qat.graph import read_model
from keras_qat.layers import QuantizedModel
from keras_qat.litert import Model, Operator, Runner, Tensor, read
from keras_qat.litert.reading.file_operators import file_operators
from keras_qat.lowering.exporting import lower_model
from keras_qat.targets import get_target, kernels_by_output
from keras_qat.verification.call import Call
from keras_qat.verification.kernels import compute
from keras_qat.verification.replay import behind_float
from keras_qat.verification.report import LayerComparison, VerificationReport


class InnerTensors:
    """Recomputes the tensors of a file that are not the output of a layer.

    Each tensor is computed by the rule of its operator, from the tensors that LiteRT computed
    before it and from the constants that the Keras model has now. Variables are left out: after a
    run they have the values of the last operator that changed them.

    Args:
        model: A quantized model.
        file: The file that was exported from the model, or its content.
    """

    def __init__(self, model: QuantizedModel, file: bytes | str | os.PathLike):
        operators = file_operators(read(file))
        self._outputs = [
            (each, i)
            for each in operators
            for i, output in enumerate(each.outputs)
            if not output.is_variable
        ]
        written = Model({}, {}, operators)
        self._kernels = kernels_by_output(written, get_target(model.target))
        self._kinds = behind_float(read_model(model))
        operands = [x for each in lower_model(model).operators for x in each.inputs]
        self._constants = {x.name: x.data for x in operands if x is not None and x.data is not None}

    def compare(self, report: VerificationReport, kernels: str, runner: Runner) -> None:
        """Adds the tensors that the last run of a file computed to the rows of a report.

        Args:
            report: The report, which has rows for the outputs of layers.
            kernels: Name of the kernels.
            runner: The runner of the file with these kernels.
        """
        rows = report.layers[kernels]
        for theirs in runner.pieces():
            for operator, place in self._outputs:
                name = operator.outputs[place].name
                if name in rows and not rows[name].is_inner:
                    continue
                ours = self._computed(operator, place, theirs)
                if ours is None:
                    known = dict.fromkeys((*report.not_compared, name))
                    report.not_compared = tuple(known)
                    continue
                row = rows.setdefault(
                    name, LayerComparison(name, self._kind(operator.outputs[place]), is_inner=True)
                )
                row.count(ours, theirs[name], is_float=theirs[name].dtype.kind == "f")

        report.layers[kernels] = _ordered(rows)

    def _computed(
        self, operator: Operator, place: int, theirs: Mapping[str, np.ndarray]
    ) -> np.ndarray | None:
        values = [None if x is None else self._value(x, theirs) for x in operator.inputs]
        shape = theirs[operator.outputs[place].name].shape
        kernels = self._kernels[operator.outputs[0].name]
        return compute(Call(operator, values, shape, kernels, place))

    def _value(self, tensor: Tensor, theirs: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Returns the value of a tensor: from the run of the file, or a constant."""
        if tensor.name in theirs:
            return theirs[tensor.name]
        # The sizes of a fixed batch are constants of the file alone.
        return self._constants.get(tensor.name, tensor.data)

    def _kind(self, tensor: Tensor) -> str:
        """Returns whether floats come before the tensor, as `LayerComparison.kind`."""
        layer = tensor.name.rpartition("/")[0]
        return "float" if tensor.dtype == "float32" else self._kinds.get(layer, "integer")


def _ordered(rows: Mapping[str, LayerComparison]) -> dict[str, LayerComparison]:
    """Puts the tensors inside a layer before the layer's output."""
    outputs = [name for name, row in rows.items() if not row.is_inner]
    inner = [name for name, row in rows.items() if row.is_inner]
    order = [each for name in outputs for each in (*_parts(name, inner), name)]
    return {name: rows[name] for name in dict.fromkeys((*order, *inner))}


def _parts(name: str, inner: Sequence[str]) -> list[str]:
    return [each for each in inner if each.rpartition("/")[0] == name]
