"""What EPT does beside translating: page-modification log, EPTP switching, #VE, NMI unblocking."""

from collections.abc import Callable

import pytest

from hwmodel.arch.controls import VmFunction
from hwmodel.arch.qualification import EptViolation, PmlFull
from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import PAGE
from tests.bare import CODE, MIB, Bare
from vmm.memory.ept import Slot

Make = Callable[..., Bare]
LOG, LIST, INFORMATION, OTHER_EPT = 0x31_0000, 0x31_1000, 0x31_2000, 0x32_0000
VIEW = 2 * MIB + 0x10_0000
NOWHERE = 0x800_0000
VE = 20


def logging(bare: Make, index: int = 511) -> Bare:
    machine = bare(pages_4k=True)
    machine.control2(enable_pml=1)
    for page in range(0, 4 * MIB, PAGE):
        machine.ept.map(Slot(page, PAGE, page))
    machine.vmcs[Field.PML_ADDRESS] = LOG
    machine.vmcs[Field.GUEST_PML_INDEX] = index
    return machine


def test_a_page_is_logged_when_it_gets_dirty(bare: Make) -> None:
    """Page tables too: their accessed flags are stores, and with A/D every walk counts as one."""
    machine = logging(bare)
    machine.run(
        f"mov rbx, {VIEW}; mov [rbx], rbx; mov [rbx + 8], rbx; mov rax, [rbx + 0x1000]; hlt"
    )
    index = machine.vmcs[Field.GUEST_PML_INDEX]
    logged = [machine.peek(LOG + 8 * n) for n in range(511, index, -1)]
    assert logged.count(VIEW) == 1
    assert VIEW + 0x1000 not in logged
    assert {0x1000, 0x2000, 0x3000, 0x20000} <= set(logged)
    entry, _ = machine.ept.entry(VIEW)
    assert entry >> 8 & 3 == 3
    entry, _ = machine.ept.entry(VIEW + 0x1000)
    assert entry >> 8 & 3 == 1


@pytest.mark.parametrize("index", [0xFFFF, 512])
def test_a_full_log_exits_and_leaves_the_flag(bare: Make, index: int) -> None:
    machine = logging(bare, index)
    vmexit = machine.run(f"mov rbx, {VIEW}; mov [rbx], rbx; hlt")
    assert vmexit.name == "PML_FULL"
    assert not PmlFull(vmexit.qualification).nmi_unblocked_by_iret
    assert machine.vmcs[Field.GUEST_PML_INDEX] == index
    assert machine.peek(VIEW) == 0
    machine.vmcs[Field.GUEST_PML_INDEX] = 511
    assert machine.enter().name == "HLT"
    assert machine.peek(VIEW) == VIEW


def switching(bare: Make) -> Bare:
    """A second EPT in which VIEW is another page, at index 1 of the list."""
    machine = bare(pages_4k=True)
    machine.control2(enable_vm_functions=1, enable_vpid=1)
    machine.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 1
    machine.vmcs[Field.VM_FUNCTION_CONTROL] = int(VmFunction.of(eptp_switching=1))
    machine.vmcs[Field.EPTP_LIST_ADDRESS] = LIST
    root, view = OTHER_EPT, bytes(machine.ram.view)
    for n in range(3):
        machine.word(root + n * PAGE, root + (n + 1) * PAGE | 7)
    machine.word(root + 2 * PAGE, 0xB7)
    machine.word(root + 2 * PAGE + 8, root + 3 * PAGE | 7)
    for n in range(512):
        machine.word(root + 3 * PAGE + 8 * n, 2 * MIB + n * PAGE | 0x37)
    machine.word(root + 3 * PAGE + 8 * 0x100, 0x30_5000 | 0x37)
    machine.word(LIST, machine.ept.pointer())
    machine.word(LIST + 8, root | 0x1E)
    machine.word(LIST + 16, root | 0x1F)
    machine.word(0x30_5000, 0x5555)
    machine.word(VIEW, 0x1111)
    assert len(view) > root
    return machine


