"""What invalidates what, row by row as the manual says it: invalidation.txt, on a running guest."""

from collections.abc import Callable

import pytest

from hwmodel.arch.model import CpuModel
from hwmodel.arch.paging import InvEpt, InvVpid
from hwmodel.arch.translation import Fidelity
from hwmodel.arch.vmcs import Field
from tests.bare import MIB, PD, PML4, Bare
from tests.hwmodel.manual.machine import Row, table

Make = Callable[..., Bare]
VIEW, OLD, NEW, DESCRIPTOR = 2 * MIB + 0x10_0000, 0x30_5000, 0x30_6000, 0x30_8000
ENTRY = 0x20000 + 8 * 0x100
PGE, PCIDE, SMEP, TSD, KEEP = 1 << 7, 1 << 17, 1 << 20, 1 << 2, 1 << 63
VALUES = {0x0D: "old", 0x9E: "new"}


@pytest.fixture(name="machine")
def _machine(bare: Make) -> Bare:
    made = bare(pages_4k=True)
    made.pcpu.set_paging(CpuModel.load(), Fidelity.SHARED)
    made.control2(enable_vpid=1, enable_invpcid=1)
    made.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 5
    made.regs.cr4 |= PGE | PCIDE
    made.word(PD, 0x83)  # the code is a supervisor's: SMEP may be switched on
    made.word(OLD, 0x0D)
    made.word(NEW, 0x9E)
    return made


def guest_code(operation: str) -> str:
    """Return instructions for an operation of the table that a guest can make."""
    return "; ".join(_one(step.strip()) for step in operation.split(","))


def _one(step: str) -> str:
    words = step.split()
    pcid = int(words[words.index("pcid") + 1]) if "pcid" in words else 0
    if step.startswith("mov cr3"):
        value = PML4 | pcid | (KEEP if "keep" in words else 0)
        return f"mov rcx, {value}; mov cr3, rcx"
    if step.startswith("invlpg"):
        return f"invlpg [rbx + {4096 if 'next' in words else 0}]"
    if step.startswith("invpcid"):
        linear = VIEW + (4096 if "next" in words else 0)
        return f"""mov qword ptr [{DESCRIPTOR}], {pcid}; mov rdx, {linear}
            mov qword ptr [{DESCRIPTOR + 8}], rdx; mov rcx, {words[1]}
            invpcid rcx, [{DESCRIPTOR}]"""
    flip = {"mov cr4 pge": PGE, "mov cr4 smep": SMEP, "mov cr4 same": 0, "mov cr4 tsd": TSD,
            "mov cr4 pcide off": PCIDE}.get(step)  # fmt: skip
    if flip is not None:
        return f"mov rcx, cr4; xor rcx, {flip}; mov cr4, rcx"
    return {
        "nothing": "nop", "task switch to the same": "nop",
        "mov cr0 wp": "mov rcx, cr0; bts rcx, 16; mov cr0, rcx",
    }[step]  # fmt: skip


def by_guest(machine: Bare, operation: str, flags: int) -> str:
    """Change the entry behind the TLB's back in a guest, make the operation, read again."""
    machine.word(ENTRY, OLD | flags)
    machine.run(f"""
        mov rbx, {VIEW}; mov r8, [rbx]; mov dword ptr [{ENTRY}], {NEW | flags}
        {guest_code(operation)}
        mov rax, [rbx]; hlt
    """)  # fmt: skip
    assert machine.regs.r8 == 0x0D
    return VALUES[machine.regs.rax]


def look(machine: Bare) -> str:
    """Read the page as it is seen now."""
    got = machine.pcpu.read(machine.vmcs, VIEW, 1)
    assert isinstance(got, bytes)
    return VALUES[got[0]]


def by_software(machine: Bare, operation: str, flags: int) -> str:
    """The same, with an operation of VMX root software."""
    words, pcpu, vmcs = operation.split(), machine.pcpu, machine.vmcs
    machine.word(ENTRY, OLD | flags)
    assert look(machine) == "old"
    machine.word(ENTRY, NEW | flags)
    if words[0] == "invvpid":
        linear = VIEW + (4096 if "next" in words else 0)
        pcpu.invvpid(InvVpid(int(words[1])), 6 if "6" in words[2:] else 5, linear)
    elif words[0] == "invept":
        root = machine.ept.pointer() + (0x1000 if "other" in words else 0)
        pcpu.invept(InvEpt(int(words[1])), root)
    elif operation == "exit and entry":
        assert machine.run("hlt").name == "HLT"
    elif operation in ("entry with vpid 6", "vpid 6 and back"):
        vmcs[Field.VIRTUAL_PROCESSOR_ID] = 6
        assert machine.run("hlt").name == "HLT"
        if "back" in words:
            vmcs[Field.VIRTUAL_PROCESSOR_ID] = 5
    else:
        _without_vpid(machine, back="back" in words)
    return look(machine)


def _without_vpid(machine: Bare, *, back: bool) -> None:
    on = machine.vmcs[Field.SECONDARY_VM_EXEC_CONTROL]
    machine.vmcs[Field.SECONDARY_VM_EXEC_CONTROL] = on & ~(1 << 5)
    assert machine.run("hlt").name == "HLT"
    if back:
        machine.vmcs[Field.SECONDARY_VM_EXEC_CONTROL] = on


def paging_off_and_on(machine: Bare, flags: int) -> str:
    """CR0.PG through software: the guest's registers are what they were, its mappings are not."""
    machine.word(ENTRY, OLD | flags)
    assert look(machine) == "old"
    machine.word(ENTRY, NEW | flags)
    machine.regs.cr4 &= ~PCIDE
    # In 32-bit code: mov ecx, cr0; btr ecx, 31; mov cr0, ecx; bts ecx, 31; mov cr0, ecx; hlt
    machine.vmcs[Field.GUEST_CS_SELECTOR], machine.vmcs[Field.GUEST_CS_AR_BYTES] = 8, 0xC09B
    machine.poke(0x10000, bytes.fromhex("0f20c1 0fbaf11f 0f22c1 0fbae91f 0f22c1 f4"))
    machine.regs.rip = 0x10000
    assert machine.enter().name == "HLT"
    machine.vmcs[Field.GUEST_CS_SELECTOR], machine.vmcs[Field.GUEST_CS_AR_BYTES] = 16, 0xA09B
    return look(machine)


@table("invalidation.txt")
def test_invalidation(machine: Bare, row: Row) -> None:
    page, operation, seen, _ = row.cells
    flags = 7 | (0x100 if page == "global" else 0)
    first = operation.split()[0]
    if operation == "mov cr0 paging off and on":
        assert paging_off_and_on(machine, flags) == seen
    elif first in ("invvpid", "invept", "exit", "entry", "vpid"):
        assert by_software(machine, operation, flags) == seen
    else:
        assert by_guest(machine, operation, flags) == seen
