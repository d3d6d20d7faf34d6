"""Prints the results of `accuracy.py`, and writes their page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FLOAT = "float, trained"
HEADINGS = (
    "arm",
    "seeds",
    "accuracy, %",
    "points to float",
    "KiB",
    "gzip, KiB",
    "float tensors",
    "differ",
)
# The largest number of points that an arm may lose, by network. None stands for all others.
GOALS: dict[str, dict[str | None, float]] = {
    "int8, trained": {None: 0.1},
    "int8_per_tensor, trained": {None: 0.3},
    "uint8, trained": {None: 0.3},
    "int4, trained": {"resnet8": 0.5, "mobilenet": 1.0},
    "60 % of the weights, trained": {None: 0.3},
}
AI_EDGE = "ai-edge-quantizer, "
# Arms of ours, each with the arms of the peers that have its width and its training.
PEERS = {
    "int8, calibrated": (
        "converter, int8",
        *(f"{AI_EDGE}w8a8 {name}" for name in ("min/max", "MSE", "GPTQ")),
    ),
    "int4, all methods": tuple(f"{AI_EDGE}w4a8 {name}" for name in ("min/max", "MSE", "GPTQ")),
    "int8, trained": ("TFMOT, int8, trained",),
}
# The quality target of MLPerf Tiny's image classification, in percent of CIFAR-10.
QUALITY, QUALITY_NET = 85.0, "resnet8"
HEADER = """# Accuracy

`python benchmarks/accuracy.py` measures this page and writes it with `--markdown`. Do not edit it.

Each arm makes an integer file from the same float weights. Trained arms see the same batches for
{epochs} epochs of CIFAR-10's images, with a rate that falls to 0 by a cosine. A seed gives the
order of the images, and chooses 512 of them for calibration. The accuracy is that of the *file*, on
LiteRT's default kernels, on 10,000 images that no training sees.

- *points to float*: the mean of the paired differences to the float network that is trained alike,
  and its standard error.
- *float tensors*: tensors of the file that are not integers: a file with one is not fully integer.
- *differ*: the outputs, of 100,000 for each seed, that differ between Keras and the file.

The networks:

- `resnet8`: MLPerf Tiny's pretrained ResNet-8.
- `mobilenet`: a small MobileNetV2, with depthwise layers and ReLU6.
- `efficientnet`: a small EfficientNet, with swish, squeeze and excite.

Networks, arms and seeds without a row have not been measured. One seed has no standard error: a
difference of half a point means little. These images are recompressed,
and the pretrained ResNet-8 gains 8 points when it is trained in float.

*60 % of the weights* has mixed widths, chosen for 60 % of the bytes of the int8 file's constants.
Half of them cannot be reached with weights of 4 bits, since biases keep 32 bits.
"""


def accuracies(rows: Mapping[str, Any]) -> dict[str, float]:
    """Returns the accuracy of each seed that has one."""
    return {seed: row["accuracy"] for seed, row in rows.items() if "accuracy" in row}


def differences(net: Mapping[str, Any], arm: str, base_arm: str = FLOAT) -> np.ndarray:
    """Returns the points from one arm to another, for seeds that have both."""
    ours, base = accuracies(net[arm]), accuracies(net.get(base_arm, {}))
    return np.array([ours[seed] - base[seed] for seed in ours if seed in base])


def mean_and_error(values: Sequence[float] | np.ndarray, sign: str = "") -> str:
    """Returns a mean, and its standard error if there are several values."""
    if not len(values):
        return ""
    text = f"{np.mean(values):{sign}.2f}"
    if len(values) == 1:
        return text
    return f"{text} ± {np.std(values, ddof=1) / len(values) ** 0.5:.2f}"


def cells(net: Mapping[str, Any], arm: str) -> tuple[Any, ...]:
    """Returns a row of the table of a network."""
    rows = list(net[arm].values())
    made = [row for row in rows if "accuracy" in row]
    if not made:
        return (arm, len(rows), f"refused: {rows[0]['failed']}", "", "", "", "", "")
    sizes = [
        f"{np.mean([row[key] for row in made]) / 1024:.1f}" if key in made[0] else ""
        for key in ("bytes", "gzip_bytes")
    ]
    unequal = [row["different_outputs"] for row in made if "different_outputs" in row]
    return (
        arm,
        len(made),
        mean_and_error([row["accuracy"] for row in made]),
        mean_and_error(differences(net, arm), "+"),
        *sizes,
        made[0].get("float_tensors", ""),
        sum(unequal) if unequal else "",
    )


def tables(results: Mapping[str, Any]) -> dict[str, list[tuple[Any, ...]]]:
    return {name: [cells(net, arm) for arm in net] for name, net in results.items()}


def goals(results: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each goal that was measured."""
    texts = []
    for name, net in results.items():
        for arm, limits in GOALS.items():
            limit = limits.get(name, limits.get(None))
            if limit is None or arm not in net:
                continue
            points = differences(net, arm)
            if len(points):
                reached = "reached" if round(np.mean(points), 2) >= -limit else "**not reached**"
                texts.append(
                    f"{name}, {arm}: at most {limit} points below float: {reached}, "
                    f"{mean_and_error(points, '+')} (seeds: {len(points)})"
                )
    return texts


def comparisons(results: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each arm of ours and peer that were both measured."""
    texts = []
    for name, net in results.items():
        for arm, peers in PEERS.items():
            for peer in peers if arm in net else ():
                points = differences(net, arm, peer)
                if len(points):
                    where = "" if round(np.mean(points), 2) > 0 else ", **not above it**"
                    mean = mean_and_error(points, "+")
                    seeds = f"(seeds: {len(points)})"
                    texts.append(f"{name}, {arm}: {mean} points to {peer}{where} {seeds}")
    return texts


def smallest(results: Mapping[str, Any]) -> str:
    """Returns a sentence about the smallest file that reaches MLPerf Tiny's quality target."""
    found = []
    for arm, rows in results.get(QUALITY_NET, {}).items():
        files = [row for row in rows.values() if row.get("float_tensors") == 0]
        if files and np.mean([row["accuracy"] for row in files]) >= QUALITY:
            found.append((files[0]["bytes"], files[0]["gzip_bytes"], arm))
    if not found:
        return ""
    size, compressed, arm = min(found)
    return (
        f"MLPerf Tiny asks for {QUALITY:g} % of {QUALITY_NET}. The smallest fully integer file "
        f"above that is of the arm *{arm}*: {size / 1024:.1f} KiB, {compressed / 1024:.1f} KiB "
        "after gzip. The page on [bits](bits.md#how-the-file-stores-narrow-weights) has the flash "
        "that each scheme needs on an Ethos-U.\n"
    )


def write_page(
    path: Path, results: Mapping[str, Any], environment: Mapping[str, Any], epochs: int
) -> None:
    """Writes the page of the documentation."""
    parts = [HEADER.format(epochs=epochs)]
    for name, rows in tables(results).items():
        lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *rows]
        parts.append(f"## {name}\n")
        parts.append("\n".join(f"| {' | '.join(map(str, row))} |" for row in lines) + "\n")
    for title, texts in (("Goals", goals(results)), ("Beside the peers", comparisons(results))):
        parts.append(f"## {title}\n\n" + "\n".join(f"- {text}" for text in texts) + "\n")
    parts.append(smallest(results))
    parts.append(", ".join(f"{key} {value}" for key, value in environment.items()) + "\n")
    path.write_text("\n".join(parts))
