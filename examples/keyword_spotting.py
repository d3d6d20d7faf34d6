"""Keyword spotting: log-mel features, 1D convolutions, an int8 file.

Clips of one second become a spectrogram on the mel scale, in decibels, of shape (time, mels). A
network of `Conv1D` and `SeparableConv1D` classifies the word. Its `Normalization` is a part of the
model, and is folded into the first convolution: the file takes decibels. The default words are
generated: melodies of a voice, with different pitch, length, position and noise in each clip.

    python examples/keyword_spotting.py                          # generated words, offline
    python examples/keyword_spotting.py --wavs speech_commands   # a folder of wav files per word

The second takes 16-bit mono wav files of 16 kHz, in the folders of Google's Speech Commands. The
files in `testing_list.txt` are the test. Without that file, one clip in five is for the test.

The first prints, after half a minute of processor time:

    Float: 480 steps
    Quantized: 120 steps
    640 clips that were not trained on, 8 words

    | model                   | accuracy |
    |-------------------------|----------|
    | Keras, float            |   0.9719 |
    | Keras, int8, calibrated |   0.9750 |
    | Keras, int8, trained    |   0.9703 |
    | .tflite                 |   0.9703 |


    The difference between "float" and "int8, calibrated" is the cost of 8 bits. The trained
    model had two more epochs, so its accuracy may be above float. The last line of Keras and
    that of the file are equal.

    Integers that differ: 0 of 9,375,744
    The file: build/keywords/keywords_int8.tflite, 30.5 kB
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import wave

import keras
import numpy as np
from keras import layers
from report import console, positive, print_table, prove
from sklearn.model_selection import train_test_split

import keras_qat

RATE = 16_000  # samples per second, and per clip

# The pitch of each generated word over its length, in octaves above its start.
MELODIES = {
    "flat": (0.0, 0.0),
    "rise": (0.0, 0.6),
    "fall": (0.6, 0.0),
    "hill": (0.0, 0.6, 0.0),
    "valley": (0.6, 0.0, 0.6),
    "step up": (0.0, 0.0, 0.0, 0.6, 0.6, 0.6),
    "step down": (0.6, 0.6, 0.6, 0.0, 0.0, 0.0),
}
NO_WORD = "noise"

WHAT_TO_LOOK_AT = """
The difference between "float" and "int8, calibrated" is the cost of 8 bits. The trained
model had two more epochs, so its accuracy may be above float. The last line of Keras and
that of the file are equal.
"""


def generate_clip(word: str, random: np.random.Generator) -> np.ndarray:
    """Returns one second of noise with the melody of a word, as int16 samples."""
    clip = random.normal(size=RATE) * random.uniform(0.02, 0.2)
    if word != NO_WORD:
        length = int(RATE * random.uniform(0.4, 0.8))
        points = np.linspace(0, length, len(MELODIES[word]))
        octaves = np.interp(np.arange(length), points, MELODIES[word])
        pitch = random.uniform(200, 600) * 2**octaves  # in Hz
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        overtones = random.uniform(0.2, 1, size=4) / np.arange(1, 5)
        voice = sum(a * np.sin(k * phase) for k, a in enumerate(overtones, start=1))
        start, volume = random.integers(RATE - length), random.uniform(0.1, 0.4)
        clip[start : start + length] += volume * np.hanning(length) ** 0.5 * voice
    return np.clip(clip * 8000, -32768, 32767).astype("int16")


def generated_words(clips: int = 320):
    """Returns training and test data, each (features, labels), and the words."""
    random = np.random.default_rng(0)
    words = [*MELODIES, NO_WORD]
    labels = np.repeat(np.arange(len(words)), clips)
    x = features([generate_clip(words[label], random) for label in labels])
    x, x_test, y, y_test = train_test_split(x, labels, test_size=0.25, random_state=0)
    return (x, y), (x_test, y_test), words


def read_wav(path: pathlib.Path) -> np.ndarray:
    """Returns the first second of a wav file as int16 samples. A shorter file ends in silence."""
    try:
        with wave.open(str(path)) as file:
            kind = (file.getframerate(), file.getsampwidth(), file.getnchannels())
            samples = np.frombuffer(file.readframes(RATE), "<i2" if kind[1] == 2 else "u1")
    except (wave.Error, EOFError, OSError, ValueError) as error:
        sys.exit(f"{path} cannot be read as a wav file ({error}).")
    if kind != (RATE, 2, 1):
        sys.exit(
            f"{path} has {kind[0]} Hz, {8 * kind[1]} bits and {kind[2]} channel(s); "
            f"{RATE} Hz, 16 bits and 1 channel are needed."
        )
    return np.pad(samples, (0, RATE - len(samples)))


def recorded_words(folder: pathlib.Path):
    """Returns data from wav files. Each folder that does not begin with `_` or `.` is a word."""
    paths = [path for path in sorted(folder.glob("*/*.wav")) if path.parent.name[0] not in "_."]
    words = sorted({path.parent.name for path in paths})
    if len(words) < 2:
        sys.exit(f"{folder} must have a folder of wav files for each of at least 2 words.")
    labels = np.array([words.index(path.parent.name) for path in paths])
    x = features(map(read_wav, paths))
    testing = folder / "testing_list.txt"
    if testing.is_file():
        named = set(testing.read_text().split())
        is_test = np.array([f"{path.parent.name}/{path.name}" in named for path in paths])
    else:
        is_test = np.arange(len(paths)) % 5 == 0
    if is_test.all() or not is_test.any():
        sys.exit(f"{folder} must have clips to train on and clips to test on.")
    return (x[~is_test], labels[~is_test]), (x[is_test], labels[is_test]), words


def features(clips) -> np.ndarray:
    """Returns the log-mel spectrograms of clips in decibels, float32 of shape (n, time, mels)."""
    # Windows of 32 ms every 20 ms, and 40 bands.
    spectrogram = layers.MelSpectrogram(
        fft_length=512, sequence_stride=320, num_mel_bins=40, sampling_rate=RATE, min_power=1e-6
    )
    parts, part = [], []
    for clip in clips:
        part.append(clip)
        if len(part) == 256:  # a hundred thousand clips at once need too much memory
            parts.append(spectrogram(np.array(part) / np.float32(32768)))
            part = []
    if part:
        parts.append(spectrogram(np.array(part) / np.float32(32768)))
    return np.concatenate([keras.ops.convert_to_numpy(p) for p in parts]).transpose(0, 2, 1)


def build_network(x: np.ndarray, words: int) -> keras.Model:
    """Makes convolutions over time. The mels are the channels."""
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(x)

    def normed_relu():
        return [layers.BatchNormalization(momentum=0.9), layers.ReLU()]

    return keras.Sequential(
        [
            keras.Input(x.shape[1:], name="decibels"),
            normalization,
            # "valid", since zero padding of normalized values would prevent the folding.
            layers.Conv1D(32, 5, padding="valid", use_bias=False),
            *normed_relu(),
            layers.SeparableConv1D(48, 5, padding="same", use_bias=False),
            *normed_relu(),
            layers.MaxPooling1D(2),
            layers.SeparableConv1D(64, 5, padding="same", use_bias=False),
            *normed_relu(),
            layers.MaxPooling1D(2),
            layers.SeparableConv1D(64, 5, padding="same", use_bias=False),
            *normed_relu(),
            layers.GlobalAveragePooling1D(),
            layers.Dropout(0.2),
            layers.Dense(words, activation="softmax", name="word"),
        ],
        name="keywords",
    )


def fit(kind: str, model: keras.Model, training, epochs: int, rate: float) -> None:
    """Trains a model, in float or quantized, with a learning rate that falls to zero."""
    steps = epochs * -(-len(training[1]) // 32)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    console.print(f"{kind}: {steps} steps")
    model.fit(*training, batch_size=32, epochs=epochs, verbose=0)


def accuracy(model, test) -> float:
    """Returns the accuracy of a Keras model or of a file: both have `predict`."""
    x, y = test
    return float(np.mean(np.argmax(model.predict(x, verbose=0), axis=-1) == y))


def main() -> None:
    """Trains in float, quantizes, trains, exports, evaluates, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wavs", type=pathlib.Path, help="a folder with a folder for each word")
    parser.add_argument(
        "--epochs", type=positive, default=8, help="epochs in float; two more are quantized"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("build/keywords"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    training, test, words = recorded_words(args.wavs) if args.wavs else generated_words()

    model = build_network(training[0], len(words))
    fit("Float", model, training, args.epochs, 4e-3)
    rows = [("Keras, float", accuracy(model, test))]
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, training[0][:500], verbose=0)
    rows.append(("Keras, int8, calibrated", accuracy(qat, test)))
    fit("Quantized", qat, training, 2, 2e-4)
    rows.append(("Keras, int8, trained", accuracy(qat, test)))

    path = args.output / "keywords_int8.tflite"
    keras_qat.export_litert(qat, path)
    rows.append((".tflite", accuracy(keras_qat.LiteRTModel(path), test)))
    title = f"{len(test[1])} clips that were not trained on, {len(words)} words"
    print_table(title, ("model", "accuracy"), rows)
    console.print(WHAT_TO_LOOK_AT)
    prove(qat, path, test[0][:256])


if __name__ == "__main__":
    main()
