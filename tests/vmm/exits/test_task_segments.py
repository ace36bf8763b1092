"""Segments of a new task, by the table "Exception Conditions Checked During a Task Switch"."""

from types import SimpleNamespace
from typing import Any

import pytest

from hwmodel.arch.vmcs import Field
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.task_segments import CS, DS, SS, load_ldt, load_segment

TS, NP, SS_FAULT = 10, 11, 12
CODE, CONFORMING, EXECUTE_ONLY, DATA, READ_ONLY, LDT, TSS = 0x9A, 0x9E, 0x98, 0x92, 0x90, 0x82, 0x89
ABSENT, DPL3 = -0x80, 0x60
GDT, SELECTOR = 0x1000, 0x10


class Memory:
    """Flat bytes behind the two calls of `Pcpu` that are used."""

    def __init__(self) -> None:
        self.bytes = bytearray(0x2000)

    def read(self, _vmcs: object, linear: int, size: int) -> bytes:
        return bytes(self.bytes[linear : linear + size])

    def write(self, _vmcs: object, linear: int, data: bytes) -> None:
        self.bytes[linear : linear + len(data)] = data


def machine(access: int) -> Any:
    """A vCPU whose GDT has one descriptor: base 0x12345678, limit 0xfffff pages."""
    memory = Memory()
    memory.write(None, GDT + SELECTOR, bytes.fromhex("ffff785634") + bytes([access, 0xCF, 0x12]))
    vmcs = dict.fromkeys(Field, 0) | {Field.GUEST_GDTR_BASE: GDT, Field.GUEST_GDTR_LIMIT: 0x17}
    return SimpleNamespace(vmcs=vmcs, pcpu=memory, shadow=None)


def outcome(access: int, segment: int, selector: int, cpl: int) -> tuple[int, int | None] | None:
    try:
        load_segment(machine(access), segment, selector, cpl)
    except GuestFault as fault:
        return fault.vector, fault.error_code
    return None


@pytest.mark.parametrize(
    ("access", "segment", "selector", "cpl", "wanted"),
    [
        (CODE, CS, 0x10, 0, None),
        (CODE, CS, 0x13, 3, (TS, 0x10)),
        (CODE + DPL3, CS, 0x13, 3, None),
        (CONFORMING, CS, 0x13, 3, None),
        (CONFORMING + DPL3, CS, 0x10, 0, (TS, 0x10)),
        (DATA, CS, 0x10, 0, (TS, 0x10)),
        (CODE, CS, 0, 0, (TS, 0)),
        (CODE + ABSENT, CS, 0x10, 0, (NP, 0x10)),
        (DATA, SS, 0x10, 0, None),
        (DATA, SS, 0x10, 3, (TS, 0x10)),
        (DATA + DPL3, SS, 0x10, 3, (TS, 0x10)),
        (DATA, SS, 0x11, 0, (TS, 0x10)),
        (READ_ONLY, SS, 0x10, 0, (TS, 0x10)),
        (DATA, SS, 3, 0, (TS, 0)),
        (DATA + ABSENT, SS, 0x10, 0, (SS_FAULT, 0x10)),
        (READ_ONLY, DS, 0x10, 0, None),
        (DATA, DS, 0, 0, None),
        (DATA, DS, 0x10, 3, (TS, 0x10)),
        (CONFORMING, DS, 0x13, 3, None),
        (EXECUTE_ONLY, DS, 0x10, 0, (TS, 0x10)),
        (DATA + ABSENT, DS, 0x10, 0, (NP, 0x10)),
        (DATA, DS, 0x18, 0, (TS, 0x18)),
        (DATA, DS, 0x14, 0, (TS, 0x14)),
    ],
)
def test_checks(
    access: int, segment: int, selector: int, cpl: int, wanted: tuple[int, int] | None
) -> None:
    assert outcome(access, segment, selector, cpl) == wanted


def test_loaded_parts() -> None:
    vcpu = machine(DATA)
    load_segment(vcpu, DS, SELECTOR, 0)
    assert vcpu.vmcs[Field.GUEST_DS_SELECTOR] == SELECTOR
    assert vcpu.vmcs[Field.GUEST_DS_BASE] == 0x12345678
    assert vcpu.vmcs[Field.GUEST_DS_LIMIT] == 0xFFFF_FFFF
    assert vcpu.vmcs[Field.GUEST_DS_AR_BYTES] == 0xC093
    assert vcpu.pcpu.bytes[GDT + SELECTOR + 5] == DATA | 1


@pytest.mark.parametrize(
    ("access", "selector", "faults"),
    [
        (LDT, 0x10, False),
        (LDT, 0, False),
        (LDT, 0x14, True),
        (LDT + ABSENT, 0x10, True),
        (TSS, 0x10, True),
        (DATA, 0x10, True),
    ],
)
def test_ldt(access: int, selector: int, faults: bool) -> None:
    vcpu = machine(access)
    if not faults:
        load_ldt(vcpu, selector)
        assert vcpu.vmcs[Field.GUEST_LDTR_BASE] == (0x12345678 if selector else 0)
        return
    with pytest.raises(GuestFault) as caught:
        load_ldt(vcpu, selector)
    assert (caught.value.vector, caught.value.error_code) == (TS, selector & 0xFFFC)
