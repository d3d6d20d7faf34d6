"""Quantizes a model: rewrites it, calibrates it, and trains it if there is training data."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import pathlib
import tempfile
from typing import Any

from keras_qat_cli.arguments import (
    DATA_HELP,
    add_conversion,
    add_data,
    add_range_rules,
    conversion_options,
    count,
    number,
    range_options,
)
from keras_qat_cli.budget import add_budget, budget_of
from keras_qat_cli.console import Outcome, is_terminal, say, tracked
from keras_qat_cli.errors import UsageError, said_by
from keras_qat_cli.pictures import picture_path, save_picture

HELP = "quantize a model: calibrate it and, with --train-data, train it"
# Losses with the argument `from_logits`.
_OF_LOGITS = {
    "binary_crossentropy": "BinaryCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("model", help="a float model that Keras saved: .keras or .h5")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .keras file")
    add_data(parser, "for calibration", required=True, samples=512)
    add_conversion(parser)
    add_range_rules(parser)
    parser.add_argument(
        "--method",
        nargs="+",
        default=[],
        metavar="NAME",
        help="methods that change the weights at calibration: equalize, adaround, bias_correction",
    )
    add_budget(parser)
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--train-data", metavar="DATA", help=f"inputs and targets: {DATA_HELP}")
    group.add_argument("--validation-data", metavar="DATA", help="likewise, after each epoch")
    group.add_argument("--epochs", type=count, default=1, metavar="N", help="(default: 1)")
    group.add_argument(
        "--learning-rate", type=number, default=1e-4, metavar="R", help="of Adam (default: 1e-4)"
    )
    group.add_argument(
        "--loss", help="name of a Keras loss (default: the one that the model was compiled with)"
    )
    group.add_argument(
        "--from-logits", action="store_true", help="the outputs are logits, not probabilities"
    )
    group.add_argument(
        "--metrics", nargs="*", default=["accuracy"], metavar="NAME", help="(default: accuracy)"
    )
    group.add_argument(
        "--quant-delay",
        type=count,
        default=0,
        metavar="N",
        help="train in float for the first N batches",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")


def run(options: argparse.Namespace) -> Outcome:
    """Runs the command."""
    import keras

    import keras_qat
    from keras_qat_cli.data import open_data
    from keras_qat_cli.models import inputs_of_keras, load_keras

    output, picture = _checked_output(options.output), picture_path(options.budget_plot)
    if options.validation_data and not options.train_data:
        raise UsageError("There is no training to validate.", fix="Give --train-data too.")
    keras.utils.set_random_seed(options.seed)
    model = load_keras(options.model)
    inputs = inputs_of_keras(model)
    data = open_data(options, inputs)
    loss = _loss(options, model) if options.train_data else None
    quantized = _quantized(model, data, options)
    plan = quantized.budget_plan
    keras_qat.calibrate(
        quantized, tracked(data, "calibrate", data.count), method=options.method, verbose=0
    )
    history = _train(quantized, options, inputs, loss) if options.train_data else {}
    _save(quantized, output)
    if picture is not None:
        save_picture(plan.plot(), picture)
    last = {name: values[-1] for name, values in history.items()}
    lines = [
        *map(str, quantized.rewrite_log),
        *([] if plan is None else [str(plan)]),
        f"Wrote {output}: {len(quantized.layers)} layers in {options.scheme}.",
        *(f"{name}: {value:.4f}" for name, value in last.items()),
    ]
    found = {
        "file": str(output),
        "scheme": options.scheme,
        "rewrites": list(map(str, quantized.rewrite_log)),
        "history": history,
        "budget_plan": plan and plan.to_dict(),
    }
    return Outcome("\n".join(lines), found)


def _quantized(model: Any, data: Any, options: argparse.Namespace) -> Any:
    """Quantizes the model, within a budget if there is one."""
    import keras_qat

    budget = budget_of(options)
    if budget is not None:
        say(f"budget: measures the layers of {options.model} on {options.data}")
    return keras_qat.quantize_model(
        model,
        quant_delay=options.quant_delay,
        budget=budget,
        calibration_data=None if budget is None else data,
        **conversion_options(options),
        **range_options(options),
    )


def _checked_output(name: str) -> pathlib.Path:
    """Raises, before any work, if the output cannot be written."""
    path = pathlib.Path(name)
    if path.suffix != ".keras" or not path.parent.is_dir() or path.is_dir():
        raise UsageError(
            "The quantized model cannot be saved there.",
            received=name,
            expected="a file that ends in .keras, in a folder that exists",
        )
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UsageError(
            f"The quantized model cannot be saved there: {error.strerror}.", received=name
        ) from error
    return path


def _loss(options: argparse.Namespace, model: Any) -> Any:
    """Returns the loss of `--loss`, else the model's own loss."""
    import keras

    if options.loss is None and options.from_logits:
        raise UsageError(
            "--from-logits needs --loss.",
            fix="Name one, or leave it out: the model's own loss is taken as it was compiled.",
        )
    if options.loss is None:
        own = getattr(model, "loss", None)
        if own is None:
            raise UsageError(
                "The model was saved without a loss.",
                fix="Name one, such as --loss sparse_categorical_crossentropy.",
            )
        return own
    if options.from_logits:
        if options.loss not in _OF_LOGITS:
            raise UsageError(
                "This loss takes no logits.",
                received=f"--loss {options.loss} --from-logits",
                expected=f"one of {sorted(_OF_LOGITS)}",
            )
        return getattr(keras.losses, _OF_LOGITS[options.loss])(from_logits=True)
    try:
        return keras.losses.get(options.loss)
    except ValueError as error:
        raise UsageError("There is no such loss.", received=f"--loss {options.loss}") from error


