"""One finding of `check`: what it is about, what it means and what to do."""

from __future__ import annotations

import dataclasses
import re

from keras_qat.errors import KerasQatError

ERROR, WARNING = "error", "warning"


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that stands in the way of a quantized model, or costs it speed or accuracy.

    Attributes:
        level: `"error"`: the model cannot be quantized as it is, and `quantize_model` raises with
            the same text; `"warning"`: it can, at a price.
        code: What kind of finding it is, a stable name for programs. Of an error it is the name of
            the class: `"unsupported-layer"` is an `UnsupportedLayerError`. docs/findings.md lists
            the others.
        layer: Name of the layer, input or weight.
        tensor: Name of the tensor, None where it is about no single one.
        message: What is wrong.
        fix: What to do about it.
    """

    level: str
    code: str
    layer: str | None
    tensor: str | None
    message: str
    fix: str | None

    def __str__(self):
        where = f" '{self.layer}'" if self.layer else ""
        if self.tensor and self.tensor != self.layer:
            where += f", tensor '{self.tensor}'"
        fix = f" To fix it: {self.fix}" if self.fix else ""
        return f"{self.level}{where}: {self.message}{fix} [{self.code}]"


def error_finding(error: KerasQatError) -> Finding:
    """Says as a finding what an error says.

    Args:
        error: An error, raised or not.

    Example:
    >>> from keras_qat.errors import UnsupportedLayerError
    >>> print(error_finding(UnsupportedLayerError("No integers.", layer="a", fix="Use b.")))
    error 'a': No integers. To fix it: Use b. [unsupported-layer]
    """
    received = "" if error.received is None else f" Received: {error.received}."
    name = type(error).__name__.removesuffix("Error")
    code = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
    return Finding(ERROR, code, error.layer, None, f"{error.what}{received}", error.fix)
