"""The guest kernels, built once a session."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of freshly built images."""
    if shutil.which("gcc") is None or shutil.which("make") is None:
        pytest.skip("gcc and make are needed to build the guest kernels")
    out = tmp_path_factory.mktemp("guest")
    command = ["make", "-s", "-j2", "-C", str(ROOT / "guest_kernel"), f"OUT={out}", "all"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return out
