"""A sample of hostile programs; `run_hostile.py` runs as many as one has patience for."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("run_hostile.py")


def test_a_sample_finds_nothing() -> None:
    """The process survives, memory behind the guest does too, and each run repeats, also sliced."""
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--count", "60", "--seed", "300"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "60 programs from seed 300, 0 findings" in run.stdout
