"""What the house tests look at: the files that git tracks."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """All tracked files that exist, as paths; a tree without git cannot be inspected."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git tree: no list of tracked files")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]
