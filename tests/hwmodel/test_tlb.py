"""What each instruction and transition invalidates, and what stays: seen by stale mappings.

Manual: "Invalidation of TLBs and Paging-Structure Caches", "INVPCID", "Invalidating Cached
Translation Information". Each rule holds in every fidelity of the modelled TLB.
"""

from collections.abc import Callable

import pytest

from hwmodel.arch.model import CpuModel
from hwmodel.arch.paging import InvEpt, InvVpid
from hwmodel.arch.translation import Fidelity
from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import PAGE
from tests.bare import MIB, PML4, Bare
from vmm.memory.ept import Slot

Make = Callable[..., Bare]
TABLE = 0x20000
VIEW = 2 * MIB + 0x10_0000
ENTRY = TABLE + 8 * 0x100
OLD, NEW = 0x30_5000, 0x30_6000
PGE, PCIDE = 1 << 7, 1 << 17
KEEP = 1 << 63
DESCRIPTOR = 0x30_8000


@pytest.fixture(name="machine", params=list(Fidelity), ids=lambda f: f.name.lower())
def _machine(bare: Make, request: pytest.FixtureRequest) -> Bare:
    made = bare(pages_4k=True)
    made.pcpu.set_paging(CpuModel.load(), request.param)
    made.control2(enable_vpid=1, enable_invpcid=1)
    made.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 5
    made.regs.cr4 |= PGE | PCIDE
    made.word(OLD, 0x0D)
    made.word(NEW, 0x9E)
    made.word(ENTRY, OLD | 7)
    return made


def sees(machine: Bare, between: str = "", flags: int = 7, **registers: int) -> str:
    """What a load finds after the mapping was changed behind the TLB's back."""
    machine.word(ENTRY, OLD | flags)
    machine.run(f"""
        mov rbx, {VIEW}
        mov r8, [rbx]
        mov dword ptr [{ENTRY}], {NEW | flags}
        {between}
        mov rax, [rbx]
        hlt
    """, **registers)  # fmt: skip
    assert machine.regs.r8 == 0x0D
    return {0x0D: "old", 0x9E: "new"}[machine.regs.rax]


def invpcid(kind: int, pcid: int = 0, linear: int = 0) -> str:
    return f"""
        mov qword ptr [{DESCRIPTOR}], {pcid}
        mov rdx, {linear}
        mov qword ptr [{DESCRIPTOR + 8}], rdx
        mov rcx, {kind}
        invpcid rcx, [{DESCRIPTOR}]
    """


def load_cr3(bits: int) -> str:
    return f"mov rcx, {PML4 | bits}; mov cr3, rcx"


GLOBAL = 7 | 0x100


@pytest.mark.parametrize(
    ("between", "flags", "seen"),
    [
        ("", 7, "old"),
        ("invlpg [rbx]", 7, "new"),
        ("invlpg [rbx]", GLOBAL, "new"),
        ("invlpg [rbx + 4096]", 7, "old"),
        (load_cr3(0), 7, "new"),
        (load_cr3(0), GLOBAL, "old"),
        (load_cr3(KEEP), 7, "old"),
        (load_cr3(KEEP | 3) + "; " + load_cr3(KEEP), 7, "old"),
        (load_cr3(3) + "; " + load_cr3(KEEP), 7, "old"),
        (load_cr3(3) + "; " + load_cr3(0), 7, "new"),
        (load_cr3(3), GLOBAL, "old"),
        (load_cr3(KEEP | 3), 7, "new"),
        (invpcid(0, 0, VIEW), 7, "new"),
        (invpcid(0, 0, VIEW + 4096), 7, "old"),
        (invpcid(0, 3, VIEW), 7, "old"),
        (invpcid(1, 0), 7, "new"),
        (invpcid(1, 0), GLOBAL, "old"),
        (invpcid(1, 3), 7, "old"),
        (invpcid(2), 7, "new"),
        (invpcid(2), GLOBAL, "new"),
        (invpcid(3), 7, "new"),
        (invpcid(3), GLOBAL, "old"),
    ],
)
def test_what_the_guest_can_invalidate(machine: Bare, between: str, flags: int, seen: str) -> None:
    assert sees(machine, between, flags) == seen


