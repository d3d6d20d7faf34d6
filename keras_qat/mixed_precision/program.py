"""The integer program that chooses one form for each layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_qat.errors import MissingPackageError

# Tolerances of the solver are absolute: the largest cost is far above them.
_LARGEST_COST = 1e4
# Cost of a form whose outputs are not finite numbers, as a multiple of the largest other cost.
_NOT_FINITE = 1e4


def best_choice(
    costs: Sequence[Sequence[float]],
    sizes: Sequence[Sequence[Sequence[int]]],
    limits: Sequence[int],
) -> tuple[int, ...] | None:
    """Chooses one form for each layer, with the least sum of costs among those within all limits.

    Args:
        costs: The cost of each form of each layer. Layers may have different numbers of forms.
        sizes: The sizes of the same forms, once for each limit.
        limits: The largest sum of each kind of size.

    Returns:
        The position of each layer's form. None if no choice is within the limits.

    Raises:
        MissingPackageError: If scipy is not installed.

    Example:
    >>> best_choice([[0.0, 3.0], [0.0, 1.0]], [[[8, 4], [8, 4]]], [12])
    (0, 1)
    """
    if not costs:
        return () if all(limit >= 0 for limit in limits) else None
    limits = list(limits)
    while True:
        chosen = _solved(costs, sizes, limits)
        if chosen is None:
            return None
        excess = [
            sum(each[form] for each, form in zip(size, chosen, strict=True)) - limit
            for size, limit in zip(sizes, limits, strict=True)
        ]
        if max(excess, default=0) <= 0:
            return chosen
        # The solver keeps limits up to its tolerance.
        limits = [limit - max(over, 0) for limit, over in zip(limits, excess, strict=True)]


def _solved(
    costs: Sequence[Sequence[float]],
    sizes: Sequence[Sequence[Sequence[int]]],
    limits: Sequence[int],
) -> tuple[int, ...] | None:
    """Solves the program, with a variable of 0 or 1 for each form of each layer."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError as error:
        raise MissingPackageError(
            "Widths are chosen by scipy, which is not installed.",
            fix="pip install 'keras-qat[budget]'",
        ) from error
    flat = np.concatenate([np.asarray(each, "float64") for each in costs])
    finite = np.isfinite(flat)
    largest = max(flat[finite].max(initial=0.0), np.finfo("float64").tiny)
    flat = np.where(finite, flat / largest, _NOT_FINITE)
    layers = np.repeat(np.arange(len(costs)), [len(each) for each in costs])
    one_each = LinearConstraint((layers == np.arange(len(costs))[:, None]).astype(float), 1, 1)
    rows = [np.concatenate([np.asarray(each, "float64") for each in size]) for size in sizes]
    within = [
        LinearConstraint(row, -np.inf, limit) for row, limit in zip(rows, limits, strict=True)
    ]
    solution = milp(
        flat * _LARGEST_COST,
        integrality=np.ones(flat.size),
        bounds=Bounds(0, 1),
        constraints=[one_each, *within],
        options={"mip_rel_gap": 0.0},
    )
    if solution.x is None:
        return None
    starts = np.cumsum([0, *(len(each) for each in costs)])
    parts = [solution.x[a:b] for a, b in zip(starts, starts[1:], strict=False)]
    return tuple(int(np.argmax(part)) for part in parts)
