"""The virtual APIC: TPR shadow, x2APIC mode, virtual interrupts, posted interrupts.

Manual, "APIC Virtualization and Virtual Interrupts"; what is written to the page is read back there.
"""

from collections.abc import Callable

import pytest

from hwmodel.arch.vmcs import Field
from tests.bare import CODE, Bare

Make = Callable[..., Bare]
PAGE, DESCRIPTOR, BITMAP = 0x30_0000, 0x30_1000, 0x30_2000
VTPR, VPPR, VISR, VIRR = PAGE + 0x80, PAGE + 0xA0, PAGE + 0x100, PAGE + 0x200
STATUS = Field.GUEST_INTR_STATUS
WRMSR = "mov ecx, {:#x}; mov eax, {:#x}; xor edx, edx; wrmsr; "


def bit(base: int, vector: int) -> tuple[int, int]:
    """Address of the 32 bits that hold a vector, and its mask."""
    return base + vector // 32 * 16, 1 << vector % 32


def has(machine: Bare, base: int, vector: int) -> bool:
    at, mask = bit(base, vector)
    return bool(machine.peek(at, 4) & mask)


@pytest.fixture(name="machine")
def _machine(bare: Make) -> Bare:
    """x2APIC mode with everything on; handlers of 0x41 and 0x61 halt."""
    machine = bare()
    machine.vmcs[Field.VIRTUAL_APIC_PAGE_ADDR] = PAGE
    machine.vmcs[Field.MSR_BITMAP] = BITMAP
    machine.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= 1
    machine.control(use_tpr_shadow=1, use_msr_bitmaps=1)
    machine.control2(
        virtualize_x2apic_mode=1, apic_register_virtualization=1, virtual_interrupt_delivery=1
    )
    for vector, handler in ((0x41, CODE + 0x100), (0x61, CODE + 0x200)):
        machine.gate(vector, handler)
        machine.load("hlt", handler)
    return machine


def test_cr8_is_the_shadow(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.VIRTUAL_APIC_PAGE_ADDR] = PAGE
    machine.control(use_tpr_shadow=1)
    machine.word(VTPR, 0x75)
    assert machine.run("mov rax, cr8; mov cr8, rbx; hlt", rbx=0xA).name == "HLT"
    assert machine.regs.rax == 7
    assert machine.peek(VTPR, 4) == 0xA0
    assert machine.regs.cr8 == 0  # the processor's own is another


def test_a_tpr_below_the_threshold_exits_behind_the_instruction(bare: Make) -> None:
    machine = bare()
    machine.vmcs[Field.VIRTUAL_APIC_PAGE_ADDR] = PAGE
    machine.control(use_tpr_shadow=1)
    machine.word(VTPR, 0x50)
    machine.vmcs[Field.TPR_THRESHOLD] = 4
    machine.regs.rbx, machine.regs.rdx = 4, 3
    vmexit = machine.run("mov cr8, rbx; mov cr8, rdx; hlt")
    assert (vmexit.name, vmexit.rip) == ("TPR_BELOW_THRESHOLD", CODE + 8)
    assert (vmexit.instructions, vmexit.qualification) == (2, 0)


def test_x2apic_registers_are_read_from_the_page(machine: Bare) -> None:
    machine.word(PAGE + 0x20, 0x1234_5678_9ABC_DEF0)
    assert machine.run("mov ecx, 0x802; rdmsr; hlt").name == "HLT"
    assert (machine.regs.rax, machine.regs.rdx) == (0x9ABC_DEF0, 0x1234_5678)


def test_without_register_virtualization_only_the_tpr_is(machine: Bare) -> None:
    machine.vmcs[Field.SECONDARY_VM_EXEC_CONTROL] &= ~(1 << 8)
    machine.word(VTPR, 0x20)
    vmexit = machine.run("mov ecx, 0x808; rdmsr; mov ecx, 0x802; rdmsr")
    assert (vmexit.name, machine.regs.rax) == ("MSR_READ", 0x20)


