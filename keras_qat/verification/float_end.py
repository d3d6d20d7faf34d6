"""Removes the operator of a file that no layer of the model stands for."""

from __future__ import annotations

import os

from keras_qat.litert import read
from keras_qat.litert.reading.runnable import check_runnable
from keras_qat.litert.running.expose import without_last
from keras_qat.lowering.detection import CODE, NAME


def without_detection(
    filepath: str | os.PathLike[str],
) -> tuple[bytes | str | os.PathLike[str], tuple[str, ...]]:
    """Removes the post-processing of a detector.

    Args:
        filepath: A file.

    Returns:
        The file and no names, if it has no post-processing. Else the content of a file that ends
        with the real values of boxes and scores, and the name of the removed operator.

    Raises:
        LiteRTFormatError: If the file cannot be read, or LiteRT cannot run its post-processing.
    """
    file = read(filepath)
    content = without_last(file.content, CODE)
    if content is file.content:
        return filepath, ()
    check_runnable(file)
    return content, (NAME,)
