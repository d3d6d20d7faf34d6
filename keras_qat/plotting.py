"""Pictures with one row for each layer."""

from __future__ import annotations

from typing import Any

from keras_qat.errors import MissingPackageError

# In inches: height of a row of text, space around the rows, width of the picture.
_ROW, _AROUND, _WIDTH = 0.22, 1.4, 9.0


def figure_of_rows(count: int) -> Any:
    """Returns an empty picture that is high enough for a number of rows of text.

    Args:
        count: The number of rows.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingPackageError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # pyplot would keep state and may open a window
    except ImportError as error:
        raise MissingPackageError(
            "Plots are drawn by matplotlib, which is not installed.",
            fix="pip install 'keras-qat[plots]'",
        ) from error
    return Figure((_WIDTH, _AROUND + _ROW * count), layout="constrained")
