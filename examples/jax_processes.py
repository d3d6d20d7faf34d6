"""Quantization-aware training in several processes with JAX, on one machine or on several.

Two processes on one machine:

    export KERAS_BACKEND=jax
    python examples/jax_processes.py --rank 0 & python examples/jax_processes.py --rank 1

On several machines, start a process on each, with `--address HOST:PORT` of the first one. All
processes get the same global batches, of which Keras gives each its part, and write the same file.
"""

from __future__ import annotations

import argparse
import pathlib

import keras
import small_network

import keras_qat


def batches():
    """Returns the global batches, in the same order in each process."""
    import tensorflow as tf

    pairs = tf.data.Dataset.from_tensor_slices(small_network.data()[0])
    return pairs.shuffle(small_network.SAMPLES, seed=0).batch(small_network.BATCH)


def main() -> None:
    """Trains, exports and evaluates the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, required=True, help="number of this process, from 0")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--address", default="127.0.0.1:12355", help="of the process of rank 0")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/jax"))
    args = parser.parse_args()
    # Before anything else uses JAX.
    keras.distribution.initialize(args.address, args.processes, args.rank)
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    model = keras_qat.quantize_model(small_network.float_network())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(batches(), epochs=args.epochs, verbose=0)  # the first steps set the ranges
    path = small_network.export(model, args.output, args.rank)
    print(f"process {args.rank} of {args.processes}, {path}", end=": ")
    print(f"accuracy {small_network.accuracy_of(path):.3f}")


if __name__ == "__main__":
    main()
