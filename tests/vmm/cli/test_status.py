"""Statuses: the table of the design."""

import pytest

from vmm.errors import InternalError, NotBuiltError, UsageError
from vmm.outcome import StopReason, exit_status


def test_statuses() -> None:
    found = {reason: exit_status(reason) for reason in StopReason}
    assert found == {
        "poweroff": 0, "halted": 0, "reset": 0, "debug_exit": 1, "triple_fault": 66,
        "entry_failure": 66, "unhandled": 66, "limit": 68, "timeout": 68, "interrupted": 130,
    }  # fmt: skip
    assert (UsageError.status, NotBuiltError.status, InternalError.status) == (64, 64, 70)


@pytest.mark.parametrize("value", [0, 1, 31, 32, 77, 127, 128, 255, 256, 0xFFFFFFFF])
def test_the_exit_port_gives_an_odd_process_status(value: int) -> None:
    status = exit_status(StopReason.DEBUG_EXIT, value)
    assert status & 1
    assert 0 < status < 256
    if value < 128:
        assert status == (value << 1) | 1
