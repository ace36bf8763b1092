"""The APIC-access page: which loads and stores reach the virtual-APIC page, which exit, and how.

Manual, "Virtualizing Memory-Mapped APIC Accesses" and "Exit Qualification for APIC-Access VM Exits".
"""

from collections.abc import Callable

import pytest

from hwmodel.arch.vmcs import Field
from tests.bare import CODE, Bare

Make = Callable[..., Bare]
APIC, PAGE = 0x31_0000, 0x30_0000
READ, WRITE, FETCH, DELIVERY = 0, 1, 2, 3


@pytest.fixture(name="make")
def _make(bare: Make) -> Make:
    """A machine with a TPR shadow and the controls that are asked for."""

    def make(**controls: int) -> Bare:
        machine = bare()
        machine.vmcs[Field.VIRTUAL_APIC_PAGE_ADDR] = PAGE
        machine.vmcs[Field.APIC_ACCESS_ADDR] = APIC
        machine.vmcs[Field.PIN_BASED_VM_EXEC_CONTROL] |= 1
        machine.control(use_tpr_shadow=1)
        machine.control2(virtualize_apic_accesses=1, **controls)
        machine.regs.rbx = APIC
        return machine

    return make


@pytest.mark.parametrize(
    ("text", "offset", "kind"),
    [
        ("mov eax, [rbx + 0x20]", 0x20, READ),  # no register virtualization
        ("mov [rbx + 0xB0], eax", 0xB0, WRITE),
        ("mov rax, [rbx + 0x80]", 0x80, READ),  # 64 bits
        ("mov eax, [rbx + 0x82]", 0x82, READ),  # beyond the low 4 bytes of 16
        ("mov eax, [rbx + 0x84]", 0x84, READ),
        ("add dword ptr [rbx + 0x80], 1", 0x80, WRITE),  # reads and writes
        ("jmp rbx", 0, FETCH),
    ],
)
def test_what_is_not_virtualized_exits(make: Make, text: str, offset: int, kind: int) -> None:
    vmexit = make().run(f"nop; {text}; hlt", rbx=APIC)
    assert (vmexit.name, vmexit.qualification) == ("APIC_ACCESS", kind << 12 | offset)
    assert vmexit.rip == (APIC if kind == FETCH else CODE + 1)
    assert vmexit.instructions == (2 if kind == FETCH else 1)


def test_without_a_tpr_shadow_everything_exits(make: Make) -> None:
    machine = make()
    machine.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] &= ~(1 << 21)
    assert machine.run("mov eax, [rbx + 0x80]").name == "APIC_ACCESS"


def test_the_tpr_is_virtual(make: Make) -> None:
    machine = make()
    machine.word(PAGE + 0x80, 0x55)
    vmexit = machine.run(
        "mov eax, [rbx + 0x80]; mov byte ptr [rbx + 0x80], 0x70; mov ch, [rbx + 0x80]; hlt"
    )
    assert vmexit.name == "HLT"
    assert (machine.regs.rax, machine.regs.rcx >> 8 & 0xFF) == (0x55, 0x70)
    assert (machine.peek(PAGE + 0x80, 4), machine.peek(APIC + 0x80, 4)) == (0x70, 0)
    assert vmexit.instructions == 3


def test_a_tpr_below_the_threshold_exits(make: Make) -> None:
    machine = make()
    machine.word(PAGE + 0x80, 0x50)
    machine.vmcs[Field.TPR_THRESHOLD] = 4
    vmexit = machine.run("mov dword ptr [rbx + 0x80], 0x30; hlt")
    assert (vmexit.name, vmexit.instructions) == ("TPR_BELOW_THRESHOLD", 1)
    assert vmexit.rip == CODE + 10


@pytest.mark.parametrize("offset", [0x20, 0x30, 0x80, 0xB0, 0xD0, 0xE0, 0xF0, 0x100, 0x270, 0x280,
                                    0x300, 0x310, 0x320, 0x370, 0x380, 0x3E0])  # fmt: skip
