"""Quantization-aware training on several devices of one machine, with `MirroredStrategy`.

    python examples/several_devices.py

It takes all GPUs. Without GPUs it takes two virtual CPUs, which shows how it works, but saves no
time. Everything else is a usual training: make the model in the scope of the strategy. An
interrupted run continues from its last epoch when it is started again, by `BackupAndRestore`.

On several machines use JAX or PyTorch: `jax_processes.py`, `pytorch_processes.py`.
"""

from __future__ import annotations

import argparse
import pathlib

import keras
import small_network
import tensorflow as tf

import keras_qat


def devices() -> list[str]:
    """Returns the names of all GPUs, or of two virtual CPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return [f"GPU:{i}" for i in range(len(gpus))]
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return ["CPU:0", "CPU:1"]


def main() -> None:
    """Trains, exports and evaluates the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/devices"))
    args = parser.parse_args()
    strategy = tf.distribute.MirroredStrategy(devices())
    (x, y), _ = small_network.data()
    with strategy.scope():
        model = keras_qat.quantize_model(small_network.float_network(), calibration_data=x[:200])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss)
    backup = keras.callbacks.BackupAndRestore(args.output / "backup")
    model.fit(x, y, small_network.BATCH, args.epochs, verbose=0, callbacks=[backup])
    path = small_network.export(model, args.output)
    print(f"{strategy.num_replicas_in_sync} devices, {path}", end=": ")
    print(f"accuracy {small_network.accuracy_of(path):.3f}")


if __name__ == "__main__":
    main()