@pytest.mark.parametrize(("kind", "pcid"), [(0, 3), (1, 3), (2, 0), (3, 0)])
def test_another_pcids_mappings_go_too(machine: Bare, kind: int, pcid: int) -> None:
    """They are made under PCID 3 and dropped from PCID 0."""
    before = load_cr3(KEEP | 3) + "; mov r9, [rbx]; " + f"mov dword ptr [{ENTRY}], {NEW | 7}; "
    there = before + load_cr3(KEEP) + ";" + invpcid(kind, pcid, VIEW) + load_cr3(KEEP | 3)
    machine.word(ENTRY, OLD | 7)
    machine.run(f"mov rbx, {VIEW}; {there}; mov rax, [rbx]; hlt")
    assert (machine.regs.r9, machine.regs.rax) == (0x0D, 0x9E)


@pytest.mark.parametrize(
    "wrong",
    [invpcid(4), invpcid(1, 0x1000), invpcid(0, 0, 1 << 50)],
    ids=["type", "pcid", "linear"],
)
def test_invpcid_refuses(machine: Bare, wrong: str) -> None:
    machine.intercept(13)
    assert machine.run(wrong).name == "EXCEPTION_NMI"


def warm(machine: Bare) -> None:
    assert machine.pcpu.read(machine.vmcs, VIEW, 1) == b"\x0d"
    machine.word(ENTRY, NEW | 7)


def after(machine: Bare) -> str:
    return {b"\x0d": "old", b"\x9e": "new"}[machine.pcpu.read(machine.vmcs, VIEW, 1)]  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "vpid", "linear", "seen"),
    [
        (InvVpid.ADDRESS, 5, VIEW, "new"), (InvVpid.ADDRESS, 5, VIEW + 4096, "old"),
        (InvVpid.ADDRESS, 6, VIEW, "old"), (InvVpid.SINGLE_CONTEXT, 5, 0, "new"),
        (InvVpid.SINGLE_CONTEXT, 6, 0, "old"), (InvVpid.ALL_CONTEXTS, 0, 0, "new"),
        (InvVpid.SINGLE_CONTEXT_RETAINING_GLOBALS, 5, 0, "new"),
        (InvVpid.SINGLE_CONTEXT_RETAINING_GLOBALS, 6, 0, "old"),
    ],
)  # fmt: skip
def test_invvpid(machine: Bare, kind: InvVpid, vpid: int, linear: int, seen: str) -> None:
    warm(machine)
    machine.pcpu.invvpid(kind, vpid, linear)
    assert after(machine) == seen


def test_vpids_do_not_see_each_other(machine: Bare) -> None:
    warm(machine)
    machine.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 6
    assert after(machine) == "new"
    machine.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 5
    assert after(machine) == "old"


@pytest.mark.parametrize(("kind", "seen"), [(None, 0x0D), (1, 0x9E), (2, 0x9E)])
def test_invept(machine: Bare, kind: int | None, seen: int) -> None:
    """The EPT's own entry changes: combined and guest-physical mappings stay until INVEPT."""
    machine.ept.map(Slot(OLD, PAGE, OLD))
    assert machine.pcpu.read(machine.vmcs, VIEW, 1) == b"\x0d"
    machine.ept.map(Slot(OLD, PAGE, NEW))
    if kind is not None:
        machine.pcpu.invept(InvEpt(kind), machine.ept.pointer())
    assert machine.pcpu.read(machine.vmcs, VIEW, 1) == bytes([seen])


