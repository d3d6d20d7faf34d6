"""The examples on generated data run, and their results are correct. They check users' data."""

import re
import sys
import wave

import keras
import numpy as np
import pytest

from tests.test_docs import load
from tests.test_examples import EXAMPLES, run_example


def table_in(text):
    """Returns the printed table of an example: numbers by the name of the model."""
    rows = re.findall(r"^\| (.+?) +((?:\| +[\d.]+ )+)\|$", text, re.MULTILINE)
    return {name: [float(cell) for cell in cells.split("|")[1:]] for name, cells in rows}


def check_exact(text, path):
    """Checks that Keras and the file are equal in the table and in every integer."""
    table = table_in(text)
    assert table["Keras, int8, trained"] == table[".tflite"]
    assert "Keras, float" in table
    assert re.search(r"^Integers that differ: 0 of [\d,]{7,}$", text, re.MULTILINE)
    assert path.stat().st_size > 10_000
    return table


@pytest.mark.slow
def test_keyword_example_is_exact(tmp_path):
    text = run_example("keyword_spotting.py", "--epochs", 5, "--output", tmp_path)
    table = check_exact(text, tmp_path / "keywords_int8.tflite")
    assert min(accuracy for (accuracy,) in table.values()) > 0.8
    assert "640 clips that were not trained on, 8 words\n" in text


@pytest.mark.slow
def test_anomaly_example_is_exact(tmp_path):
    text = run_example("anomaly_detection.py", "--epochs", 10, "--output", tmp_path)
    table = check_exact(text, tmp_path / "anomalies_int8.tflite")
    for auc, normal, anomalies in table.values():
        assert auc > 0.8 and normal < 0.5 and anomalies > 1.5 * normal
    assert "Scores that differ: 0 of 2000\n" in text


@pytest.mark.slow
def test_unet_example_is_exact(tmp_path):
    text = run_example("unet.py", "--epochs", 8, "--output", tmp_path)
    table = check_exact(text, tmp_path / "unet_int8.tflite")
    assert min(iou for iou, _ in table.values()) > 0.7
    assert table[".tflite"][1] == 0 < table["Keras, float"][1]
    for operator in ("TRANSPOSE_CONV", "RESIZE_BILINEAR", "CONCATENATION"):
        assert operator in text


@pytest.mark.slow
def test_detector_example_is_exact(tmp_path):
    text = run_example("detector.py", "--epochs", 4, "--output", tmp_path)
    table = check_exact(text, tmp_path / "detector_int8.tflite")
    assert min(precision for precision, _ in table.values()) > 0.3
    assert "CUSTOM(TFLite_Detection_PostProcess) 1\n" in text


@pytest.mark.slow
def test_custom_layer_example_is_exact(tmp_path):
    text = run_example("custom_layer.py", "--epochs", 4, "--output", tmp_path)
    table = check_exact(text, tmp_path / "custom_int8.tflite")
    assert min(accuracy for (accuracy,) in table.values()) > 0.8
    assert table["Keras, int8, loaded from .keras"] == table["Keras, int8, trained"]
    before, after = text.split("After the registration: OK\n")
    assert "'threshold', unsupported-layer:" in before and "excitation" not in before
    assert "  threshold (QLookup): CAST, ADD, GATHER\n" in after
    assert "  excitation_squeeze (QDense): FULLY_CONNECTED\n" in after
    assert "Weights of the SqueezeExcite that this moved: 5 of 5\n" in after


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script
    return lambda name: load(EXAMPLES / f"{name}.py")


def write_wav(path, rate=16_000, width=2, channels=1, seconds=0.5, level=1000):
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setframerate(rate)
        file.setsampwidth(width)
        file.setnchannels(channels)
        file.writeframes(np.full(int(rate * seconds) * channels, level, "<i2").tobytes())


def test_keyword_example_takes_wav_files(example, tmp_path):
    for name in ("yes/a", "yes/b", "no/a", "no/b", "no/c", "_background_noise_/a"):
        write_wav(tmp_path / f"{name}.wav", seconds=2)
    (tmp_path / "testing_list.txt").write_text("no/b.wav\nyes/b.wav\n")
    (x, y), (x_test, y_test), words = example("keyword_spotting").recorded_words(tmp_path)
    assert words == ["no", "yes"]
    assert (list(y), list(y_test)) == ([0, 0, 1], [0, 1])
    assert x.shape == (3, *x_test.shape[1:]) and x.shape[2] == 40


