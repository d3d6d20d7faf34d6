import h5py
import pytest

import keras_qat
from keras_qat.errors import InvalidFileError
from keras_qat.loading.files.heaps import check_heaps


@pytest.fixture
def content(tmp_path):
    with h5py.File(tmp_path / "texts.h5", "w") as file:
        file.attrs["keras_version"] = "2.4.0"  # strings of any length are stored in a heap
        file.attrs["model_config"] = "{}"
    return (tmp_path / "texts.h5").read_bytes()


def test_check_heaps_takes_a_valid_heap(content):
    assert content.count(b"GCOL") == 1
    check_heaps(content)


@pytest.mark.parametrize("first", [bytes(16), bytes(8) + b"\x00\x01" + bytes(6), b"\xff" * 16])
def test_check_heaps_refuses_a_string_without_an_end(content, tmp_path, first):
    """The HDF5 library hangs on the first case, so the check has to come before it."""
    place = content.index(b"GCOL") + 16
    damaged = content[:place] + first + content[place + 16 :]
    with pytest.raises(InvalidFileError, match="does not end"):
        check_heaps(damaged)
    (tmp_path / "damaged.h5").write_bytes(damaged)
    with pytest.raises(InvalidFileError, match="does not end.*damaged.h5"):
        keras_qat.load_model(tmp_path / "damaged.h5")


def test_check_heaps_leaves_a_truncated_heap_to_the_library(content):
    check_heaps(content[: content.index(b"GCOL") + 12])
