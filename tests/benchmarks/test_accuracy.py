"""The batches, the networks and the page of accuracy.py."""

import keras
import numpy as np
import pytest

import keras_qat


@pytest.fixture
def nets(script):
    return script("accuracy_nets")


def coded_images(count):
    """Returns images whose red is the row and whose green is the column, and their labels."""
    images = np.zeros((count, 32, 32, 3), "uint8")
    images[..., 0], images[..., 1] = np.arange(32)[:, None], np.arange(32)
    images[..., 2] = np.arange(count)[:, None, None]
    return {"x": images, "y": np.arange(count)}


def test_batches_show_each_image_once_in_each_epoch(nets):
    data = coded_images(256)
    seen = list(nets.batches(data, 2, seed=3))
    assert [len(y) for _, y in seen] == [nets.BATCH] * 4
    for epoch in (seen[:2], seen[2:]):
        assert sorted(np.concatenate([y for _, y in epoch])) == list(range(256))
    assert not np.array_equal(seen[0][1], seen[2][1])
    for x, y in seen:
        assert np.all(x[..., 2] == y[:, None, None])


def test_batches_mirror_and_move_whole_rows_and_columns(nets):
    x, _ = next(nets.batches(coded_images(256), 1, seed=3))
    rows, columns = x[:, :, 0, 0], x[:, 0, :, 1]
    assert np.array_equal(x[..., 0], np.broadcast_to(rows[:, :, None], x.shape[:3]))
    assert np.array_equal(x[..., 1], np.broadcast_to(columns[:, None], x.shape[:3]))
    reflected = np.pad(np.arange(32), 4, mode="reflect")
    windows = {tuple(reflected[start : start + 32]) for start in range(9)}
    assert {tuple(row) for row in rows} <= windows
    plain = [tuple(each) in windows for each in columns]
    assert {tuple(each) for each in columns} <= windows | {each[::-1] for each in windows}
    assert 0.3 < np.mean(plain) < 0.7
    assert len({tuple(each) for each in columns}) > 9


def test_batches_depend_on_the_seed_only(nets):
    first, again, other = (
        next(nets.batches(coded_images(256), 1, seed=seed)) for seed in (3, 3, 4)
    )
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("name", ["mobilenet", "efficientnet"])
def test_networks_are_the_same_in_both_kerases(nets, name):
    import tf_keras

    ours, theirs = nets.NETS[name](keras), nets.NETS[name](tf_keras)
    theirs.set_weights(ours.get_weights())
    x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(theirs(x).numpy(), np.asarray(ours(x)), atol=1e-5)


def row(accuracy, size):
    return {"accuracy": accuracy, "bytes": size, "gzip_bytes": size // 2, "float_tensors": 0}


def test_float_tensors_are_found_beside_packed_weights(script, tmp_path):
    x = keras.Input((8, 8, 4))
    model = keras.Model(x, keras.layers.DepthwiseConv2D(3)(x))
    data = np.random.default_rng(0).random((8, 8, 8, 4), "float32")
    qat = keras_qat.quantize_model(model, "int4", calibration_data=data)
    for kind, count in (("int8", 0), ("float32", 2)):
        types = dict.fromkeys(("inference_input_type", "inference_output_type"), kind)
        keras_qat.export_litert(qat, tmp_path / "model.tflite", **types)
        assert len(script("common").float_tensors(tmp_path / "model.tflite")) == count


RESULTS = {
    "mobilenet": {
        "float, trained": {"0": {"accuracy": 80.0}, "1": {"accuracy": 82.0}},
        "int8, trained": {
            "0": {"accuracy": 80.2, "bytes": 2048, "gzip_bytes": 1024, "different_outputs": 0},
            "1": {"accuracy": 81.6, "bytes": 2048, "gzip_bytes": 1024, "different_outputs": 3},
            "2": {"accuracy": 90.0, "bytes": 2048, "gzip_bytes": 1024, "different_outputs": 0},
        },
        "int4, trained": {"0": {"accuracy": 78.0}},
        "TFMOT, int8, trained": {"0": {"failed": "no swish"}},
    },
    "resnet8": {
        "int8, trained": {"0": row(88.0, 4096), "1": row(86.0, 4096)},
        "TFMOT, int8, trained": {"0": row(89.0, 4096), "1": row(86.5, 4096)},
        "int4, trained": {"0": row(85.5, 2048)},
        "int2, trained": {"0": row(84.5, 1024)},
        "int4 with float": {"0": {**row(85.5, 1536), "float_tensors": 1}},
        "int8, calibrated": {"0": row(87.0, 4096)},
        "converter, int8": {"0": row(86.5, 4096)},
    },
}


def test_page_compares_the_seeds_that_both_have(script, tmp_path):
    page = script("accuracy_page")
    path = tmp_path / "accuracy.md"
    page.write_page(path, RESULTS, {"python": "3.11"}, 5)
    text = path.read_text()
    # The differences are +0.2 and -0.4: their mean is -0.1, and its error 0.6 / 2.
    assert "| int8, trained | 3 | 83.93 ± 3.06 | -0.10 ± 0.30 | 2.0 | 1.0 |  | 3 |" in text
    assert "| TFMOT, int8, trained | 1 | refused: no swish |" in text
    assert "int8, trained: at most 0.1 points below float: reached, -0.10 ± 0.30 (seeds: 2)" in text
    assert "int4, trained: at most 1.0 points below float: **not reached**, -2.00" in text
    # The peer is 1 and 0.5 points better: the mean is -0.75, and its error 0.25.
    peer = "-0.75 ± 0.25 points to TFMOT, int8, trained, **not above it** (seeds: 2)"
    assert f"- resnet8, int8, trained: {peer}\n" in text
    assert "- resnet8, int8, calibrated: +0.50 points to converter, int8 (seeds: 1)\n" in text
    assert "of the arm *int4, trained*: 2.0 KiB, 1.0 KiB after gzip" in text
