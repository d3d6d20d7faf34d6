"""Images in a folder, with their class folders as labels, read by TensorFlow."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_qat_cli.errors import UsageError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


class Images:
    """Images of a folder as batches of uint8 pixels, in an order that is mixed but always the same.

    Args:
        folder: A folder of class folders, whose names in alphabetical order are the classes; or of
            images alone, which have no labels.
        shape: Height, width and channels that the model takes.
        batch_size: Size of a batch.
        limit: How many images are used at most; None for all.

    Attributes:
        count: How many images there are.
        classes: Names of the classes.

    Raises:
        UsageError: If there are no images, or the model takes none.
    """

    def __init__(
        self, folder: str, shape: Sequence[int | None], batch_size: int, limit: int | None
    ):
        if None in shape or shape[-1] not in (1, 3, 4):
            raise UsageError(
                "A folder of images is for a model that takes images of one size.",
                received=f"an input of shape {tuple(shape)}",
                expected="height, width, and 1, 3 or 4 channels",
            )
        self._shape, self._batch_size = tuple(shape), batch_size
        root = pathlib.Path(folder)
        self.classes = sorted(path.name for path in root.iterdir() if path.is_dir())
        places = [(root / name, i) for i, name in enumerate(self.classes)] or [(root, 0)]
        found = [
            (str(path), label)
            for place, label in places
            for path in sorted(place.rglob("*"))
            if path.suffix.lower() in SUFFIXES
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
        """Makes a `tf.data.Dataset` of batches (pixels, labels), of pixels alone without classes.

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
            UsageError: If an image cannot be read, naming it.
        """
        import tensorflow as tf

        try:
            yield from self.dataset().as_numpy_iterator()
        except tf.errors.OpError as error:
            raise self.unreadable() or error from error

    def unreadable(self) -> UsageError | None:
        """Looks for the image that cannot be read."""
        import tensorflow as tf

        for path in self._paths:
            try:
                self._read(path)
            except tf.errors.OpError as error:
                return UsageError("An image cannot be read.", received=f"{path}: {error.message}")
        return None

    def _read(self, path: Any) -> Any:
        """The pixels of an image, uint8, in the size that the model takes."""
        import tensorflow as tf

        *size, channels = self._shape
        image = tf.io.decode_image(
            tf.io.read_file(path), channels=channels, expand_animations=False
        )
        resized = tf.image.resize(image, size, antialias=True)
        pixels = tf.saturate_cast(tf.round(resized), "uint8")
        return tf.ensure_shape(pixels, self._shape)
