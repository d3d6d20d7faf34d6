"""The kernels that run each operator of a model on a target."""

from __future__ import annotations

from keras_qat.litert import Model
from keras_qat.targets.judging import broken_limit, measured_operators
from keras_qat.targets.profiles import Target, fast_kernels


def kernels_by_output(model: Model, target: Target) -> dict[str, str]:
    """Returns the name of the kernels that run each operator on a target.

    Args:
        model: The model, in memory. Nothing is run.
        target: The target.

    Returns:
        The names by the name of each operator's first output: the target's fast kernels where these
        take the operator, else its other kernels.

    Example:
    >>> from keras_qat.litert import Operator, Tensor
    >>> from keras_qat.targets import get_target
    >>> x, y, z = (Tensor(name, (None, 8), "int8") for name in "xyz")
    >>> add, softmax = Operator("ADD", (x, x), (y,)), Operator("SOFTMAX", (y,), (z,))
    >>> kernels_by_output(Model({"x": x}, {"z": z}, (add, softmax)), get_target("litert"))
    {'y': 'xnnpack', 'z': 'optimized'}
    """
    fast = fast_kernels(target)
    if fast is None:
        return {each.outputs[0].name: target.kernels for each in model.operators}
    return {
        each.output.name: fast.kernels if broken_limit(each, fast) is None else target.kernels
        for each in measured_operators(model)
    }
