"""A fault while a task gate is entered (manual: "Conditions for Generating a Double Fault")."""

from types import SimpleNamespace
from typing import Any

import pytest

from hwmodel.arch.vmcs import Field
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.vectored import VectoredEvent, inject_during
from vmm.outcome import Outcome, StopReason

INTERRUPT, EXCEPTION, SOFTWARE, INT3 = 0, 3, 4, 6
DE, BP, DF, TS, GP, PF = 0, 3, 8, 10, 13, 14
NO_EVENT = VectoredEvent(valid=False, kind=0, vector=0, error=None)


def event(kind: int, vector: int) -> VectoredEvent:
    return VectoredEvent(valid=True, kind=kind, vector=vector, error=None)


def injected(first: VectoredEvent, fault: GuestFault) -> tuple[int, int]:
    """Vector and error code that the next entry injects."""
    vcpu: Any = SimpleNamespace(vmcs={}, regs=SimpleNamespace(cr0=1, cr2=0))
    assert inject_during(vcpu, first, fault) is Outcome.RESUME
    info = vcpu.vmcs[Field.VM_ENTRY_INTR_INFO_FIELD]
    assert info >> 31
    assert info >> 8 & 7 == EXCEPTION
    return info & 0xFF, vcpu.vmcs[Field.VM_ENTRY_EXCEPTION_ERROR_CODE]


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (NO_EVENT, (TS, 0x58), (TS, 0x58)),
        (event(SOFTWARE, GP), (TS, 0x58), (TS, 0x58)),
        (event(INT3, BP), (TS, 0x58), (TS, 0x58)),
        (event(INTERRUPT, 0x20), (TS, 0x58), (TS, 0x59)),
        (event(EXCEPTION, 1), (TS, 0x58), (TS, 0x59)),
        (event(EXCEPTION, GP), (TS, 0x58), (DF, 0)),
        (event(EXCEPTION, DE), (GP, 0), (DF, 0)),
        (event(EXCEPTION, GP), (PF, 2), (PF, 2)),
        (event(EXCEPTION, PF), (PF, 2), (DF, 0)),
        (event(EXCEPTION, PF), (GP, 0), (DF, 0)),
        (event(INTERRUPT, PF), (PF, 2), (PF, 2)),
    ],
)
def test_fault_during_delivery(
    first: VectoredEvent, second: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert injected(first, GuestFault(*second, 0x1234)) == wanted


def test_fault_during_a_double_fault_shuts_down() -> None:
    stops: list[StopReason] = []
    vcpu: Any = SimpleNamespace(stop=lambda reason, _text: stops.append(reason))
    assert inject_during(vcpu, event(EXCEPTION, DF), GuestFault(TS, 0)) is Outcome.STOP
    assert stops == [StopReason.TRIPLE_FAULT]
