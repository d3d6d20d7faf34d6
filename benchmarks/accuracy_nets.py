"""The networks, the images and the training loop of `accuracy.py`, for Keras 3 and for Keras 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DATA_FILE = "cifar10_train_jpeg.npz"
VALIDATION, BATCH, CLASSES = 10_000, 128, 10
# Peak learning rates of SGD with a momentum of 0.9.
FLOAT_RATE, TUNING_RATE = 0.05, 0.01
# Width, repetitions and stride of each stage of inverted residuals.
STAGES = ((16, 1, 1), (24, 2, 2), (40, 2, 2), (64, 2, 1))
EXPANSION, SQUEEZE = 4, 4


def mobile_net(keras: Any) -> Any:
    """Makes a small MobileNetV2 for images of 32x32: depthwise layers, ReLU6."""
    return _inverted_residuals(keras, "relu6", is_squeezed=False)


def efficient_net(keras: Any) -> Any:
    """Makes a small EfficientNet for images of 32x32: swish, squeeze and excite."""
    return _inverted_residuals(keras, "swish", is_squeezed=True)


NETS: dict[str, Callable[[Any], Any]] = {"mobilenet": mobile_net, "efficientnet": efficient_net}


def _inverted_residuals(keras: Any, activation: str, *, is_squeezed: bool) -> Any:
    layers = keras.layers

    def normalized(x: Any, convolution: Any, *, is_active: bool = True) -> Any:
        x = layers.BatchNormalization()(convolution(x))
        if not is_active:
            return x
        return layers.ReLU(6.0)(x) if activation == "relu6" else layers.Activation(activation)(x)

    def pointwise(x: Any, width: int, **kwargs: Any) -> Any:
        return normalized(x, layers.Conv2D(width, 1, use_bias=False), **kwargs)

    def squeezed(x: Any, width: int) -> Any:
        y = layers.GlobalAveragePooling2D(keepdims=True)(x)
        y = layers.Conv2D(width // SQUEEZE, 1, activation=activation)(y)
        return layers.Multiply()([x, layers.Conv2D(width, 1, activation="sigmoid")(y)])

    def block(x: Any, width: int, stride: int, expansion: int) -> Any:
        wide = x.shape[-1] * expansion
        y = pointwise(x, wide) if expansion > 1 else x
        y = normalized(y, layers.DepthwiseConv2D(3, stride, "same", use_bias=False))
        y = squeezed(y, wide) if is_squeezed else y
        y = pointwise(y, width, is_active=False)
        return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == width else y

    image = keras.Input((32, 32, 3))
    x = normalized(image, layers.Conv2D(16, 3, 2, "same", use_bias=False))
    for stage, (width, count, stride) in enumerate(STAGES):
        for place in range(count):
            x = block(x, width, 1 if place else stride, EXPANSION if stage else 1)
    x = layers.GlobalAveragePooling2D()(pointwise(x, 128))
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax")(x))


def write_images(folder: Path, path: Path, limit: int | None) -> None:
    """Decodes CIFAR-10 to uint8 arrays `x`, `y`, `val_x`, `val_y`: the last images validate."""
    import tensorflow as tf

    with np.load(folder / DATA_FILE) as data:
        files, offsets, labels = data["jpeg"].tobytes(), data["offsets"], data["labels"]
    decoded = [
        tf.io.decode_jpeg(files[start:end], 3, dct_method="INTEGER_ACCURATE").numpy()
        for start, end in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    images, labels = np.stack(decoded), labels.astype("int32")
    x, y = images[:-VALIDATION][:limit], labels[:-VALIDATION][:limit]
    np.savez(path, x=x, y=y, val_x=images[-VALIDATION:], val_y=labels[-VALIDATION:])


def batches(data: Any, epochs: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields shuffled batches, mirrored and moved by up to 4 pixels, the same for each model."""
    x, y = data["x"], data["y"]
    for epoch in range(epochs):
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(y))
        for start in range(0, len(y) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield _moved(x[chosen], rng).astype("float32"), y[chosen]


def _moved(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    rows, columns = rng.integers(0, 9, (2, len(images), 1)) + np.arange(32)[None, None]
    mirrored = rng.random(len(images)) < 0.5
    columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
    return padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def fit(
    keras: Any,
    model: Any,
    data: Any,
    epochs: int,
    seed: int,
    rate: float,
    callbacks: tuple[Any, ...] = (),
) -> Any:
    """Trains a model by SGD, with a rate that falls to 0 by a cosine."""
    keras.utils.set_random_seed(seed)
    steps = len(data["y"]) // BATCH
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps * epochs)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9)
    # Both run without XLA, which Keras 2 uses only on request.
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(
        batches(data, epochs, seed),
        steps_per_epoch=steps,
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=0,
    )
    return model


def percent(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the accuracy in percent."""
    return 100.0 * float(np.mean(np.argmax(outputs, -1) == labels))
