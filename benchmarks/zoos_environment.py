"""A separate environment with the packages of `zoos.py`."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from common import ROOT

ENVIRONMENT = ROOT / "build" / "zoos"
REQUIREMENTS = Path(__file__).with_name("requirements-zoos.txt")
# The packages that the models cannot be imported without.
IMPORTED = (
    "ftfy",
    "regex",
    "tokenizers",
    "kagglehub",
    "safetensors",
    "huggingface-hub",
    "sentencepiece",
)


def make_environment(folder: Path = ENVIRONMENT) -> Path:
    """Returns a Python that has the packages, and Keras and LiteRT of the running one.

    The packages are installed without their requirements, which would replace Keras.
    """
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists() or stamp.stat().st_mtime < REQUIREMENTS.stat().st_mtime:
        print(f"Installing {REQUIREMENTS.name} into {folder} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        Path(packages, "running.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", REQUIREMENTS, "--no-deps"], check=True)
        subprocess.run([*pip, *IMPORTED], check=True)
        stamp.touch()
    return python


def versions() -> dict[str, str]:
    """Returns the pinned version of each package."""
    lines = (line for line in REQUIREMENTS.read_text().splitlines() if "==" in line)
    pairs = (line.split("==") for line in lines)
    return {name.replace("_", "-"): version for name, version in pairs}
