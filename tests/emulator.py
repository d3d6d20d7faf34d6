"""Marks tests that need LiteRT on an emulated ARM64 processor."""

import pytest

from keras_qat.litert.running.separate_process import arm64_folder

needs_arm64 = pytest.mark.skipif(
    not (arm64_folder() / "python").exists(), reason="needs the emulated Python: make arm64"
)
