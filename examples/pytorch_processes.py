"""Quantization-aware training in several processes with PyTorch's `DistributedDataParallel`.

Two processes on one machine:

    KERAS_BACKEND=torch python -m torch.distributed.run --nproc-per-node 2 \\
        examples/pytorch_processes.py

On several machines, start this on each with `--nnodes` and `--rdzv-endpoint HOST:PORT`, as any
program of PyTorch. Each process trains on its own part of the data. All write the same file.
"""

from __future__ import annotations

import argparse
import pathlib

import small_network
import torch
from torch.utils import data

import keras_qat


def main() -> None:
    """Trains, exports and evaluates the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/pytorch"))
    args = parser.parse_args()
    torch.distributed.init_process_group("gloo")  # "nccl" for GPUs
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    x, y = map(torch.tensor, small_network.data()[0])
    # Calibrate before the model is wrapped, with the same samples in each process.
    model = keras_qat.quantize_model(small_network.float_network(), calibration_data=x[:200])
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    sampler = data.distributed.DistributedSampler(range(len(y)), seed=0)
    batches = data.DataLoader(
        data.TensorDataset(x, y), small_network.BATCH // count, sampler=sampler
    )
    optimizer = torch.optim.Adam(wrapped.parameters(), lr=3e-3)
    model.train()
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for images, labels in batches:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(wrapped(images), labels).backward()
            optimizer.step()
    model.eval()
    path = small_network.export(model, args.output, rank)
    print(f"process {rank} of {count}, {path}: accuracy {small_network.accuracy_of(path):.3f}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
