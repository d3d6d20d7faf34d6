"""The size that a quantized model may have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_qat.errors import InvalidBudgetError
from keras_qat.scheme import Scheme, get_scheme
from keras_qat.targets import get_target


@dataclasses.dataclass(frozen=True)
class Budget:
    """The largest size of a model, and the schemes that its layers may have.

    `keras_qat.quantize_model(model, budget=Budget(...), calibration_data=...)` gives each layer the
    scheme with which the whole model has the least noise within the size.

    Attributes:
        weights_bytes: The most bytes of constants in the file, `weight_bytes` of `inspect_litert`.
            None for no limit.
        flash_kib: The most KiB of flash (1024 bytes): of the whole `.tflite` file, or for
            `"ethos-u"` of what vela, Arm's compiler, makes of it for an Ethos-U55-128. None for no
            limit.
        target: The device, as for `quantize_model`. None for the argument of `quantize_model`.
        schemes: The schemes that layers may get besides that of the model, such as `"int4"`. A
            layer that has no kernels for one of them gets what `quantize_model` would give it.
        samples: The most samples of the calibration data that measure the noise.

    Raises:
        InvalidBudgetError: If there is no limit, a limit is not positive, or there is no scheme.
        InvalidSchemeError: If a scheme is unknown.
        InvalidTargetError: If the target has no profile.

    Example:
    >>> Budget(weights_bytes=40_000).schemes
    ('int4', 'int2')
    """

    weights_bytes: int | None = None
    flash_kib: float | None = None
    _: dataclasses.KW_ONLY
    target: str | None = None
    schemes: Sequence[str | Scheme] = ("int4", "int2")
    samples: int = 256

    def __post_init__(self):
        sizes = {"weights_bytes": self.weights_bytes, "flash_kib": self.flash_kib}
        given = {name: size for name, size in sizes.items() if size is not None}
        if not given:
            raise InvalidBudgetError(
                "A budget needs a size.",
                received="no size",
                expected="weights_bytes, flash_kib, or both",
                fix="Pass `Budget(weights_bytes=100_000)`.",
            )
        for name, size in [*given.items(), ("samples", self.samples)]:
            if not _is_positive(size):
                raise InvalidBudgetError(
                    "A size of a budget is not a positive number.",
                    received=f"{name}={size!r}",
                    expected="a number above 0",
                    fix=f"Pass `{name}=100`.",
                )
        is_list = isinstance(self.schemes, Sequence) and not isinstance(self.schemes, str)
        if not is_list or not self.schemes:
            raise InvalidBudgetError(
                "A budget needs schemes to choose from.",
                received=f"schemes={self.schemes!r}",
                expected="names of schemes",
                fix='Pass `schemes=["int4"]`.',
            )
        list(map(get_scheme, self.schemes))
        if self.target is not None:
            get_target(self.target)

    def limits(self) -> tuple[int | None, int | None]:
        """Returns the limits of weights and flash in bytes."""
        flash = None if self.flash_kib is None else int(self.flash_kib * 1024)
        return self.weights_bytes, flash

    @staticmethod
    def checked(budget: Any) -> Budget:
        """Returns a budget.

        Args:
            budget: The argument `budget` of `quantize_model`.

        Raises:
            InvalidBudgetError: If the argument is not a `Budget`.
        """
        if isinstance(budget, Budget):
            return budget
        raise InvalidBudgetError(
            "`budget` is not a `Budget`.",
            received=repr(budget),
            expected="a keras_qat.Budget",
            fix="Pass `budget=keras_qat.Budget(weights_bytes=100_000)`.",
        )

    def target_for(self, target: str | None) -> str | None:
        """Returns the target of the model.

        Args:
            target: The argument of `quantize_model`.

        Raises:
            InvalidBudgetError: If the budget is for another target.
        """
        if None not in (target, self.target) and target != self.target:
            raise InvalidBudgetError(
                "The budget is for another target than the model.",
                received=f"Budget(target={self.target!r}) and target={target!r}",
                expected="one target",
                fix="Leave out the target of the budget.",
            )
        return target or self.target


def _is_positive(size: Any) -> bool:
    try:
        return not isinstance(size, bool | str) and 0 < size < float("inf")
    except TypeError:
        return False
