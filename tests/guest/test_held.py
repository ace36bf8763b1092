"""A sample of `make held`: tests that say nothing of it pass however their guests are held."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = (
    "tests/vmm/state/test_snapshot.py",
    "tests/vmm/memory/test_pager.py",
    "tests/vmm/testing/test_guest.py",
    "tests/vmm/test_vm_ends.py",
    "tests/vmm/exits/test_mov_assist.py",
)


@pytest.mark.held_by("ept", why="starts the others itself")
@pytest.mark.parametrize("hold", ["shadow", "trap"])
def test_a_sample(hold: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hold", hold]
    done = subprocess.run(
        [*command, *SAMPLE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