def test_registers_are_read_from_the_page(make: Make, offset: int) -> None:
    machine = make(apic_register_virtualization=1)
    machine.word(PAGE + offset, 0xAABB_CCDD)
    assert machine.run(f"mov eax, [rbx + {offset}]; hlt").name == "HLT"
    assert machine.regs.rax == 0xAABB_CCDD


@pytest.mark.parametrize("offset", [0x40, 0x90, 0xA0, 0xC0, 0x390, 0x3F0])
def test_what_is_no_such_register_exits(make: Make, offset: int) -> None:
    vmexit = make(apic_register_virtualization=1).run(f"mov eax, [rbx + {offset}]")
    assert (vmexit.name, vmexit.qualification) == ("APIC_ACCESS", offset)


@pytest.mark.parametrize("offset", [0x20, 0xB0, 0xD0, 0xF0, 0x280, 0x300, 0x320, 0x380, 0x3E0])
def test_a_write_exits_behind_the_instruction(make: Make, offset: int) -> None:
    machine = make(apic_register_virtualization=1)
    vmexit = machine.run(f"mov [rbx + {offset}], eax; hlt", rax=0x1234)
    assert (vmexit.name, vmexit.qualification, vmexit.instructions) == ("APIC_WRITE", offset, 1)
    assert machine.peek(PAGE + offset, 4) == 0x1234
    assert vmexit.rip > CODE


def test_icr_high_keeps_its_byte_and_does_not_exit(make: Make) -> None:
    machine = make(apic_register_virtualization=1)
    assert machine.run("mov [rbx + 0x310], eax; hlt", rax=0x1234_5678).name == "HLT"
    assert machine.peek(PAGE + 0x310, 4) == 0x1200_0000


def test_an_ipi_to_itself_and_its_eoi_need_no_exit(make: Make) -> None:
    machine = make(virtual_interrupt_delivery=1)
    machine.gate(0x41, CODE + 0x100)
    machine.load("mov dword ptr [rbx + 0xB0], 0; hlt", CODE + 0x100)
    vmexit = machine.run("sti; nop; mov dword ptr [rbx + 0x300], 0x40041; nop; nop")
    assert (vmexit.name, machine.pcpu.exits_by_name()) == ("HLT", {"HLT": 1})
    assert vmexit.rip > CODE + 0x100
    assert machine.vmcs[Field.GUEST_INTR_STATUS] == 0


def test_an_ipi_to_others_exits(make: Make) -> None:
    machine = make(virtual_interrupt_delivery=1)
    vmexit = machine.run("mov dword ptr [rbx + 0x300], 0xC0041")  # all but itself
    assert (vmexit.name, vmexit.qualification) == ("APIC_WRITE", 0x300)


def test_an_access_on_the_way_of_an_event(make: Make) -> None:
    machine = make()
    machine.regs.rsp = APIC + 0x100
    machine.gate(6, CODE + 0x100)
    vmexit = machine.run("ud2")
    assert vmexit.name == "APIC_ACCESS"
    assert vmexit.qualification >> 12 == DELIVERY
    assert vmexit.idt_vectoring_info == 1 << 31 | 3 << 8 | 6


def test_the_page_is_memory_again_without_the_control(make: Make) -> None:
    machine = make()
    machine.word(PAGE + 0x80, 0x55)
    machine.word(APIC + 0x80, 0x99)
    assert machine.run("mov eax, [rbx + 0x80]; hlt").name == "HLT"
    machine.vmcs[Field.SECONDARY_VM_EXEC_CONTROL] &= ~1
    machine.regs.rip = CODE
    assert machine.enter().name == "HLT"
    assert machine.regs.rax == 0x99
    machine.control2(virtualize_apic_accesses=1)
    machine.regs.rip = CODE
    assert machine.enter().name == "HLT"
    assert machine.regs.rax == 0x55
