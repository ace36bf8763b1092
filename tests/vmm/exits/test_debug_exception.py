"""#DB that exits: what the hypervisor is told, and that nothing of it is visible yet.

Manual: "Exit Qualification for Debug Exceptions"; DR6 and DR7 change only when #DB is delivered.
"""

from collections.abc import Iterator

import pytest

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.vmcs import Field
from hwmodel.pcpu import Pcpu
from hwmodel.timing.clock import Clock
from hwmodel.vmx.exit import Exit
from hwmodel.vmx.state import Vmcs
from tests.bare import identity_ept, make_enterable, ram_with_ept

CODE, DATA = 0x1000, 0x3000
MIB = 1 << 20
DB_HARDWARE = 1 << 31 | 3 << 8 | 1
IDLE = 0xFFFF0FF0
G0 = 2
WRITE_FOUR = 0xD << 16
INCREMENT = bytes.fromhex("ff060030")  # inc word [0x3000]


class Machine:
    """One vCPU in real mode at CODE, with #DB intercepted."""

    def __init__(self) -> None:
        self.ram = ram_with_ept(MIB)
        self.pcpu = Pcpu(self.ram, Clock())
        self.vmcs = Vmcs()
        self.vmcs[Field.GUEST_CS_SELECTOR] = self.vmcs[Field.GUEST_CS_BASE] = 0
        self.vmcs[Field.EXCEPTION_BITMAP] = 1 << 1
        ept = identity_ept(self.ram, MIB)
        make_enterable(self.vmcs, self.pcpu.capabilities, ept.pointer())
        self.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= 1 << 7  # HLT exits
        self.vmcs.registers.rip = CODE

    def run(self, code: bytes) -> Exit:
        self.ram.view[CODE : CODE + len(code)] = code
        return self.pcpu.enter(self.vmcs, 1000)

    def breakpoint(self, number: int, address: int, dr7: int) -> None:
        self.vmcs.native.dr[number] = address
        self.vmcs[Field.GUEST_DR7] = 0x400 | dr7


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.pcpu.close()


def test_code_breakpoint_exits_before_the_instruction(machine: Machine) -> None:
    machine.breakpoint(0, CODE + 1, G0)
    vmexit = machine.run(b"\x40\x43\xf4")  # inc ax; inc bx; hlt
    assert vmexit.reason == ExitReason.EXCEPTION_NMI
    assert (vmexit.qualification, vmexit.interruption_info) == (1, DB_HARDWARE)
    assert vmexit.rip == CODE + 1
    assert (machine.vmcs.registers.rax, machine.vmcs.registers.rbx) == (1, 0)
    assert machine.vmcs.registers.dr6 == IDLE


def test_rf_lets_one_instruction_pass_and_is_gone(machine: Machine) -> None:
    machine.breakpoint(0, CODE, G0)
    machine.vmcs.registers.rflags |= 1 << 16
    vmexit = machine.run(b"\x40\xeb\xfd")  # inc ax; jmp back
    assert vmexit.reason == ExitReason.EXCEPTION_NMI
    assert (vmexit.rip, vmexit.instructions, machine.vmcs.registers.rax) == (CODE, 2, 1)
    assert not machine.vmcs.registers.rflags & 1 << 16


def test_data_breakpoint_exits_after_the_instruction(machine: Machine) -> None:
    machine.breakpoint(0, DATA, G0 | WRITE_FOUR)
    vmexit = machine.run(INCREMENT + b"\xf4")
    assert vmexit.reason == ExitReason.EXCEPTION_NMI
    assert (vmexit.qualification, vmexit.rip, vmexit.instructions) == (1, CODE + 4, 1)
    assert machine.ram.view[DATA] == 1
    assert machine.vmcs.registers.dr6 == IDLE


def test_data_breakpoint_and_single_step_are_one_exit(machine: Machine) -> None:
    machine.breakpoint(0, DATA, G0 | WRITE_FOUR)
    machine.vmcs.registers.rflags |= 1 << 8
    assert machine.run(INCREMENT + b"\xf4").qualification == 1 << 14 | 1


def test_disabled_breakpoint_ends_with_the_entry_that_shows_it(machine: Machine) -> None:
    machine.breakpoint(0, DATA, G0 | WRITE_FOUR)
    machine.run(INCREMENT * 2 + b"\xf4")
    machine.vmcs[Field.GUEST_DR7] = 0x400
    vmexit = machine.pcpu.enter(machine.vmcs, 1000)
    assert vmexit.reason == ExitReason.HLT
    assert machine.ram.view[DATA] == 2


def test_breakpoint_enabled_after_its_page_was_used(machine: Machine) -> None:
    first = machine.run(INCREMENT + b"\xf4" + INCREMENT + b"\xf4")
    assert first.reason == ExitReason.HLT
    machine.vmcs.skip(first.instruction_length)
    machine.breakpoint(0, DATA, G0 | WRITE_FOUR)
    vmexit = machine.pcpu.enter(machine.vmcs, 1000)
    assert (vmexit.reason, vmexit.rip) == (ExitReason.EXCEPTION_NMI, CODE + 9)


def test_pending_breakpoint_comes_at_entry(machine: Machine) -> None:
    machine.vmcs[Field.GUEST_PENDING_DBG_EXCEPTIONS] = 1 << 12 | 4
    vmexit = machine.run(b"\xf4")
    assert (vmexit.reason, vmexit.qualification) == (ExitReason.EXCEPTION_NMI, 4)
    assert machine.vmcs[Field.GUEST_PENDING_DBG_EXCEPTIONS] == 0
