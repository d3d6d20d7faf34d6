"""Rules of operators that XNNPACK takes within limits of the scales; LiteRT's own run beyond."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from keras import ops

from keras_qat.arithmetic import arm64
from keras_qat.arithmetic import elementwise as reference
from keras_qat.arithmetic.multiply import multiply as reference_multiply
from keras_qat.arithmetic.prelu import leaky_relu as reference_leaky_relu
from keras_qat.arithmetic.requantize import rescale as reference_rescale
from keras_qat.arithmetic.xnnpack import elementwise, quantize
from keras_qat.arithmetic.xnnpack.requantize import scale_float32


def _chosen(rule: Callable[..., Any], beyond: Callable[..., Any], takes: Callable[..., Any]) -> Any:
    """Returns a rule that is `rule` where `takes` of the same arguments holds, else `beyond`."""

    @functools.wraps(rule)
    def chosen(*arguments: Any) -> Any:
        return ops.cond(takes(*arguments), lambda: rule(*arguments), lambda: beyond(*arguments))

    return chosen


def _within(ratio: Any, least: float, below: float) -> Any:
    return ops.logical_and(ratio >= least, ratio < below)


def _takes_sum(qa: Any, sa: Any, za: Any, qb: Any, sb: Any, zb: Any, sy: Any, *_: Any) -> Any:
    del qa, za, qb, zb
    ratios = scale_float32(sa, 1.0, sy), scale_float32(sb, 1.0, sy)
    return ops.logical_and(*(_within(ratio, 2.0**-10, 2.0**8) for ratio in ratios))


def _takes_product(qa: Any, sa: Any, za: Any, qb: Any, sb: Any, zb: Any, sy: Any, *_: Any) -> Any:
    del qa, za, qb, zb
    return _within(scale_float32(sa, sb, sy), 2.0**-16, 2.0**8)


def _takes_rescaling(q: Any, scale: Any, zero_point: Any, output: Any, *_: Any) -> Any:
    del q, zero_point
    return _is_moderate(scale_float32(scale, 1.0, output))


def _is_moderate(ratio: Any) -> Any:
    return ops.logical_and(ratio >= 2.0**-8, ratio <= 2.0**7)


def _takes_slope(q: Any, scale: Any, zero_point: Any, slope: Any, output: Any, *_: Any) -> Any:
    del q, zero_point
    ratio = scale_float32(scale, 1.0, output)
    sloped = scale_float32(ratio, slope, 1.0)
    negative = ops.logical_and(sloped <= -(2.0**-8), sloped >= 2.0**-8 - 2.0**7)
    either = ops.logical_or(_is_moderate(sloped), negative)
    return ops.logical_and(_is_moderate(ratio), either)


add = _chosen(elementwise.add, reference.add, _takes_sum)
subtract = _chosen(elementwise.subtract, reference.subtract, _takes_sum)
multiply = _chosen(elementwise.multiply, reference_multiply, _takes_product)
multiply_arm64 = _chosen(arm64.multiply, reference_multiply, _takes_product)
rescale = _chosen(quantize.rescale, reference_rescale, _takes_rescaling)
leaky_relu = _chosen(quantize.leaky_relu, reference_leaky_relu, _takes_slope)
