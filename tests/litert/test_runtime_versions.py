import pytest

from keras_qat.litert.runtime_versions import RUNTIME_VERSIONS, minimum_runtime_version


@pytest.mark.parametrize(
    "code, version, release",
    [  # from TensorFlow's runtime_version.cc
        ("CONV_2D", 3, "1.14.0"),
        ("CONV_2D", 8, "2.15.0"),
        ("DEPTHWISE_CONV_2D", 6, "2.3.0"),
        ("FULLY_CONNECTED", 5, "2.0.0"),
        ("FULLY_CONNECTED", 12, "2.17.0"),
        ("FULLY_CONNECTED", 14, "2.21.0"),
        ("QUANTIZE", 2, "1.15.0"),
        ("PADV2", 1, "1.9.0"),
        ("TANH", 2, "1.14.0"),
        ("SLICE", 7, "2.21.0"),
    ],
)
def test_anchors(code, version, release):
    assert RUNTIME_VERSIONS[code, version] == release


@pytest.mark.parametrize(
    "operators, release",
    [
        ([("RESHAPE", 1)], "1.5.0"),
        ([("GELU", 2), ("CONV_2D", 7), ("RESHAPE", 1)], "2.11.0"),  # 2.9.0 is older than 2.11.0
        ([("RESHAPE", 1), ("RESHAPE", 2)], None),
        ([], None),
    ],
)
def test_the_newest_of_the_releases_or_none(operators, release):
    assert minimum_runtime_version(operators) == release


def test_releases_never_go_back():
    for (code, version), release in RUNTIME_VERSIONS.items():
        older = RUNTIME_VERSIONS.get((code, version - 1), release)
        assert [int(n) for n in older.split(".")] <= [int(n) for n in release.split(".")], code
