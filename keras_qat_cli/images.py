"""Images in class folders, with the folders as labels. TensorFlow reads them."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_qat_cli.errors import UsageError, said_by

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_LUMA = (0.299, 0.587, 0.114)
_PNG = b"\x89PNG"


class Images:
    """Images of a folder as batches of uint8 pixels, in a shuffled but fixed order.

    Args:
        folder: A folder of class folders, whose names in alphabetical order are the classes; or a
            folder of images, which have no labels.
        shape: Height, width and channels that the model takes.
        batch_size: Size of a batch.
        limit: The largest number of images to use. None for all.

    Attributes:
        count: The number of images.
        classes: Names of the classes.

    Raises:
        UsageError: If there are no images, or the model does not take images.
    """

    def __init__(
        self, folder: str, shape: Sequence[int | None], batch_size: int, limit: int | None
    ):
        if None in shape or shape[-1] not in (1, 3, 4):
            raise UsageError(
                "A folder of images needs a model that takes images of a fixed size.",
                received=f"an input of shape {tuple(shape)}",
                expected="height, width, and 1, 3 or 4 channels",
            )
        self._size, self._channels = shape[:-1], int(shape[-1])
        self._batch_size = batch_size
        root = pathlib.Path(folder)
        folders = (path.name for path in root.iterdir() if path.is_dir())
        # Names with a leading dot belong to tools: .ipynb_checkpoints, or ._1.png for 1.png.
        self.classes = sorted(name for name in folders if not name.startswith("."))
        places = [(root / name, i) for i, name in enumerate(self.classes)] or [(root, 0)]
        found = [
            (str(path), label)
            for place, label in places
            for path in sorted(place.rglob("*"))
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        ]
        if not found:
            raise UsageError(
                "There are no images in the folder.",
                received=folder,
                expected=f"files that end in {', '.join(SUFFIXES)}, in a folder for each class",
            )
        order = np.random.default_rng(0).permutation(len(found))[:limit]
        self._paths = [found[i][0] for i in order]
        self._labels = np.array([found[i][1] for i in order])
        self.count = len(self._paths)

    def dataset(self, shuffle: bool = False) -> Any:
        """Returns a `tf.data.Dataset` of batches (pixels, labels), or of pixels without classes.

        Args:
            shuffle: Whether each pass has another order.

        Returns:
            The dataset.
        """
        import tensorflow as tf

        items = (self._paths, self._labels) if self.classes else (self._paths,)
        dataset = tf.data.Dataset.from_tensor_slices(items)
        if shuffle:
            dataset = dataset.shuffle(self.count)

        def read(path, *label):
            return (self._read(path), *label)

        dataset = dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.batch(self._batch_size).prefetch(tf.data.AUTOTUNE)

    def batches(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields the batches as arrays.

        Raises:
            UsageError: If an image cannot be read. The message names it.
        """
        import tensorflow as tf

        try:
            yield from self.dataset().as_numpy_iterator()
        except tf.errors.OpError as error:
            raise self.unreadable() or error from error

    def unreadable(self) -> UsageError | None:
        """Finds an image that cannot be read. Returns the error, or None."""
        import tensorflow as tf

        for path in self._paths:
            try:
                self._read(path)
            except tf.errors.OpError as error:
                return UsageError("An image cannot be read.", received=f"{path}: {said_by(error)}")
        return None

    def _read(self, path: Any) -> Any:
        """Reads the uint8 pixels of an image, resized for the model."""
        import tensorflow as tf

        image = _decoded(tf.io.read_file(path), self._channels)
        resized = tf.image.resize(image, self._size, antialias=True)
        pixels = tf.saturate_cast(tf.round(resized), "uint8")
        return tf.ensure_shape(pixels, (*self._size, self._channels))


def _decoded(content: Any, channels: int) -> Any:
    """Decodes an image. TensorFlow can always make grey or transparent pixels of PNG only."""
    import tensorflow as tf

    def of_channels(number):
        return tf.io.decode_image(content, channels=number, expand_animations=False)

    def converted():
        colours = of_channels(3)
        if channels == 4:
            return tf.concat([colours, tf.ones_like(colours[..., :1]) * 255], -1)
        grey = tf.tensordot(tf.cast(colours, "float32"), tf.constant(_LUMA), 1)  # as libjpeg has it
        return tf.saturate_cast(tf.round(grey), "uint8")[..., None]

    if channels == 3:
        return of_channels(3)
    is_png = tf.strings.substr(content, 0, len(_PNG)) == _PNG
    return tf.cond(is_png, lambda: of_channels(channels), converted)
