"""Operators of a report as operators of a model, which rules about operators take."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from keras_qat.inspection.report import OperatorReport, QuantizationReport, TensorReport
from keras_qat.litert import Operator, Quantization, Tensor


def as_operator(report: OperatorReport, tensors: Sequence[TensorReport]) -> Operator:
    """Converts an operator of a report. Its tensors have no data.

    Args:
        report: The operator.
        tensors: The tensors of its subgraph.
    """
    options = {_camel_case(name): value for name, value in report.options.items()}
    inputs = tuple(_as_tensor(tensors[i]) if i >= 0 else None for i in report.inputs)
    outputs = tuple(_as_tensor(tensors[i]) for i in report.outputs)
    return Operator(report.name, inputs, outputs, report.version, options)


def _camel_case(name: str) -> str:
    return re.sub("_(.)", lambda found: found[1].upper(), name)


def _as_tensor(report: TensorReport) -> Tensor:
    return Tensor(report.name, report.shape, report.dtype, _as_quantization(report.quantization))


def _as_quantization(report: QuantizationReport | None) -> Quantization | None:
    if report is None:
        return None
    scale, zero_point = np.array(report.scale, "float32"), np.array(report.zero_point, "int64")
    return Quantization(scale, zero_point, report.axis)
