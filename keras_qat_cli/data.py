"""Data for the commands: images in folders, arrays in files, or what a function returns."""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_qat_cli.errors import UsageError
from keras_qat_cli.images import Images
from keras_qat_cli.models import Inputs

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class Data:
    """Batches of inputs, or of pairs (inputs, targets); may be gone through any number of times.

    Args:
        batches: Makes an iterator over the batches.
        fit: Arguments `x` and `y` for `keras.Model.fit`.
        count: How many batches there are, or None.
        limit: How many samples are used at most; None for all.
        inputs: How many inputs the model has.

    Attributes:
        count: How many batches there are, or None.
        fit: As given.
    """

    def __init__(
        self,
        batches: Callable[[], Iterator[Any]],
        fit: Callable[[], Mapping[str, Any]],
        count: int | None,
        limit: int | None,
        inputs: int,
    ):
        self._batches, self._limit, self._inputs = batches, limit, inputs
        self.fit, self.count = fit, count

    def __iter__(self) -> Iterator[Any]:
        left = self._limit
        for batch in self._batches():
            if left is not None:
                batch = keras.tree.map_structure(functools.partial(_first, left), batch)
                left -= len(keras.tree.flatten(batch)[0])
            yield batch
            if left == 0:
                return

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """Yields inputs and targets of each batch; targets are None where there are none."""
        for batch in self:
            is_pair = isinstance(batch, tuple) and (
                isinstance(batch[0], tuple | list | Mapping)
                or (len(batch) in (2, 3) and (self._inputs == 1 or len(batch) != self._inputs))
            )
            yield (batch[0], batch[1]) if is_pair else (batch, None)


def _first(count: int, part: Any) -> Any:
    return None if part is None else part[:count]


def open_data(options: argparse.Namespace, inputs: Inputs, source: str | None = None) -> Data:
    """Opens what `--data` names.

    Args:
        options: `data`, `samples`, `batch_size`, `scale` and `offset`.
        inputs: Name and shape of each input of the model.
        source: Another source than `options.data`, of which all samples are used.

    Returns:
        The data.

    Raises:
        UsageError: If there is no such data, or it is not of a known kind.
    """
    name = options.data if source is None else source
    limit = options.samples if source is None else None
    if os.path.isdir(name):
        return _folder(name, options, inputs, limit)
    if name.endswith((".npz", ".npy")):
        arrays, targets = _read_arrays(name, inputs)
        arrays = keras.tree.map_structure(lambda array: _rescaled(array, options), arrays)
        return _arrays(arrays, targets, options.batch_size, limit, len(inputs))
    if _FUNCTION.fullmatch(name):
        return _from_function(name, options.batch_size, limit, len(inputs))
    raise UsageError(
        "The data cannot be opened.",
        received=name,
        expected="a folder, a file that ends in .npz or .npy, or module:function",
    )


def _folder(name: str, options: argparse.Namespace, inputs: Inputs, limit: int | None) -> Data:
    if len(inputs) != 1 or len(inputs[0][1]) != 4:
        raise UsageError(
            "A folder of images is for a model with one input of images.",
            received=f"a model with inputs {list(inputs)}",
            fix="Give an .npz, or module:function.",
        )
    images = Images(name, inputs[0][1][1:], options.batch_size, limit)

    def rescaled(batch):
        return (_rescaled(batch[0], options), *batch[1:])

    count = -(-min(images.count, limit or images.count) // options.batch_size)
    return Data(
        lambda: map(rescaled, images.batches()),
        lambda: {"x": images.dataset(shuffle=True).map(lambda *batch: rescaled(batch))},
        count,
        limit,
        1,
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
    """Inputs and targets of an `.npz` or `.npy` file."""
    try:
        loaded = np.load(name, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, None
        arrays = {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            "The file of arrays cannot be read.", received=f"{name}: {error}"
        ) from error
    names = [input_name for input_name, _ in inputs]
    targets = arrays.pop("y", None) if "y" not in names else None
    if len(inputs) == 1 and "x" in arrays and names[0] not in arrays:
        return arrays["x"], targets
    missing = [input_name for input_name in names if input_name not in arrays]
    if missing:
        raise UsageError(
            "The file of arrays lacks inputs of the model.",
            received=f"{name} with {sorted(arrays)}",
            expected=f"arrays {names}" + (" or x" if len(names) == 1 else ""),
        )
    return {input_name: arrays[input_name] for input_name in names}, targets


def _arrays(arrays: Any, targets: Any, size: int, limit: int | None, inputs: int) -> Data:
    """Cuts arrays into batches."""
    whole = arrays if targets is None else (arrays, targets)
    leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(whole)]
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
            yield keras.tree.map_structure(lambda a, part=part: np.asarray(a)[part], whole)

    count = -(-min(total, limit or total) // size)
    return Data(batches, lambda: {"x": arrays, "y": targets}, count, limit, inputs)


def _from_function(name: str, size: int, limit: int | None, inputs: int) -> Data:
    function = _imported(name)
    returned = function()
    is_pair = isinstance(returned, tuple) and len(returned) == 2
    arrays, targets = returned if is_pair else (returned, None)
    if isinstance(arrays, np.ndarray | Mapping | tuple):
        return _arrays(arrays, targets, size, limit, inputs)
    if not hasattr(returned, "__iter__"):
        raise UsageError(
            "The function for the data returned what cannot be gone through.",
            received=f"a {type(returned).__name__} from {name}",
            expected="arrays, a pair (inputs, targets), or an iterable of batches",
        )
    # A generator is used up after one pass: each pass has one of its own.
    first = [returned]

    def fresh():
        return first.pop() if first else function()

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
    return Data(lambda: iter(fresh()), fit, count, limit, inputs)


class _Listed(keras.utils.PyDataset):
    """A list of batches, where Keras would take it for a list of inputs."""

    def __init__(self, batches: list[Any]):
        super().__init__()
        self._listed = batches

    def __len__(self):
        return len(self._listed)

    def __getitem__(self, index):
        return self._listed[index]


def _imported(name: str) -> Callable[[], Any]:
    module, _, attributes = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` has it; a console script has not
    try:
        found: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            "The function for the data cannot be imported.",
            received=f"{name}: {error}",
            fix="Run the command where the module is, or install it.",
        ) from error
    if not callable(found):
        raise UsageError(
            "What should give the data is no function.",
            received=f"{name}, a {type(found).__name__}",
        )
    return found