def test_read_wav_cuts_and_fills_to_a_second(example, tmp_path):
    read_wav = example("keyword_spotting").read_wav
    write_wav(tmp_path / "short.wav", seconds=0.25)
    assert np.array_equal(read_wav(tmp_path / "short.wav"), [1000] * 4000 + [0] * 12000)
    write_wav(tmp_path / "long.wav", seconds=1.5, level=-7)
    assert np.array_equal(read_wav(tmp_path / "long.wav"), [-7] * 16000)


def test_keyword_example_names_wav_files_that_do_not_fit(example, tmp_path):
    keywords = example("keyword_spotting")
    write_wav(tmp_path / "slow.wav", rate=8000, channels=2)
    (tmp_path / "text.wav").write_text("no wav file at all")
    (tmp_path / "empty.wav").write_text("")
    with pytest.raises(SystemExit, match=r"slow\.wav has 8000 Hz, 16 bits and 2 channel"):
        keywords.read_wav(tmp_path / "slow.wav")
    for name in ("text", "empty", "absent"):
        with pytest.raises(SystemExit, match=rf"{name}\.wav cannot be read as a wav file"):
            keywords.read_wav(tmp_path / f"{name}.wav")
    with pytest.raises(SystemExit, match=r"nowhere must have a folder of wav files for each"):
        keywords.recorded_words(tmp_path / "nowhere")
    for word in ("yes", "no"):
        write_wav(tmp_path / word / "a.wav")
    (tmp_path / "testing_list.txt").write_text("maybe/a.wav\n")
    with pytest.raises(SystemExit, match="clips to train on and clips to test on"):
        keywords.recorded_words(tmp_path)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_own_data_of_an_example_is_read(example, tmp_path):
    x, labels = np.random.default_rng(0).normal(size=(10, 4)), np.arange(10) % 2
    path = saved(tmp_path / "own.npz", train=x, test=x, labels=labels)
    train, test, read = example("anomaly_detection").own_data(path)
    assert train.dtype == test.dtype == "float32" and np.array_equal(train, x.astype("float32"))
    assert np.array_equal(read, labels)

    images = np.arange(10 * 8 * 4 * 3).reshape(10, 8, 4, 3).astype("uint8")
    masks = np.arange(10 * 8 * 4).reshape(10, 8, 4) % 7
    path = saved(tmp_path / "own.npz", images=images, masks=masks)
    (training, held_out), classes = example("unet").own_data(path)
    assert classes == 7 and len(training[0]) == 8
    assert np.array_equal(held_out[0], images[[0, 5]])
    assert np.array_equal(held_out[1], masks[[0, 5]])

    images = np.arange(12 * 16 * 32).reshape(12, 16, 32, 1).astype("uint8")
    boxes = np.tile([0.1, 0.2, 0.5, 0.9], (12, 2, 1))
    classes = np.tile([3, -1], (12, 1))
    path = saved(tmp_path / "own.npz", images=images, boxes=boxes, classes=classes)
    (training, held_out), count = example("detector").own_data(path)
    assert count == 4 and [len(x) for x in training] == [10] * 3
    assert np.array_equal(held_out[0], images[[0, 10]])


def test_average_precision_of_the_detector_example_is_that_of_the_definition(example):
    """Two of three boxes are found, with a wrong detection between: precisions 1 and 2 / 3."""
    box = np.array([[0.0, 0, 1, 1], [2, 2, 3, 3], [5, 5, 6, 6]])
    far = np.array([[8.0, 8, 9, 9]])
    scores = np.array([0.9, 0.8, 0.7])
    found = [(np.concatenate([box[:1], far, box[1:2]]), np.zeros(3, int), scores)]
    precision = example("boxes").mean_precision(found, box[None], np.zeros((1, 3), int))
    assert precision == pytest.approx((1 + 2 / 3) / 3)
    twice = [(np.concatenate([box[:1], box[:1]]), np.zeros(2, int), scores[:2])]
    precision = example("boxes").mean_precision(twice, box[None], np.zeros((1, 3), int))
    assert precision == pytest.approx(1 / 3)  # the second detection of a box is wrong


def test_detector_example_learns_the_boxes_that_it_decodes(example):
    """Decoding the targets gives the boxes again, and suppression leaves one of each."""
    detector = example("detector")
    (images, boxes, classes), _ = detector.generated_digits(20)[0]
    anchors = detector.make_anchors(images.shape[1:])
    wanted, scores = detector.targets(anchors, boxes, classes, 10)

    class Exact:
        def predict(self, images, verbose):
            return wanted[..., :4], scores

    found = detector.detect_in_keras(Exact(), anchors, images)
    assert detector.mean_precision(found, boxes, classes) == pytest.approx(1)
    assert sum(len(kinds) for _, kinds, _ in found) == np.sum(classes >= 0)


