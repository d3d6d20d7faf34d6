"""Reading of HDF5 files that may be damaged or malicious."""

from __future__ import annotations

import contextlib
import io
import json
import math
import mmap
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np

from keras_qat.errors import InvalidFileError, UnsafeFileError
from keras_qat.loading.files.heaps import check_heaps

# Deflate packs at most about 1,032 bytes into one. A larger claim is an attack on memory.
_LARGEST_RATIO = 1100


class SavedLayer(NamedTuple):
    """The weights of one layer in a file, not read yet.

    Attributes:
        name: Name of the layer.
        weights: Name and dataset of each weight, in the order of the file.
    """

    name: str
    weights: tuple[tuple[str, h5py.Dataset], ...]

    @property
    def elements(self) -> int:
        """The number of elements of all weights."""
        return sum(math.prod(dataset.shape) for _, dataset in self.weights)


@contextlib.contextmanager
def open_hdf5(path: Any) -> Iterator[h5py.File]:
    """Opens a file for reading, from a path or a file object.

    Raises:
        InvalidFileError: If the file is not an HDF5 file.
    """
    if isinstance(path, io.BytesIO):
        check_heaps(path.getvalue())
    elif os.path.getsize(path):
        with (
            open(path, "rb") as raw,
            mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            check_heaps(content)
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise InvalidFileError(
            "This is not an HDF5 file, or it is damaged.",
            received=str(error),
            fix="Copy or download it again: it may have been cut off.",
        ) from error
    with file:
        yield file


def text_attribute(group: h5py.Group, name: str) -> str | None:
    """Returns an attribute as text, or None if it is absent."""
    if name not in group.attrs:
        return None
    value = group.attrs[name]
    if isinstance(value, h5py.Empty):
        return ""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def json_attribute(group: h5py.Group, name: str) -> Any:
    """Returns the parsed value of a JSON attribute, or None if it is absent.

    Raises:
        InvalidFileError: If the attribute is not JSON.
    """
    text = text_attribute(group, name)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFileError(
            f"Its `{name}` is not JSON: the file is damaged.", received=str(error)
        ) from error


def saved_layers(file: h5py.File) -> list[SavedLayer]:
    """Lists the layers in a weights file of Keras 1, 2 or 3, by their saved names.

    Args:
        file: A file with a whole model, or with weights only.

    Raises:
        InvalidFileError: If the file lists weights that it does not have.
    """
    root = child(file, "model_weights", h5py.Group) if "model_weights" in file else file
    layers = []
    for name in _names(root, "layer_names"):
        group = child(root, name, h5py.Group)
        names = _names(group, "weight_names")
        weights = tuple((weight, child(group, weight, h5py.Dataset)) for weight in names)
        layers.append(SavedLayer(name, weights))
    return layers


def child(group: h5py.Group, path: str, kind: type) -> Any:
    """Returns the entry of a group at a path. Links out of the file are not followed.

    Args:
        group: The group.
        path: Names with "/" between them.
        kind: `h5py.Group` or `h5py.Dataset`.

    Raises:
        InvalidFileError: If the entry is missing, or of another kind.
        UnsafeFileError: If the entry is a link, or a dataset whose numbers are in other files.
    """
    found: Any = group
    for part in [part for part in path.split("/") if part]:
        if not isinstance(found, h5py.Group) or part not in found:
            raise InvalidFileError(
                "The file lists an entry that it does not hold: it is damaged.",
                received=f"no '{path}' in '{group.name}'",
            )
        link = found.get(part, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise _leads_outside(path, type(link).__name__)
        found = found[part]
    if not isinstance(found, kind):
        raise InvalidFileError(
            "An entry has the wrong type: the file is damaged.",
            received=f"'{path}' in '{group.name}' is a {type(found).__name__}",
            expected=f"a {kind.__name__}",
        )
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise _leads_outside(path, "dataset with its numbers in other files")
    return found


def read_array(dataset: h5py.Dataset) -> np.ndarray:
    """Reads the numbers of a dataset.

    Raises:
        InvalidFileError: If the dataset is not numeric, or is larger than the file can hold.
    """
    if dataset.dtype.kind not in "fiub":
        raise InvalidFileError(
            "A weight is not an array of numbers.", received=f"'{dataset.name}': {dataset.dtype}"
        )
    check_stored(dataset)
    return np.asarray(dataset[()])


def check_stored(dataset: h5py.Dataset) -> None:
    """Raises if a dataset claims more numbers than the file holds."""
    claimed = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    held = dataset.id.get_storage_size()
    if claimed > (held * _LARGEST_RATIO if dataset.chunks else held):
        raise InvalidFileError(
            "A weight claims more numbers than the file holds: it is damaged or cut off.",
            received=f"'{dataset.name}' of shape {dataset.shape}: {claimed:,} bytes, {held:,} held",
        )


def sizes(group: h5py.Group) -> Iterator[int]:
    """Yields the number of elements of each dataset in a group and its subgroups.

    Raises:
        InvalidFileError: If a dataset claims more numbers than the file holds.
        UnsafeFileError: If a dataset is in another file.
    """
    for name in group:
        if group.get(name, getclass=True) is h5py.Group:
            yield from sizes(child(group, name, h5py.Group))
        else:
            dataset = child(group, name, h5py.Dataset)
            check_stored(dataset)
            yield int(dataset.size or 0)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Returns a list of names. A long list is split over several attributes."""
    if attribute in group.attrs:
        values = list(np.ravel(group.attrs[attribute]))
    else:
        values, chunk = [], 0
        while f"{attribute}{chunk}" in group.attrs:
            values += list(np.ravel(group.attrs[f"{attribute}{chunk}"]))
            chunk += 1
        if not chunk:
            raise InvalidFileError(
                "It has no list of its weights.",
                received=f"no attribute `{attribute}` in '{group.name}'",
                expected="a file written by `model.save` or `model.save_weights` of Keras",
            )
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str):
        return value
    raise InvalidFileError("A name in its lists is not text.", received=repr(value)[:80])


def _leads_outside(path: str, kind: str) -> UnsafeFileError:
    """Makes the error for a link to another file."""
    return UnsafeFileError(
        "The file has a link to another file, which is not followed.",
        received=f"'{path}': a {kind}",
    )