def _train(model: Any, options: argparse.Namespace, inputs: Any, loss: Any) -> dict[str, Any]:
    """Trains the model. Returns the metrics of each epoch."""
    import keras
    import numpy as np

    from keras_qat.data.batches import batches
    from keras_qat_cli.data import batch_size, open_data

    train = open_data(options, inputs, options.train_data)
    given = {**train.fit(), "epochs": options.epochs, "verbose": 1 if is_terminal() else 2}
    if options.validation_data:
        validation = open_data(options, inputs, options.validation_data).fit()
        pair = validation["x"], validation.get("y")
        given["validation_data"] = pair if pair[1] is not None else pair[0]
    if hasattr(given["x"], "shape") or isinstance(given["x"], dict | tuple):
        given["batch_size"] = batch_size(options, inputs)
    else:
        given["shuffle"] = False  # Keras warns that it cannot: that is up to the data
    for batch, targets in train.pairs():
        list(batches([batch], model))  # a typed error if it does not fit
        if targets is None:
            raise UsageError("The data to train on has no targets.", received=options.train_data)
        break
    model.compile(keras.optimizers.Adam(options.learning_rate), loss, metrics=options.metrics)
    say(f"train: {options.epochs} epochs on {options.train_data}")
    try:
        history = model.fit(**given).history
    except Exception as error:  # Keras and its backends have no type of their own for this
        raise UsageError(
            "Keras cannot train on this data, with this loss and these metrics.",
            received=f"{options.train_data}: {said_by(error)}",
        ) from error
    # A loss can be finite when weights are not, because rounding turns NaN into a number.
    has_nan = any(np.isnan(variable).any() for variable in map(np.asarray, model.variables))
    if has_nan or not all(map(math.isfinite, history["loss"])):
        raise UsageError(
            "The training diverged: the loss or weights are not finite numbers.",
            received=f"losses by epoch {history['loss']}",
            fix="Look for NaN in inputs and targets, or lower --learning-rate.",
        )
    return history


def _save(model: Any, path: pathlib.Path) -> None:
    """Saves a model to a temporary file, and renames the file when it is complete."""
    handle, name = tempfile.mkstemp(".keras", prefix=f".{path.stem}-", dir=path.parent)
    os.close(handle)
    try:
        model.save(name)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
