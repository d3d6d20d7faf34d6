"""A finding of `check`: a problem with its place, its meaning and a fix."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from keras_qat.errors import KerasQatError

ERROR, WARNING = "error", "warning"

# The code of each warning, and the reason for the warning. docs/findings.md has details.
WARNINGS = {
    "standalone-activation": "LiteRT's operators with a kernel, and additions, fuse a relu or "
    "relu6 at no cost; any other activation reads and writes its tensor once more, and rounds it.",
    "unfolded-batch-norm": "A batch normalization that is folded into the kernel before it costs "
    "nothing. Otherwise it is a separate operator, and rounds once more.",
    "dead-channel": "A constant channel costs as much as other channels, and "
    "many constant channels mean that the training went wrong.",
    "wasted-weight-range": "With one scale for all channels the widest one sets the steps: 16 of "
    "254 steps are 4 of 8 bits, an error of 3 to 6 % of a channel's largest weight.",
    "bias-saturates": "A bias is stored in 32 bits at the scale of input times weights. If it does "
    "not fit, the steps of the weights become larger. Half as many steps are one bit less.",
    "wide-activation-range": "The range of a tensor has 255 steps; if 98 % of its values take 16 "
    "of them, 4 of 8 bits are spent on rare values. Channels share it: a narrow one gets few "
    "steps.",
    "slow-operator": "LiteRT's fast kernels, XNNPACK, do not support the operator. Another kernel "
    "of LiteRT runs it, which splits the part of the model that XNNPACK runs in two.",
    "outlying-samples": "One sample at 100 times the size of the others would leave them 3 of 255 "
    "steps. If calibration sets it aside, it is clipped.",
    "range-drift": "Training holds calibrated ranges: values outside are clipped, and a range that "
    "is too wide wastes steps.",
    "runtimes-differ": "For this target Keras computes the results of LiteRT's reference kernels; "
    "LiteRT's default kernels round 2 % or more of the elements of these operators differently.",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A problem of a quantized model, or something that costs it speed or accuracy.

    Attributes:
        level: `"error"`: the model cannot be quantized, and `quantize_model` raises with the same
            text, or the file would not run on the given target.
            `"warning"`: the model can be quantized, with a loss of speed or accuracy.
        code: A stable name for programs. The code of an error is the name of its class:
            `"unsupported-layer"` is an `UnsupportedLayerError`. docs/findings.md lists the other
            codes, docs/targets.md those of targets.
        layer: Name of the layer, input or weight.
        tensor: Name of the tensor: the layer's output, a weight, or a tensor between two
            operators.
        message: The problem.
        fix: A way to fix it.
        layers: All layers with the problem, if there are several.
    """

    level: str
    code: str
    layer: str | None
    tensor: str | None
    message: str
    fix: str | None
    layers: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The layer and the tensor, as text to append, unless the message names them."""
        is_named = self.layer is None or f"'{self.layer}'" in self.message
        where = "" if is_named else f" '{self.layer}'"
        if self.tensor and self.tensor != self.layer and not self.layers:
            where += f", tensor '{self.tensor}'"
        return where

    def __str__(self):
        fix = f" To fix it: {self.fix}" if self.fix else ""
        return f"{self.level}{self.place}: {self.message}{fix} [{self.code}]"


def error_finding(error: KerasQatError) -> Finding:
    """Returns a finding with the text of an error.

    Args:
        error: An error, raised or not.

    Example:
    >>> from keras_qat.errors import UnsupportedLayerError
    >>> print(error_finding(UnsupportedLayerError("No integers.", layer="a", fix="Use b.")))
    error: No integers. Layer: 'a'. To fix it: Use b. [unsupported-layer]
    """
    name = type(error).__name__.removesuffix("Error")
    code = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
    message = str(error).removesuffix(f" To fix it: {error.fix}")
    return Finding(ERROR, code, error.layer, error.layer, message, error.fix)


def listing(names: Sequence[object], most: int = 8) -> str:
    """Returns names as text, only the first names of a long list.

    Example:
    >>> listing(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
