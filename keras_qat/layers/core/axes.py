"""Configurations of layers with several axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_axis(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with the argument `axis` of the layer's constructor.

    The configuration of such a layer has the axes as `axes`: when Keras loads an `.h5` file it
    removes each list called `axis`, and makes a number of a list with one element.

    Args:
        config: The configuration, as `get_config` returns it, or with `axis`, as older versions
            saved it.

    Example:
    >>> with_axis({"name": "mean", "axes": [1, 2]})
    {'name': 'mean', 'axis': [1, 2]}
    """
    others = {name: value for name, value in config.items() if name != "axes"}
    return {**others, "axis": config["axes"]} if "axes" in config else others
