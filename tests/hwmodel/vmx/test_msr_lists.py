"""MSR lists, and the state that is loaded and saved only if a control says so.

Manual, "Loading MSRs", "Saving MSRs", "VM-Entry Failures During or After Loading Guest State",
"Loading Guest Control Registers, Debug Registers, and MSRs".
"""

from collections.abc import Callable

import pytest

from hwmodel.arch.msr import Msr
from hwmodel.arch.vmcs import Field
from tests.bare import CODE, Bare

Make = Callable[..., Bare]
LIST = 0x30_0000
ENTRY = Field.VM_ENTRY_MSR_LOAD_ADDR, Field.VM_ENTRY_MSR_LOAD_COUNT
STORE = Field.VM_EXIT_MSR_STORE_ADDR, Field.VM_EXIT_MSR_STORE_COUNT
LOAD = Field.VM_EXIT_MSR_LOAD_ADDR, Field.VM_EXIT_MSR_LOAD_COUNT


def put(machine: Bare, where: tuple[Field, Field], *rows: tuple[int, int], at: int = LIST) -> None:
    for n, (index, value) in enumerate(rows):
        machine.word(at + 16 * n, index)
        machine.word(at + 16 * n + 8, value)
    machine.vmcs[where[0]], machine.vmcs[where[1]] = at, len(rows)


def test_an_entry_loads_its_list_in_order(bare: Make) -> None:
    machine = bare()
    put(machine, ENTRY, (Msr.LSTAR, 0x1234), (Msr.TSC_AUX, 7), (Msr.LSTAR, 0x5678))
    assert machine.run("hlt").name == "HLT"
    assert (machine.regs.lstar, machine.regs.tsc_aux) == (0x5678, 7)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (Msr.FS_BASE, 0), (Msr.GS_BASE, 0), (0x800, 0), (0x8FF, 0), (0x9B, 0),
        (Msr.LSTAR | 1 << 40, 0),  # bits 63:32 of the index
        (Msr.LSTAR, 1 << 63), (Msr.SYSCALL_MASK, 1 << 32),  # what WRMSR would refuse
        (Msr.EFER, 1 << 5), (Msr.EFER, 0),  # a reserved bit; LME while paging is on
        (0x1234_5678, 0),  # no such MSR
    ],
)  # fmt: skip
def test_an_entry_that_it_may_not_load_fails_with_its_number(
    bare: Make, index: int, value: int
) -> None:
    machine = bare()
    put(machine, ENTRY, (Msr.TSC_AUX, 7), (index, value))
    vmexit = machine.run("hlt")
    assert (vmexit.name, vmexit.qualification, vmexit.rip) == ("MSR_LOAD_FAIL", 2, CODE)
    assert vmexit.is_entry_failure
    assert machine.vmcs[Field.VM_EXIT_REASON] == 1 << 31 | 34
    assert machine.vmcs.native.launched == 0
    assert machine.regs.rip == CODE


def test_an_exit_stores_the_guests_and_loads_the_hosts(bare: Make) -> None:
    machine = bare()
    put(machine, STORE, (Msr.TSC_AUX, 0), (Msr.EFER, 0), at=LIST)
    put(machine, LOAD, (Msr.TSC_AUX, 0x55), at=LIST + 0x100)
    machine.regs.tsc_aux = 9
    assert machine.run("hlt").name == "HLT"
    assert machine.peek(LIST + 8) == 9
    assert machine.peek(LIST + 24) == 0x500
    assert machine.regs.tsc_aux == 0x55


def test_a_stop_is_no_exit(bare: Make) -> None:
    machine = bare()
    put(machine, LOAD, (Msr.TSC_AUX, 0x55))
    machine.load("l: jmp l")
    assert machine.enter(20).name == "DEADLINE"
    assert machine.regs.tsc_aux == 0


@pytest.mark.parametrize(("where", "index", "abort"), [(STORE, 0x801, 1), (LOAD, Msr.GS_BASE, 4)])
def test_a_list_that_an_exit_cannot_do_is_an_abort(
    bare: Make, where: tuple[Field, Field], index: int, abort: int
) -> None:
    machine = bare()
    put(machine, where, (index, 0))
    vmexit = machine.run("hlt")
    assert (vmexit.name, vmexit.qualification) == ("VMX_ABORT", abort)


@pytest.mark.parametrize("loads", [True, False])
@pytest.mark.parametrize("saves", [True, False])
def test_debug_controls_are_loaded_and_saved_by_control(
    bare: Make, loads: bool, saves: bool
) -> None:
    machine = bare()
    machine.vmcs[Field.VM_ENTRY_CONTROLS] &= ~(0 if loads else 4)
    machine.vmcs[Field.VM_EXIT_CONTROLS] &= ~(0 if saves else 4)
    machine.regs.dr7 = 0x402
    assert machine.run("mov rax, dr7; mov rbx, rax; or ebx, 1; mov dr7, rbx; hlt").name == "HLT"
    assert machine.regs.rax == (0x402 if loads else 0x400)
    assert machine.regs.dr7 == (machine.regs.rax | 1 if saves else 0x402)


def test_without_load_efer_the_mode_follows_the_control(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.VM_ENTRY_CONTROLS] &= ~(1 << 15)
    machine.vmcs[Field.GUEST_IA32_EFER] = 0  # not looked at
    assert machine.run("mov r8, 5; hlt").name == "HLT"
    assert machine.regs.r8 == 5
    assert machine.vmcs[Field.GUEST_IA32_EFER] == 0xD01  # the host's other bits
    machine.vmcs[Field.VM_EXIT_CONTROLS] &= ~(1 << 20)
    machine.vmcs[Field.GUEST_IA32_EFER] = 0
    assert machine.run("hlt", rip=CODE).name == "HLT"
    assert machine.vmcs[Field.GUEST_IA32_EFER] == 0


def test_pat_is_the_hosts_where_it_is_not_loaded(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.VM_ENTRY_CONTROLS] &= ~(1 << 14)
    machine.vmcs[Field.GUEST_IA32_PAT] = 0
    assert machine.run("hlt").name == "HLT"
    assert machine.vmcs[Field.GUEST_IA32_PAT] == machine.vmcs[Field.HOST_IA32_PAT]
