"""An `.h5` file of Keras 2, which Keras 3 does not load, becomes an int8 file.

`data/digits_keras2.h5` was written by Keras 2 (`data/make_digits_keras2.py`): a small MobileNet
with gates. Its depthwise convolutions have `groups`, its normalizations `axis=[3]`, some of its
layers are calls of TensorFlow's functions, and its gates are Keras 2's hard sigmoid, which has a
different slope in Keras 3. It is loaded, checked, quantized, trained for an epoch and exported.

    python examples/old_keras2_model.py
    python examples/old_keras2_model.py --model FILE.h5 --data FILE.npz    # your classifier

The `.npz` has the arrays of `keras.datasets`: `x_train`, `y_train`, `x_test`, `y_test`.

The first prints, after 20 seconds on two idle cores:

    keras.models.load_model says:
        Unrecognized keyword arguments passed to DepthwiseConv2D: {'groups': 1}
    keras_qat.load_model: digits_of_keras_2, 8,586 parameters
    keras_qat.check: 0 findings
    Accuracy on 450 samples that were not trained on

    | model                   | accuracy |
    |-------------------------|----------|
    | Keras, float            |   0.9711 |
    | Keras, int8, calibrated |   0.9711 |
    | Keras, int8, trained    |   0.9867 |
    | .tflite                 |   0.9867 |


    The float line is the old model: it was not trained again, and no layer was rewritten by
    hand. The next line is in integers after calibration, the third after training with
    quantization. Keras and the file are equal.

    Integers that differ: 0 of 6,405,120
    The file: build/old_keras2/digits_keras2_int8.tflite, 21.7 kB
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import zipfile

import keras
import numpy as np
from report import console, print_table, prove
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_qat

BUNDLED = pathlib.Path(__file__).parent / "data" / "digits_keras2.h5"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
CALIBRATION = 500
VERIFICATION = 256

WHAT_TO_LOOK_AT = """
The float line is the old model: it was not trained again, and no layer was rewritten by
hand. The next line is in integers after calibration, the third after training with
quantization. Keras and the file are equal.
"""


def load_data(path: pathlib.Path | None):
    """Returns arrays and labels for training and test: the digits, or those of an `.npz` file."""
    if path is not None:
        try:
            with np.load(path) as file:
                x, y, x_test, y_test = (file[name] for name in ARRAYS)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            sys.exit(f"{path} cannot be read as an .npz with {', '.join(ARRAYS)}: {error}")
        return (x, y), (x_test, y_test)
    digits = load_digits()
    # The model was trained on 16x16 values from 0 to 1.
    images = np.float32(digits.images / 16)[..., None].repeat(2, axis=1).repeat(2, axis=2)
    x, x_test, y, y_test = train_test_split(images, digits.target, test_size=0.25, random_state=0)
    return (x, y), (x_test, y_test)


def what_keras_says(path: pathlib.Path) -> str:
    """Returns the last line of the error of `keras.models.load_model` for a file."""
    try:
        keras.models.load_model(path)
    except Exception as error:  # Keras has no type for this error
        return str(error).strip().splitlines()[-1].removeprefix("Exception encountered: ")
    return "nothing, it loads the file"


def load_classifier(path: pathlib.Path) -> keras.Model:
    """Loads the model. Ends the example if it is not a classifier."""
    try:
        model = keras_qat.load_model(path)
    except keras_qat.errors.KerasQatError as error:
        sys.exit(str(error))
    if len(model.outputs) != 1 or model.output_shape[-1] == 1:
        sys.exit(f"{path} has to have one output, with a score for each class.")
    return model


def accuracy(model: keras.Model | keras_qat.LiteRTModel, test) -> float:
    """Returns the share of data that a Keras model or a file classifies correctly."""
    x, y = test
    labels = y.reshape(-1) if y.size == len(y) else np.argmax(y, axis=-1)
    predicted = np.argmax(model.predict(x, batch_size=256, verbose=0), axis=-1)
    return float(np.mean(predicted == labels))


def main() -> None:
    """Loads, checks, quantizes, trains, exports, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, help="an .h5 file of Keras 1, 2 or 3")
    parser.add_argument("--data", type=pathlib.Path, help="an .npz file for it")
    parser.add_argument("--epochs", type=int, default=1, help="of training with quantization")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/old_keras2"))
    args = parser.parse_args()
    if (args.model is None) != (args.data is None):
        parser.error("--model and --data go together.")
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    source = args.model or BUNDLED
    training, test = load_data(args.data)

    console.print("keras.models.load_model says:")
    console.print(f"    {what_keras_says(source)}", soft_wrap=True)
    model = load_classifier(source)
    console.print(f"keras_qat.load_model: {model.name}, {model.count_params():,} parameters")
    found = keras_qat.check(model, calibration_data=training[0][:CALIBRATION])
    console.print(f"keras_qat.check: {len(found.findings)} findings")
    for finding in found.findings:
        console.print(f"    {finding.level}: {finding.code}")
    rows = [("Keras, float", accuracy(model, test))]

    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, training[0][:CALIBRATION], verbose=0)
    rows.append(("Keras, int8, calibrated", accuracy(qat, test)))
    loss = model.loss if model.compiled else "sparse_categorical_crossentropy"
    qat.compile(keras.optimizers.Adam(1e-4), loss)
    qat.fit(*training, batch_size=32, epochs=args.epochs, verbose=0)
    rows.append(("Keras, int8, trained", accuracy(qat, test)))

    path = args.output / f"{source.stem}_int8.tflite"
    keras_qat.export_litert(qat, path)
    rows.append((".tflite", accuracy(keras_qat.LiteRTModel(path), test)))
    title = f"Accuracy on {len(test[1])} samples that were not trained on"
    print_table(title, ("model", "accuracy"), rows)
    console.print(WHAT_TO_LOOK_AT)
    prove(qat, path, test[0][:VERIFICATION])


if __name__ == "__main__":
    main()
