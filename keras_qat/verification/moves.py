"""Rules of the operators that move values or convert their type, in any type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_qat.verification.call import Call


def _gathered(call: Call) -> Any:
    return np.take(call.value("data"), call.value("ids"), axis=call.options["axis"])


def _padded(call: Call) -> Any:
    value = 0 if call.output.quantization is None else call.grid()[1]
    if (given := call.value("value")) is not None:
        value = given.item()
    return np.pad(call.value("data"), call.value("pads"), constant_values=value)


def _mirrored(call: Call) -> Any:
    mode = "reflect" if call.options["mode"] == "REFLECT" else "symmetric"
    return np.pad(call.value("data"), call.value("pads"), mode)


def _strided(call: Call) -> Any:
    options, index = call.options, []
    limits = (call.value(role) for role in ("begin", "end", "steps"))
    for axis, (first, last, step) in enumerate(zip(*limits, strict=True)):
        low = None if options["beginMask"] >> axis & 1 else int(first)
        high = None if options["endMask"] >> axis & 1 else int(last)
        index.append(slice(low, high, int(step)))
        if options["shrinkAxisMask"] >> axis & 1:
            index[-1] = int(first)
    return call.value("data")[tuple(index)]


MOVES: Mapping[str, Callable[[Call], Any]] = {
    "concatenate": lambda call: np.concatenate(call.values, axis=call.options["axis"]),
    "copy": lambda call: call.value("data"),
    "gather": _gathered,
    "mirror": _mirrored,
    "pad": _padded,
    "reshape": lambda call: call.value("data").reshape(call.shape),
    "select": lambda call: np.where(*call.values),
    "shape": lambda call: np.array(call.value("data").shape),
    "slice": _strided,
    "stack": lambda call: np.stack(call.values, axis=call.options["axis"]),
    "transpose": lambda call: np.transpose(call.value("data"), call.value("order")),
}
