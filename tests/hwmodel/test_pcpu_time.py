"""RDTSC, RDTSCP and PAUSE: the time is that of the instruction, wherever its block is cut."""

from collections.abc import Callable

import pytest

from hwmodel.arch.controls import Secondary
from hwmodel.arch.exits import ExitReason
from hwmodel.arch.vmcs import Field
from tests.bare import CODE, PDPT, PML4, USER_CS, USER_DATA, Bare, Mode

Make = Callable[..., Bare]
READS = (
    "nop; rdtsc; mov esi, eax; nop; nop; rdtsc; mov edi, eax; pause; rdtsc; mov ebx, eax;"
    "sti; pause; rdtsc; hlt"
)
WANTED = (1, 5, 8, 12)  # instructions before each RDTSC


def read_out(machine: Bare) -> tuple[int, int, int, int]:
    regs = machine.regs
    return regs.rsi, regs.rdi, regs.rbx, regs.rax


@pytest.mark.parametrize("mode", Mode)
def test_it_is_the_number_of_instructions_before(bare: Make, mode: Mode) -> None:
    machine = bare(mode)
    machine.load(READS)
    assert machine.enter().reason == ExitReason.HLT
    assert read_out(machine) == WANTED


@pytest.mark.parametrize("step", [1, 2, 3])
def test_wherever_the_block_is_cut(bare: Make, step: int) -> None:
    machine = bare()
    machine.load(READS)
    until = 0
    while machine.enter(until=until).reason != ExitReason.HLT:
        until += step
    assert read_out(machine) == WANTED


def test_rdtscp_shows_the_processor_too(bare: Make) -> None:
    machine = bare()
    machine.regs.tsc_aux = 77
    machine.run("nop; mov ecx, 5; rdtscp; hlt")
    assert (machine.regs.rax, machine.regs.rcx) == (2, 77)


def test_rdtscp_is_undefined_where_it_is_not_enabled(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.SECONDARY_VM_EXEC_CONTROL] &= ~int(Secondary.of(enable_rdtscp=1))
    machine.intercept(6)
    vmexit = machine.run("nop; rdtscp; hlt")
    assert (vmexit.reason, vmexit.rip) == (ExitReason.EXCEPTION_NMI, CODE + 1)


@pytest.mark.parametrize(("code", "reason"), [("rdtsc", "RDTSC"), ("rdtscp", "RDTSCP")])
def test_it_exits_where_the_control_says_so(bare: Make, code: str, reason: str) -> None:
    machine = bare()
    machine.control(rdtsc_exiting=1)
    vmexit = machine.run(f"nop; mov eax, 9; {code}; hlt")
    assert (vmexit.name, vmexit.rip, machine.pcpu.instructions) == (reason, CODE + 6, 2)


@pytest.mark.parametrize("code", ["rdtsc", "rdtscp"])
def test_time_stamps_disabled_are_for_ring_0_alone(bare: Make, code: str) -> None:
    machine = bare()
    machine.regs.cr4 |= 1 << 2
    machine.run(f"nop; {code}; hlt")
    assert machine.regs.rax == 1
    machine.intercept(13)
    machine.regs.rip = CODE
    machine.load(f"mov eax, 1; {code}; hlt")
    for name, selector, rights in (("CS", USER_CS, 0xA0FB), ("SS", USER_DATA, 0xC0F3)):
        machine.vmcs[Field[f"GUEST_{name}_SELECTOR"]] = selector
        machine.vmcs[Field[f"GUEST_{name}_AR_BYTES"]] = rights
    machine.word(PML4, PDPT | 7)
    assert machine.enter().interruption_info & 0xFF == 13


def test_pause_is_one_instruction_and_may_exit(bare: Make) -> None:
    machine = bare()
    machine.run("nop; pause; nop; pause; hlt")
    assert machine.pcpu.instructions == 4
    machine.control(pause_exiting=1)
    machine.regs.rip = CODE
    vmexit = machine.run("nop; pause; hlt")
    assert (vmexit.reason, vmexit.rip) == (ExitReason.PAUSE_INSTRUCTION, CODE + 1)
