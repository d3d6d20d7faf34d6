"""Parameters of tests, of which the quick tests take a few."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*parameters: Any) -> list[Any]:
    """Marks parameters of a test slow.

    Args:
        *parameters: Values, or tuples of values.
    """
    return some_quick(parameters)


def some_quick(parameters: Iterable[Any], *places: int) -> list[Any]:
    """Marks the parameters slow, except those at some places.

    Args:
        parameters: Values, or tuples of values.
        *places: The places of the parameters for the quick tests, such as 0 for the first.
    """
    made = []
    for place, values in enumerate(parameters):
        own = values if isinstance(values, tuple) else (values,)
        made.append(values if place in places else pytest.param(*own, marks=pytest.mark.slow))
    return made
