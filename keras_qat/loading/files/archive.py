"""Checks of a `.keras` archive before Keras loads it."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from keras_qat.errors import InvalidFileError
from keras_qat.loading.files.hdf5 import open_hdf5, sizes
from keras_qat.loading.files.lambdas import replace_code
from keras_qat.loading.files.safety import check_config
from keras_qat.loading.files.source import Source

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# Keras stores without compression. An entry that unpacks to much more is an attack on memory.
_LARGEST_RATIO, _SMALL = 100, 2**26


def check_archive(source: Source) -> tuple[dict[str, Any], bool, int]:
    """Checks all parts of an archive that Keras will read.

    Args:
        source: The file.

    Returns:
        The configuration of the model, in which the caller's functions replace code; whether it
        has such functions; and the number of elements of all weights.

    Raises:
        InvalidFileError: If the archive is damaged, or Keras 2 wrote it.
        UnsafeFileError: If the configuration would run code.
    """
    with zipfile.ZipFile(source.path) as archive:
        metadata = _json(archive, _METADATA)
        version = str(metadata.get("keras_version")) if isinstance(metadata, dict) else ""
        if version.startswith(("1.", "2.")):
            raise InvalidFileError(
                "Keras 2 wrote this archive; Keras 3 has another layout under the same name.",
                received=f"keras_version {version}",
                fix="Save the model there with `model.save('model.h5')`.",
            )
        stored = _json(archive, _CONFIG)
        if not isinstance(stored, dict):
            raise InvalidFileError("Its configuration does not describe a model.")
        config = replace_code(stored, source)
        check_config(config, source)
        weights = _member(archive, _WEIGHTS)
    with open_hdf5(io.BytesIO(weights)) as file:
        return config, config is not stored, sum(sizes(file))


def write_copy(path: str, config: Any, copy: str) -> None:
    """Writes a copy of an archive with another configuration.

    Args:
        path: The archive.
        config: The configuration.
        copy: The path of the copy.
    """
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as written:
        for name in archive.namelist():
            content = json.dumps(config) if name == _CONFIG else archive.read(name)
            written.writestr(name, content)


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    try:
        return json.loads(_member(archive, name))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidFileError):
            raise
        raise InvalidFileError(f"Its {name} is not JSON.", received=str(error)) from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Returns the bytes of a file in the archive, after a check of its size."""
    if name not in archive.namelist():
        raise InvalidFileError(
            "A part of the archive is missing.",
            received=f"{archive.namelist()[:8]}",
            expected=f"{name} among them",
        )
    info = archive.getinfo(name)
    if info.file_size > _SMALL and info.file_size > info.compress_size * _LARGEST_RATIO:
        raise InvalidFileError(
            "A part of the archive claims to unpack to much more than it is.",
            received=f"{name}: {info.compress_size:,} bytes for {info.file_size:,}",
        )
    return archive.read(name)  # `read` also compares the checksum
