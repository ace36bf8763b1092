"""A sample of hostile programs; `run_hostile.py` runs as many as one has patience for."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.generate import generate
from tests.hostile.judge import Machine, judge

SCRIPT = Path(__file__).with_name("run_hostile.py")
ONCE_FAILED = (
    1178, 1000352, 1002028, 1002608, 1002760, 1004124, 1005356, 1005357, 1006312, 1009559,
    1010133, 1016744, 1016918, 1018597, 1021968, 1022700, 1025840, 1028322, 1038902, 1039957,
    1042224, 1043752, 1046603, 1047915, 1048640, 1048785, 1050516, 1050581, 1051071, 1051234,
    1051614, 1052015, 1052334, 1052839, 1053536, 1053554, 1053867, 1054332, 1054403, 1054810,
    1054996, 1055017, 1055421, 1055966, 1056542, 1057037, 1057555, 1058207, 1058703, 1059271,
    1059729, 1060113, 1060260, 1060625, 1060820, 1061279, 1062008, 1062024, 1062120, 1062427,
    1062960, 1063326, 1068604, 1068723, 1071992, 1080445, 1085283,
)  # fmt: skip


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


@pytest.fixture(name="machine", scope="module")
def _machine() -> Machine:
    return Machine()


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_what_once_failed(machine: Machine, seed: int) -> None:
    assert judge(machine, generate(seed)) == []


ONCE_FAILED_BY_CYCLES = (
    5000011, 5000013, 5000023, 5000098, 5000267, 5000401, 5000473, 5000498, 5000508, 5000518,
    5000566, 5000622, 5000680, 5010593, 5010837, 5012460, 5012812, 5013674,
)  # fmt: skip


def test_what_once_failed_by_cycles() -> None:
    """Flags in the EPT, walks that pass a deadline, code that was looked at, stretches cut."""
    machine = Machine("cycle")
    found = {seed: judge(machine, generate(seed)) for seed in ONCE_FAILED_BY_CYCLES}
    assert {seed: what for seed, what in found.items() if what} == {}