def test_the_msr_bitmap_comes_first(machine: Bare) -> None:
    machine.word(BITMAP + 0x808 // 8, 1)
    assert machine.run("mov ecx, 0x808; rdmsr").name == "MSR_READ"


def test_a_write_with_reserved_bits_faults(machine: Bare) -> None:
    machine.intercept(13)
    assert machine.run(WRMSR.format(0x808, 0x100)).interruption_info & 0xFF == 13
    machine.regs.rip = CODE
    assert machine.run(WRMSR.format(0x80B, 1)).interruption_info & 0xFF == 13


def test_a_self_ipi_is_delivered_without_an_exit(machine: Bare) -> None:
    vmexit = machine.run("sti; nop; " + WRMSR.format(0x83F, 0x41) + "nop; nop")
    assert (vmexit.name, vmexit.rip) == ("HLT", CODE + 0x100)
    assert machine.vmcs[STATUS] == 0x4100  # SVI; nothing requested
    assert (machine.peek(VPPR, 4), has(machine, VISR, 0x41), has(machine, VIRR, 0x41)) == (
        0x40, True, False,
    )  # fmt: skip
    assert machine.peek(machine.regs.rsp) == CODE + 2 + 14  # behind WRMSR


def test_a_self_ipi_of_a_low_vector_is_software_s_business(machine: Bare) -> None:
    vmexit = machine.run(WRMSR.format(0x83F, 0x0F) + "nop")
    assert (vmexit.name, vmexit.qualification) == ("APIC_WRITE", 0x3F0)
    assert vmexit.rip == CODE + 14


def test_a_virtual_interrupt_waits_for_priority(machine: Bare) -> None:
    machine.word(VTPR, 0x40)
    program = "sti; nop; " + WRMSR.format(0x83F, 0x41) + "nop; mov eax, 0x30; mov cr8, rbx; hlt"
    vmexit = machine.run(program, rbx=3)
    assert vmexit.rip == CODE + 0x100
    assert machine.peek(machine.regs.rsp) == CODE + 2 + 14 + 1 + 5 + 4  # the TPR let it in


def test_it_waits_for_if_and_for_the_end_of_a_shadow(machine: Bare) -> None:
    vmexit = machine.run(WRMSR.format(0x83F, 0x41) + "nop; sti; nop; nop")
    assert vmexit.rip == CODE + 0x100
    assert machine.peek(machine.regs.rsp) == CODE + 14 + 3


def test_an_eoi_takes_the_next_and_may_exit(machine: Bare) -> None:
    machine.vmcs[STATUS] = 0x6141  # 0x61 in service, 0x41 requested
    for vector, base in ((0x61, VISR), (0x41, VIRR)):
        at, mask = bit(base, vector)
        machine.word(at, mask)
    machine.vmcs[Field.EOI_EXIT_BITMAP1] = 1 << (0x61 - 0x40)
    vmexit = machine.run("sti; nop; nop; " + WRMSR.format(0x80B, 0) + "nop")
    assert (vmexit.name, vmexit.qualification) == ("EOI_INDUCED", 0x61)
    assert vmexit.rip == CODE + 3 + 14
    assert (machine.vmcs[STATUS], has(machine, VISR, 0x61)) == (0x41, False)
    assert machine.enter().rip == CODE + 0x100


def test_an_entry_finds_what_is_requested(machine: Bare) -> None:
    machine.vmcs[STATUS] = 0x41
    machine.word(*bit(VIRR, 0x41))
    machine.regs.rflags |= 0x200
    vmexit = machine.run("nop")
    assert (vmexit.rip, vmexit.instructions) == (CODE + 0x100, 0)


def test_an_interrupt_window_keeps_them_back(machine: Bare) -> None:
    machine.control(interrupt_window_exiting=1)
    machine.vmcs[STATUS] = 0x41
    machine.word(*bit(VIRR, 0x41))
    machine.regs.rflags |= 0x200
    assert machine.run("nop").name == "INTERRUPT_WINDOW"


def test_a_notification_posts_without_an_exit(machine: Bare) -> None:
    machine.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= 1 << 7
    machine.vmcs[Field.POSTED_INTR_NV] = 0xF2
    machine.vmcs[Field.POSTED_INTR_DESC_ADDR] = DESCRIPTOR
    machine.word(DESCRIPTOR + 0x41 // 64 * 8, 1 << 0x41 % 64 | 1 << 0x61 % 64)
    machine.word(DESCRIPTOR + 32, 1)
    machine.regs.rflags |= 0x200
    machine.pcpu.raise_interrupt(0xF2)
    vmexit = machine.run("nop")
    assert (vmexit.name, vmexit.rip) == ("HLT", CODE + 0x200)  # the higher first
    assert [machine.peek(DESCRIPTOR + at) for at in (8, 32)] == [0, 0]
    assert machine.vmcs[STATUS] == 0x6141
    machine.pcpu.raise_interrupt(0xF3)  # any other vector is the host's
    assert machine.enter().name == "EXTERNAL_INTERRUPT"


def test_a_halted_guest_wakes_for_a_posted_interrupt(machine: Bare) -> None:
    machine.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] &= ~(1 << 7)
    machine.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= 1 << 7
    machine.vmcs[Field.POSTED_INTR_NV] = 0xF2
    machine.vmcs[Field.POSTED_INTR_DESC_ADDR] = DESCRIPTOR
    machine.load("vmcall", CODE + 0x100)
    machine.load("sti; hlt; nop")
    assert machine.enter(100).name == "DEADLINE"
    machine.word(DESCRIPTOR + 8, 1 << 1)
    machine.pcpu.raise_interrupt(0xF2)
    assert machine.enter(200).name == "VMCALL"