def test_a_large_page_goes_as_a_whole(machine: Bare) -> None:
    """Manual, INVLPG: all entries for the page, whichever of its addresses is named."""
    machine.word(0x3008, 0x20_0087)
    machine.run(f"""
        mov rbx, {VIEW}
        mov r8, [rbx + 0x5000]
        mov r9, [rbx + 0x6000]
        mov dword ptr [0x3008], 0x87
        invlpg [rbx]
        mov rax, [rbx + 0x5000]
        hlt
    """)
    low = machine.peek(VIEW + 0x5000 - 2 * MIB)
    assert machine.regs.rax == low


def test_flushes_and_walks_are_counted(machine: Bare) -> None:
    sees(machine, "invlpg [rbx]; " + load_cr3(0) + ";" + invpcid(2))
    counted = machine.pcpu.mmu_counters()
    names = ("flushes_invlpg", "loads_cr3", "flushes_cr3", "flushes_invpcid")
    assert [counted[name] for name in names] == [1, 1, 1, 1]
    assert isinstance(counted["misses"], list)
    assert counted["misses"][0] >= 2


def alias(machine: Bare, count: int) -> list[int]:
    """Linear addresses of one page that fall into one set of a TLB of 128 sets."""
    for n in range(2, 2 + count):
        machine.word(0x3000 + 8 * n, TABLE | 7)
    return [VIEW + n * 2 * MIB for n in range(count)]


def test_the_second_level_has_twelve_ways(bare: Make) -> None:
    """1536 entries in 128 sets: the thirteenth of a set replaces the first, in turn."""
    machine = bare(pages_4k=True)
    machine.pcpu.set_paging(CpuModel.load(), Fidelity.SHARED)
    machine.control2(enable_vpid=1)
    machine.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 5
    pages = alias(machine, 13)
    for page in pages:
        machine.pcpu.read(machine.vmcs, page, 1)
    full = machine.pcpu.mmu_counters()["misses"]
    for page in pages[1:]:
        machine.pcpu.read(machine.vmcs, page, 1)
    assert machine.pcpu.mmu_counters()["misses"] == full
    machine.pcpu.read(machine.vmcs, pages[0], 1)
    machine.pcpu.read(machine.vmcs, pages[1], 1)
    assert machine.pcpu.mmu_counters()["misses"][0] == full[0] + 2  # type: ignore[index]


def test_the_first_level_is_refilled_from_the_second(bare: Make) -> None:
    machine = bare(pages_4k=True)
    machine.pcpu.set_paging(CpuModel.load(), Fidelity.SPLIT)
    machine.control2(enable_vpid=1)
    machine.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 5
    pages = alias(machine, 5)  # of a set of four ways in the first level
    for page in [*pages, pages[0]]:
        machine.pcpu.read(machine.vmcs, page, 1)
    counted = machine.pcpu.mmu_counters()
    assert counted["misses"] == [5, 0, 0]
    assert counted["level2_hits"] == [1, 0, 0]


@pytest.mark.parametrize("fidelity", list(Fidelity))
def test_unicorns_own_refills_count_nothing(bare: Make, fidelity: Fidelity) -> None:
    """Unicorn's TLB is emptied behind the model's back: what host time does to it."""
    counts = []
    for disturbed in (False, True):
        machine = bare(pages_4k=True)
        machine.pcpu.set_paging(CpuModel.load(), fidelity)
        machine.control2(enable_vpid=1)
        machine.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 5
        alias(machine, 6)
        walk = "mov rbx, %#x; mov ecx, 6; w%d: mov rax, [rbx]; add rbx, 0x200000; dec ecx; jnz w%d;"
        first, second, third = (walk % (VIEW, n, n) for n in range(3))
        vmexit = machine.run(f"{first} cpuid; {second} cpuid; {third} hlt")
        while vmexit.name == "CPUID":
            machine.skip(vmexit)
            if disturbed:
                machine.pcpu.harvest_dirty()
            vmexit = machine.enter()
        counts.append(machine.pcpu.mmu_counters())
    assert counts[0] == counts[1]