def test_eptp_switching(bare: Make) -> None:
    machine = switching(bare)
    vmexit = machine.run(f"""
        mov rbx, {VIEW}
        mov r8, [rbx]
        xor eax, eax
        mov ecx, 1
        .byte 0x0f, 0x01, 0xd4
        mov r9, [rbx]
        xor ecx, ecx
        .byte 0x0f, 0x01, 0xd4
        mov r10, [rbx]
        hlt
    """)
    assert vmexit.name == "HLT"
    assert (machine.regs.r8, machine.regs.r9, machine.regs.r10) == (0x1111, 0x5555, 0x1111)
    assert machine.vmcs[Field.EPT_POINTER] == machine.ept.pointer()


@pytest.mark.parametrize(
    ("function", "index", "name", "vector"),
    [(0, 2, "VMFUNC", 0), (0, 512, "VMFUNC", 0), (1, 0, "VMFUNC", 0), (64, 0, "EXCEPTION_NMI", 6)],
)
def test_vm_functions_that_exit_or_do_not_exist(
    bare: Make, function: int, index: int, name: str, vector: int
) -> None:
    machine = switching(bare)
    machine.intercept(6)
    vmexit = machine.run(".byte 0x0f, 0x01, 0xd4", rax=function, rcx=index)
    assert vmexit.name == name
    assert vmexit.interruption_info & 0xFF == vector
    assert vmexit.instruction_length == (3 if name == "VMFUNC" else 0)


def convertible(bare: Make) -> Bare:
    machine = bare(pages_4k=True)
    machine.control2(ept_violation_ve=1)
    machine.vmcs[Field.VE_INFORMATION_ADDRESS] = INFORMATION
    machine.vmcs[Field.EPTP_INDEX] = 7
    machine.word(0x20000, NOWHERE | 7)
    machine.gate(VE, CODE + 0x400)
    machine.load("mov r15, [rsp]; hlt", CODE + 0x400)
    return machine


def test_a_violation_becomes_an_exception(bare: Make) -> None:
    machine = convertible(bare)
    vmexit = machine.run(f"mov rbx, {2 * MIB + 8}; mov rax, [rbx]", rdx=1)
    assert (vmexit.name, vmexit.rip) == ("HLT", CODE + 0x404)
    assert machine.peek(INFORMATION, 4) == 48
    assert machine.peek(INFORMATION + 4, 4) == 0xFFFF_FFFF
    assert EptViolation(machine.peek(INFORMATION + 8)).read
    assert machine.peek(INFORMATION + 16) == 2 * MIB + 8
    assert machine.peek(INFORMATION + 24) == NOWHERE + 8
    assert machine.peek(INFORMATION + 32, 2) == 7


def test_it_stays_an_exit_while_the_guest_has_not_read_the_last_one(bare: Make) -> None:
    machine = convertible(bare)
    machine.word(INFORMATION, 1 << 32)
    assert machine.run(f"mov rax, [{2 * MIB}]").name == "EPT_VIOLATION"


def test_it_stays_an_exit_where_the_entry_says_so(bare: Make) -> None:
    machine = convertible(bare)
    machine.ept.map(Slot(NOWHERE, PAGE, 0))
    machine.ept.unmap_page(NOWHERE)
    at = machine.ept.root
    for level in (4, 3):
        at = machine.peek(at + 8 * (NOWHERE >> 3 + 9 * level & 511)) & -PAGE
    machine.word(at + 8 * (NOWHERE >> 21 & 511), 1 << 63)
    assert machine.run(f"mov rax, [{2 * MIB}]").name == "EPT_VIOLATION"


def test_iret_that_unblocks_nmis_and_exits_says_so(bare: Make) -> None:
    machine = bare(pages_4k=True)
    machine.word(0x20000, NOWHERE | 7)
    machine.vmcs[Field.GUEST_INTERRUPTIBILITY_INFO] = 8
    vmexit = machine.run(f"mov rsp, {2 * MIB}; iretq")
    assert vmexit.name == "EPT_VIOLATION"
    assert EptViolation(vmexit.qualification).nmi_unblocked_by_iret
    again = machine.enter()
    assert not EptViolation(again.qualification).nmi_unblocked_by_iret
