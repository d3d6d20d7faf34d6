"""Data for the commands: images in folders, arrays in files, or results of a function."""

from __future__ import annotations

import argparse
import functools
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_qat_cli.errors import UsageError
from keras_qat_cli.images import Images
from keras_qat_cli.models import Inputs
from keras_qat_cli.user_functions import blamed, imported

_UNREADABLE = (
    *(OSError, ValueError, EOFError, MemoryError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Data:
    """Batches of inputs, or of pairs (inputs, targets), for any number of iterations.

    Args:
        batches: Returns an iterator over the batches.
        fit: Arguments `x` and `y` for `keras.Model.fit`.
        count: The number of batches, or None if unknown.
        limit: The largest number of samples to use. None for all.
        inputs: Name and shape of each input of the model.

    Attributes:
        count: The number of batches, or None if unknown.
        fit: Arguments `x` and `y` for `keras.Model.fit`.
    """

    def __init__(
        self,
        batches: Callable[[], Iterator[Any]],
        fit: Callable[[], Mapping[str, Any]],
        count: int | None,
        limit: int | None,
        inputs: Inputs,
    ):
        self._batches, self._limit, self._inputs = batches, limit, inputs
        self.fit, self.count = fit, count

    def __iter__(self) -> Iterator[Any]:
        left, produced = self._limit, False
        for batch in map(self._batched, self._batches()):
            if left is not None:
                batch = keras.tree.map_structure(functools.partial(_first, left), batch)
                left -= max(map(_size, keras.tree.flatten(batch)), default=0)
            produced = True
            yield batch
            if left is not None and left <= 0:
                return
        if not produced:
            raise UsageError("The data is empty.", expected="at least one batch")

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Yields inputs and targets of each batch. Targets are None if the data has no targets."""
        return map(self._split, self)

    def _split(self, batch: Any) -> tuple[Any, Any]:
        """Splits a batch into inputs and targets."""
        if not isinstance(batch, tuple) or not batch:
            return batch, None
        if isinstance(batch[0], tuple | list | Mapping):
            return batch[0], batch[1] if len(batch) > 1 else None
        count = len(self._inputs)
        is_pair = len(batch) in (2, 3) and (count == 1 or len(batch) != count)
        return (batch[0], batch[1]) if is_pair else (batch, None)

    def _batched(self, batch: Any) -> Any:
        """Returns a batch unchanged, and a single sample as a batch of one."""
        parts = keras.tree.flatten(self._split(batch)[0])
        ranks = sum(len(shape) - 1 for _, shape in self._inputs)
        if len(parts) != len(self._inputs) or sum(map(np.ndim, parts)) != ranks:
            return batch
        return keras.tree.map_structure(
            lambda part: None if part is None else np.asarray(part)[None], batch
        )


def _first(count: int, part: Any) -> Any:
    """Returns the first samples of an array."""
    return part if np.ndim(part) == 0 else part[:count]


def _size(part: Any) -> int:
    return len(part) if np.ndim(part) else 0


def batch_size(options: argparse.Namespace, inputs: Inputs) -> int:
    """Returns the model's batch size if it is fixed, else the requested one."""
    own = inputs[0][1][0] if inputs[0][1] else None
    return own or options.batch_size


def open_data(options: argparse.Namespace, inputs: Inputs, source: str | None = None) -> Data:
    """Opens the data that `--data` names.

    Args:
        options: `data`, `samples`, `batch_size`, `scale` and `offset`.
        inputs: Name and shape of each input of the model.
        source: A source to use instead of `options.data`. All its samples are used.

    Returns:
        The data.

    Raises:
        UsageError: If the data does not exist, or its kind is unknown.
    """
    name = options.data if source is None else source
    limit = options.samples if source is None else None
    if os.path.isdir(name):
        return _folder(name, options, inputs, limit)
    if name.endswith((".npz", ".npy")):
        arrays, targets = _read_arrays(name, inputs)
        arrays = keras.tree.map_structure(lambda array: _rescaled(array, options), arrays)
        return _arrays(arrays, targets, batch_size(options, inputs), limit, inputs)
    if _FUNCTION.fullmatch(name):
        return _from_function(name, batch_size(options, inputs), limit, inputs)
    raise UsageError(
        "The data cannot be opened.",
        received=name,
        expected="a folder, a file that ends in .npz or .npy, or module:function",
    )


def _folder(name: str, options: argparse.Namespace, inputs: Inputs, limit: int | None) -> Data:
    if len(inputs) != 1 or len(inputs[0][1]) != 4:
        raise UsageError(
            "A folder of images needs a model with one input of images.",
            received=f"a model with inputs {list(inputs)}",
            fix="Give an .npz, or module:function.",
        )
    size = batch_size(options, inputs)
    images = Images(name, inputs[0][1][1:], size, limit)

    def rescaled(batch):
        return (_rescaled(batch[0], options), *batch[1:])

    count = -(-min(images.count, limit or images.count) // size)
    return Data(
        lambda: map(rescaled, images.batches()),
        lambda: {"x": images.dataset(shuffle=True).map(lambda *batch: rescaled(batch))},
        count,
        limit,
        inputs,
    )


def _rescaled(values: Any, options: argparse.Namespace) -> Any:
    """Scales an array, or a tensor of a dataset."""
    if options.scale is None and options.offset is None:
        return values
    scale = 1.0 if options.scale is None else options.scale
    is_array = isinstance(values, np.ndarray)
    reals = values.astype("float32") if is_array else keras.ops.cast(values, "float32")
    return reals * np.float32(scale) + np.float32(options.offset or 0.0)


def _read_arrays(name: str, inputs: Inputs) -> tuple[Any, np.ndarray | None]:
    """Reads inputs and targets from an `.npz` or `.npy` file."""
    try:
        loaded = np.load(name, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, None
        arrays = {key: loaded[key] for key in loaded.files}
    except _UNREADABLE as error:
        raise UsageError(
            "The file of arrays cannot be read.", received=f"{name}: {error}"
        ) from error
    names = [input_name for input_name, _ in inputs]
    targets = arrays.pop("y", None) if "y" not in names else None
    if len(inputs) == 1 and (only := arrays.get(names[0], arrays.get("x"))) is not None:
        return only, targets
    missing = [input_name for input_name in names if input_name not in arrays]
    if missing:
        raise UsageError(
            "The file of arrays lacks inputs of the model.",
            received=f"{name} with {sorted(arrays)}",
            expected=f"arrays {names}" + (" or x" if len(names) == 1 else ""),
        )
    return {input_name: arrays[input_name] for input_name in names}, targets


def _arrays(arrays: Any, targets: Any, size: int, limit: int | None, inputs: Inputs) -> Data:
    """Cuts arrays into batches."""
    whole = keras.tree.map_structure(np.asarray, arrays if targets is None else (arrays, targets))
    leaves = keras.tree.flatten(whole)
    counts = {leaf.shape[:1] for leaf in leaves}
    if len(counts) != 1 or counts <= {(), (0,)}:
        raise UsageError(
            "Inputs and targets have different numbers of samples, or none.",
            received=f"shapes {[leaf.shape for leaf in leaves]}",
        )
    ((total,),) = counts

    def batches():
        for start in range(0, total, size):
            part = slice(start, start + size)
            yield keras.tree.map_structure(lambda a, part=part: a[part], whole)

    count = -(-min(total, limit or total) // size)
    return Data(batches, lambda: {"x": arrays, "y": targets}, count, limit, inputs)


def _from_function(name: str, size: int, limit: int | None, inputs: Inputs) -> Data:
    """Reads the data that a function of the user returns."""
    function = imported(name)
    with blamed(name):
        returned = function()
    arrays, targets = _parts(returned, len(inputs))
    if isinstance(arrays, Mapping | tuple) or _is_array(arrays):
        return _arrays(arrays, targets, size, limit, inputs)
    if not hasattr(returned, "__iter__"):
        raise UsageError(
            "The function for the data returned an object that cannot be iterated over.",
            received=f"a {type(returned).__name__} from {name}",
            expected="arrays, a pair (inputs, targets), or an iterable of batches",
        )
    # A generator is used up after one pass, so each pass creates a new one.
    first = [returned]

    def fresh():
        """Returns the data of the first call once, then those of new calls."""
        with blamed(name):
            return first.pop() if first else function()

    def passed():
        data = fresh()
        with blamed(name):
            yield from data

    def fit():
        data = fresh()
        if isinstance(data, Iterator):
            raise UsageError(
                "A generator cannot be trained on: it is used up after one epoch.",
                received=f"a {type(data).__name__} from {name}",
                expected="arrays, a list of batches, a tf.data.Dataset or a PyDataset",
            )
        return {"x": _Listed(data) if isinstance(data, list) else data}

    count = len(returned) if limit is None and hasattr(returned, "__len__") else None
    return Data(passed, fit, count, limit, inputs)


def _parts(returned: Any, inputs: int) -> tuple[Any, Any]:
    """Returns the inputs and the targets in what a function returned. None for no targets."""
    is_pair = isinstance(returned, tuple) and len(returned) == 2
    arrays, targets = returned if is_pair else (returned, None)
    is_list = isinstance(arrays, list) and len(arrays) == inputs and all(map(_is_array, arrays))
    if is_list and inputs > 1:
        return tuple(arrays), targets
    # Without targets, a list of one array is one batch.
    return (arrays[0] if is_list and is_pair else arrays), targets


class _Listed(keras.utils.PyDataset):
    """A dataset from a list of batches. Keras would treat the list itself as several inputs."""

    def __init__(self, batches: list[Any]):
        super().__init__()
        self._listed = batches

    def __len__(self):
        return len(self._listed)

    def __getitem__(self, index):
        return self._listed[index]


def _is_array(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("shape", "dtype", "__getitem__"))
