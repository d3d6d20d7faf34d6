"""Files of pictures that commands draw."""

from __future__ import annotations

import io
import pathlib
from typing import Any

from keras_qat_cli.errors import UsageError

_ENDINGS = (".png", ".svg", ".pdf")


def picture_path(name: str | None) -> pathlib.Path | None:
    """Returns the path of a picture, if one is wanted.

    Args:
        name: The name that the user gave, or None.

    Raises:
        UsageError: If its ending is not the one of a picture.
    """
    if name is None:
        return None
    if pathlib.Path(name).suffix.lower() not in _ENDINGS:
        raise UsageError(
            "The name of the picture has the wrong ending.",
            received=name,
            expected=f"a name that ends with {', '.join(_ENDINGS)}",
        )
    return pathlib.Path(name)


def save_picture(figure: Any, path: pathlib.Path) -> None:
    """Writes a picture. The file is written only when the picture is complete.

    Args:
        figure: A `matplotlib.figure.Figure`.
        path: The file.

    Raises:
        UsageError: If the file cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=150)
    try:
        path.write_bytes(picture.getvalue())
    except OSError as error:
        raise UsageError(
            f"The picture cannot be written: {error.strerror}.", received=str(path)
        ) from error
