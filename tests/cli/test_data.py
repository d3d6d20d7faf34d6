"""Data for the commands: arrays, images and functions, and errors about them."""

import argparse
import shutil

import numpy as np
import pytest

from keras_qat_cli.data import open_data
from keras_qat_cli.errors import UsageError
from tests.models import labels, small_images

IMAGE = [("image", (None, 4, 4, 3))]
TWO = [("first", (None, 4)), ("second", (None, 4))]


def opened(source, inputs=IMAGE, **changes):
    options = {"data": str(source), "samples": None, "batch_size": 8, "scale": None, "offset": None}
    return open_data(argparse.Namespace(**options | changes), inputs)


def joined(data):
    """Returns all inputs and targets, and the sizes of the batches."""
    pairs = list(data.pairs())
    inputs = np.concatenate([np.asarray(x) for x, _ in pairs])
    targets = None if pairs[0][1] is None else np.concatenate([np.asarray(y) for _, y in pairs])
    return inputs, targets, [len(x) for x, _ in pairs]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Makes images in two class folders. All pixels are the image's number. Red is its class."""
    import tensorflow as tf

    root = tmp_path_factory.mktemp("images")
    for number in range(20):
        place = root / ("bird" if number % 2 else "ant")
        place.mkdir(exist_ok=True)
        pixels = np.full((6, 5, 3), number, "uint8")
        pixels[..., 0] = 200 if number % 2 else 100
        (place / f"{number}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    (root / "ant" / "notes.txt").write_text("not an image")
    return root


def test_data_of_a_file_of_arrays_is_cut_into_batches(files):
    data = opened(files["data.npz"])
    x, y, sizes = joined(data)
    assert (x == small_images(20)).all() and (y == labels(20)).all()
    assert sizes == [8, 8, 4] and data.count == 3
    fewer = opened(files["data.npz"], samples=10)
    assert joined(fewer)[2] == [8, 2] and fewer.count == 2
    assert joined(fewer)[2] == [8, 2]  # a second time
    assert (opened(files["data.npz"]).fit()["y"] == labels(20)).all()


def test_data_of_one_array_has_no_targets(tmp_path):
    np.save(tmp_path / "x.npy", small_images(3))
    x, y, _ = joined(opened(tmp_path / "x.npy"))
    assert (x == small_images(3)).all() and y is None


def test_data_of_several_inputs_goes_by_name(tmp_path):
    arrays = np.random.default_rng(0).random((2, 9, 4))
    np.savez(tmp_path / "x.npz", first=arrays[0], second=arrays[1], y=np.arange(9))
    ((x, y), (_, rest)) = opened(tmp_path / "x.npz", TWO).pairs()
    assert (x["first"] == arrays[0, :8]).all() and (x["second"] == arrays[1, :8]).all()
    assert y.tolist() == list(range(8)) and rest.tolist() == [8]


@pytest.mark.parametrize(
    "name",
    [
        *("arrays", "batches", "generator", "dataset"),
        *("generator_of_triples", "tensors", "inputs_in_a_list"),
    ],
)
def test_data_of_a_function(name):
    data = opened(f"tests.cli.sources:{name}", samples=18)
    for _ in range(2):
        x, y, sizes = joined(data)
        assert (x == small_images(20)[:18]).all() and (y == labels(20)[:18]).all()
        assert sizes == [8, 8, 2]


def test_data_of_single_samples_has_batches_of_one():
    data = opened("tests.cli.sources:samples", samples=18)
    for _ in range(2):
        x, y, sizes = joined(data)
        assert (x == small_images(20)[:18]).all() and sizes == [1] * 18
        assert y is not None and (y == labels(20)[:18]).all()


def test_data_of_inputs_in_lists_has_no_targets():
    pairs = list(opened("tests.cli.sources:inputs_in_lists").pairs())
    assert [targets for _, targets in pairs] == [None] * 3
    assert (np.concatenate([x for (x,), _ in pairs]) == small_images(20)).all()


@pytest.mark.parametrize("name", ["failing", "failing_midway"])
def test_data_of_a_function_that_fails_names_the_function(name):
    with pytest.raises(UsageError, match="function for the data failed") as caught:
        list(opened(f"tests.cli.sources:{name}"))
    assert str(caught.value.received).endswith(f":{name}: ValueError: there is no data today")


def test_data_of_no_batch_is_refused():
    with pytest.raises(UsageError, match="The data is empty"):
        list(opened("tests.cli.sources:nothing"))


def test_data_has_the_batch_size_of_the_model(files, folder):
    fixed = [("image", (5, 4, 4, 3))]
    for source in (files["data.npz"], folder, "tests.cli.sources:arrays"):
        data = opened(source, fixed)
        assert joined(data)[2] == [5] * 4 and data.count == 4


def test_data_of_images_ignores_folders_and_files_of_tools(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for name in (".ipynb_checkpoints", "ant"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "._1.png").write_bytes(b"not an image")
    for (_, y), (_, expected) in zip(opened(tmp_path).pairs(), opened(folder).pairs(), strict=True):
        assert y.tolist() == expected.tolist()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_data_of_images_converts_every_format_to_every_number_of_channels(channels, tmp_path):
    image = pytest.importorskip("PIL.Image")
    grey = np.random.default_rng(0).integers(0, 256, (4, 4), "uint8")
    modes = {"png": ("L", "LA", "P", "RGB", "RGBA"), "bmp": ("L", "RGB", "RGBA"), "gif": ("L", "P")}
    for suffix in modes:
        for mode in modes[suffix]:
            image.fromarray(grey).convert(mode).save(tmp_path / f"{mode}.{suffix}")
    data = opened(tmp_path, [("x", (None, 4, 4, channels))])
    x = np.concatenate([batch[0] for batch in data])
    assert x.shape == (10, 4, 4, channels)
    colours = x[..., :3]
    assert (colours == grey[..., None]).all()
    assert channels < 4 or (x[..., 3] == 255).all()


def test_data_of_jpegs_converts_to_every_number_of_channels(tmp_path):
    import tensorflow as tf

    pixels = np.full((8, 8, 3), (200, 100, 50), "uint8")
    (tmp_path / "1.jpg").write_bytes(tf.io.encode_jpeg(pixels, quality=100).numpy())
    for colour in ([124], [200, 100, 50], [200, 100, 50, 255]):  # 0.299 R + 0.587 G + 0.114 B
        ((x,),) = opened(tmp_path, [("x", (None, 8, 8, len(colour)))])
        assert x == pytest.approx(np.broadcast_to(colour, x.shape), abs=2)


def test_data_of_images_has_pixels_and_folders_as_classes(folder):
    data = opened(folder)
    x, y, sizes = joined(data)
    assert x.dtype == np.uint8 and x.shape == (20, 4, 4, 3) and sizes == [8, 8, 4]
    numbers = x[:, 0, 0, 1]
    assert sorted(numbers) == list(range(20)) and (numbers % 2 == y).all()
    assert (x[..., 0] == np.where(y == 1, 200, 100)[:, None, None]).all()
    assert numbers.tolist() != sorted(numbers)
    assert (joined(data)[0] == x).all()
    few = opened(folder, samples=10)
    assert set(next(iter(few.pairs()))[1]) == {0, 1}
    assert (joined(few)[0] == x[:10]).all() and few.count == 2


def test_data_of_images_can_be_grey_and_scaled(folder):
    x, _, _ = joined(opened(folder, [("x", (None, 6, 5, 1))], scale=1 / 255, offset=-1))
    assert x.shape == (20, 6, 5, 1) and x.dtype == np.float32
    assert -1 <= x.min() < x.max() < 0
    raw, _, _ = joined(opened(folder, [("x", (None, 6, 5, 1))]))
    assert x == pytest.approx(raw / 255 - 1, abs=1e-6)


def test_data_of_arrays_can_be_scaled(files):
    x, y, _ = joined(opened(files["data.npz"], scale=2))
    assert (x == small_images(20) * 2).all() and (y == labels(20)).all()


def test_data_of_images_is_shuffled_for_each_epoch(folder):
    dataset = opened(folder).fit()["x"]
    passes = [np.concatenate([y for _, y in dataset.as_numpy_iterator()]) for _ in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == [0] * 10 + [1] * 10


def test_data_of_images_without_classes_has_no_labels(folder):
    x, y, _ = joined_inputs(opened(folder / "ant"))
    assert len(x) == 10 and y is None


def joined_inputs(data):
    batches = [batch[0] if isinstance(batch, tuple) else batch for batch, _ in data.pairs()]
    return np.concatenate(batches), next(iter(data.pairs()))[1], None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/folder", "cannot be opened"),
        ("no_such.npz", "cannot be read"),
        ("no_such_module:function", "cannot be imported"),
        ("tests.cli.sources:no_such", "cannot be imported"),
        ("tests.cli.sources:NUMBER", "not a function"),
        ("tests.cli.sources:number", "cannot be iterated over"),
    ],
)
def test_data_source_that_does_not_exist_is_refused(source, message):
    with pytest.raises(UsageError, match=message):
        opened(source)


@pytest.mark.parametrize("content", ["raise RuntimeError('no module today')", "x = = 3"])
def test_data_of_a_module_that_fails_is_refused(content, tmp_path, monkeypatch):
    (tmp_path / "broken_source.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="cannot be imported") as caught:
        opened("broken_source:arrays")
    assert any(part in str(caught.value.received) for part in ("today", "SyntaxError"))
    assert caught.value.fix == "--debug shows where."


def test_data_of_arrays_that_do_not_fit_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "names.npz", other=np.zeros(3))
    np.savez(tmp_path / "sizes.npz", x=np.zeros((3, 4)), y=np.zeros(2))
    np.savez(tmp_path / "empty.npz", x=np.zeros((0, 4)))
    np.savez_compressed(tmp_path / "bits.npz", x=np.arange(1000))
    content = bytearray((tmp_path / "bits.npz").read_bytes())
    content[100:200] = bytes(100)
    (tmp_path / "bits.npz").write_bytes(content)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name, message in (
        ("text.npz", "cannot be read"),
        ("bits.npz", "cannot be read"),
        ("objects.npy", "cannot be read"),
        ("names.npz", "lacks inputs"),
        ("sizes.npz", "different numbers of samples"),
        ("empty.npz", "different numbers of samples, or none"),
    ):
        with pytest.raises(UsageError, match=message):
            opened(tmp_path / name)


def test_data_of_folders_that_do_not_fit_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="no images"):
        opened(tmp_path)
    for inputs in (
        TWO,
        [("x", (None, 4))],
        [("x", (None, None, None, 3))],
        [("x", (None, 4, 4, 2))],
    ):
        with pytest.raises(UsageError, match="needs a model"):
            opened(folder, inputs)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(UsageError, match="An image cannot be read") as caught:
        joined(opened(tmp_path))
    assert "broken.png: Unknown image file format" in str(caught.value.received)