SPECTRA = {"train": np.ones((9, 4)), "test": np.ones((6, 4)), "labels": np.arange(6) % 2}
SCENES = {
    "images": np.ones((12, 16, 16, 1), "uint8"),
    "boxes": np.tile([0.1, 0.1, 0.5, 0.5], (12, 1, 1)),
    "classes": np.zeros((12, 1), int),
}
DATA = {"anomaly_detection": SPECTRA, "detector": SCENES}
PICTURES = {"images": np.ones((6, 8, 8, 1), "uint8"), "masks": np.ones((6, 8, 8), int)}


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("anomaly_detection", {"train": np.ones(9)}, r"must have the shape \(n, features\)"),
        ("anomaly_detection", {"test": np.ones((6, 3))}, r"\(9, 4\) and \(6, 3\)"),
        ("anomaly_detection", {"labels": np.arange(5) % 2}, "'labels' must be 0 or 1"),
        ("anomaly_detection", {"labels": np.arange(6) % 3}, "'labels' must be 0 or 1"),
        ("anomaly_detection", {"labels": np.zeros(6)}, "both must occur"),
        ("anomaly_detection", {"test": np.full((6, 4), np.nan)}, "'test' has values that are not"),
        ("anomaly_detection", {"labels": np.array(["a"] * 6)}, "'labels' has values that are not"),
        ("unet", {"images": np.ones((6, 8, 8, 1))}, "and are float64 of shape"),
        ("unet", {"images": np.ones((6, 8, 8), "uint8")}, r"'images' must be 5 or more, uint8"),
        ("unet", {"images": np.ones((6, 8, 6, 1), "uint8")}, "multiples of 4"),
        ("unet", {"masks": np.ones((6, 8, 4), int)}, r"integers from 0 of shape \(6, 8, 8\)"),
        ("unet", {"masks": np.ones((6, 8, 8))}, "'masks' must be integers .* float64"),
        ("unet", {"masks": np.full((6, 8, 8), -1)}, "'masks' must be integers from 0"),
        ("detector", {"images": np.ones((9, 16, 16, 1), "uint8")}, "'images' must be more than 10"),
        ("detector", {"images": np.ones((12, 8, 16, 1), "uint8")}, "multiples of 16"),
        ("detector", {"classes": np.zeros((12, 1))}, "'classes' must be integers .* float64"),
        ("detector", {"classes": np.full((12, 1), -1)}, "'classes' must be integers from 0"),
        ("detector", {"boxes": np.ones((12, 2, 4))}, r"'boxes' must be .* shape \(12, 1, 4\)"),
        ("detector", {"boxes": np.ones((12, 1, 4))}, "have no height or width"),
    ],
)
def test_own_data_that_does_not_fit_is_named(example, tmp_path, name, changed, message):
    arrays = {**DATA.get(name, PICTURES), **changed}
    path = saved(tmp_path / "own.npz", **arrays)
    with pytest.raises(SystemExit, match=rf"own\.npz: .*{message}"):
        example(name).own_data(path)


def test_load_arrays_names_files_without_the_arrays(example, tmp_path):
    load_arrays = example("report").load_arrays
    np.save(tmp_path / "single.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("no arrays at all")
    saved(tmp_path / "objects.npz", a=np.array([{}]))
    for name in ("single.npy", "text.npz", "objects.npz", "absent.npz", "."):
        with pytest.raises(SystemExit, match=r"cannot be read as an \.npz file"):
            load_arrays(tmp_path / name, ["a"])
    path = saved(tmp_path / "other.npz", b=np.ones(3))
    with pytest.raises(SystemExit, match=r"other\.npz has no array named 'a' or 'c'"):
        load_arrays(path, ["a", "b", "c"])


def test_custom_layer_example_explains_a_failed_download(example, monkeypatch):
    def refuse():
        raise OSError("no network")

    custom = example("custom_layer")
    monkeypatch.setattr(keras.datasets.mnist, "load_data", refuse)
    with pytest.raises(SystemExit, match=r"MNIST cannot be downloaded \(no network\).*--mnist"):
        custom.load_pixels(is_mnist=True)


NAMES = (
    "keyword_spotting",
    "anomaly_detection",
    "unet",
    "detector",
    "custom_layer",
    "mnist_quant_delay",
)


@pytest.mark.parametrize("name", NAMES)
def test_examples_refuse_zero_epochs(example, monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [name, "--epochs", "0"])
    with pytest.raises(SystemExit):
        example(name).main()
    assert "argument --epochs: invalid positive value: '0'\n" in capsys.readouterr().err
