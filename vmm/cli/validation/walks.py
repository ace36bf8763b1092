"""(d) References of a page walk by depth, and what two-dimensional paging costs over native."""

from dataclasses import replace
from functools import partial
from typing import Final

from keystone import KS_ARCH_X86, KS_MODE_64, Ks

from hwmodel.arch.controls import Primary, Secondary
from hwmodel.arch.model import Cache, CpuModel
from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.arch.translation import Fidelity, Geometry, Kind, PageSize, Tlb, TranslationCaches
from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import PAGE, Ram
from hwmodel.mem.reference import Structure
from hwmodel.pcpu import Pcpu
from hwmodel.timing.clock import Clock
from hwmodel.timing.prices import Near, fill, fill_bare
from hwmodel.vmx.host import prepare
from hwmodel.vmx.state import Vmcs
from vmm.cli.validation.figure import Figure
from vmm.memory.ept import Ept, Slot, pages_for

SECTION: Final = "Page walks in one and two dimensions"
_FORMULA: Final = "Bhargava et al. 2008, 1: n m + n + m references"
_TABLE: Final = "Bhargava et al. 2008, table 1, without walk caches"
_WHOSE: Final = "Bhargava's"
MIB: Final = 1 << 20
RATIOS: Final = {
    "MiscServer": 4.01,
    "WebServer": 3.90,
    "JavaServer": 3.91,
    "IntCpu": 4.57,
    "FpCpu": 4.43,
}
WORKING_SETS: Final = (64, 128)
"""MiB. Theirs are programs; here pages are touched at random, which no program does as badly."""
CODE, TABLES, LINEAR = 0x1000, 0x10_0000, 0x40_0000_0000
TOUCHES: Final = 20_000


def measure() -> list[Figure]:
    """Count references, then let a guest touch pages at random."""
    rows = [_count(guest, nested) for guest in (4, 3, 2) for nested in (0, 2, 3, 4)]
    found = {size: _ratio(size) for size in WORKING_SETS}
    note = "At random over " + ", ".join(f"{s} MiB: {r:.2f}" for s, r in found.items())
    middle = sum(found.values()) / len(found)
    rows += [
        Figure(
            SECTION,
            "Bhargava's",
            f"2D/native walk, {suite}",
            "ratio",
            middle,
            ratio,
            _TABLE,
            note=note,
        )
        for suite, ratio in RATIOS.items()
    ]
    return rows


class Walker:
    """A guest of `size` bytes in long mode, behind an EPT whose largest pages are of `largest`."""

    def __init__(self, size: int, largest: int) -> None:
        slots = [Slot(0, size, 0)]
        self.ram = Ram(size + pages_for(slots) * PAGE)
        self.ept = Ept(self.ram, size, self.ram.size - size, slots, largest=largest)
        self.free = TABLES
        self.root = self._table()
        self.map(0, 0, 3)
        self.pcpu = Pcpu(self.ram, Clock())
        self.vmcs = Vmcs()
        prepare(self.vmcs, self.pcpu.capabilities)
        secondary = Secondary.of(enable_ept=1, enable_vpid=1, unrestricted_guest=1)
        for field, value in {
            Field.CPU_BASED_VM_EXEC_CONTROL: int(self.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL])
            | int(Primary.of(activate_secondary_controls=1, hlt_exiting=1)),
            Field.SECONDARY_VM_EXEC_CONTROL: secondary,
            Field.VIRTUAL_PROCESSOR_ID: 1,
            Field.EPT_POINTER: self.ept.pointer(),
            Field.GUEST_CR0: Cr0.of(pe=1, pg=1, wp=1, ne=1, et=1),
            Field.GUEST_CR3: self.root,
            Field.GUEST_CR4: Cr4.of(pae=1, pge=1, vmxe=1),
            Field.GUEST_CS_AR_BYTES: 0xA09B,
            Field.GUEST_CS_SELECTOR: 8,
            Field.GUEST_RIP: CODE,
        }.items():
            self.vmcs[field] = int(value)
        for segment in ("SS", "DS", "ES", "FS", "GS"):
            self.vmcs[Field[f"GUEST_{segment}_AR_BYTES"]] = 0xC093
            self.vmcs[Field[f"GUEST_{segment}_LIMIT"]] = 0xFFFF_FFFF
            self.vmcs[Field[f"GUEST_{segment}_SELECTOR"]] = 16
        self.vmcs[Field.GUEST_CS_LIMIT] = 0xFFFF_FFFF
        self.vmcs.registers.efer = int(Efer.of(lme=1, lma=1, nxe=1))

    def _table(self) -> int:
        self.free += PAGE
        return self.free - PAGE

    def map(self, linear: int, physical: int, depth: int) -> None:
        """Map a page: depth 4 has 4 KiB, 3 has 2 MiB, 2 has 1 GiB."""
        table = self.root
        for level in (4, 3, 2, 1):
            at = table + 8 * (linear >> 3 + 9 * level & 511)
            leaf = level == 5 - depth
            entry = int.from_bytes(self.ram.view[at : at + 8], "little")
            if leaf:
                entry = physical | 0x63 | (0x80 if level > 1 else 0)
            elif not entry:
                entry = self._table() | 0x63
            self.ram.view[at : at + 8] = entry.to_bytes(8, "little")
            if leaf:
                return
            table = entry & ~0xFFF


def _count(guest: int, nested: int) -> Figure:
    """References of a cold walk; `nested` 0 counts the guest's own alone, as on bare metal."""
    largest = {0: PAGE, 2: 1 << 30, 3: 2 * MIB, 4: PAGE}[nested]
    walker = Walker((1 << 30) if 2 in (nested, guest) else 16 * MIB, largest)
    walker.map(LINEAR, 0, guest)
    walk = walker.pcpu.explain_walk(walker.vmcs, LINEAR)
    made = [r for r in walk.references if nested or r.structure is Structure.GUEST]
    walker.pcpu.close()
    published = nested * guest + guest + nested
    what = f"guest depth {guest}, nested depth {nested}"
    return Figure(SECTION, "any", what, "references", len(made), published, _FORMULA)


def _machine() -> CpuModel:
    """The machine of their table 2; walk caches of one entry, which no walk here finds filled."""
    base = CpuModel.load("zen2")
    one = Geometry(1, 1)
    data, code = Kind.DATA, Kind.CODE
    small = PageSize.SMALL
    tlbs = (
        Tlb(1, data, small, Geometry(1, 64)), Tlb(1, code, small, Geometry(1, 32)),
        Tlb(2, data, small, Geometry(128, 4)), Tlb(2, code, small, Geometry(128, 4)),
    )  # fmt: skip
    caches = (
        Cache(1, 1, 2, 512, 64, shared=False), Cache(2, 3, 16, 512, 64, shared=False),
        Cache(3, 3, 32, 1024, 64, shared=True),
    )  # fmt: skip
    references = replace(base.costs.references, level1=3, level2=11, level3=40, memory=100)
    costs = replace(base.costs, references=references)
    translation = TranslationCaches(tlbs, (one,) * 4, one)
    return replace(base, translation=translation, caches=caches, costs=costs)


_TOUCH: Final = """
    mov r8, {linear}; mov ecx, {count}; mov eax, 12345; mov r9, 0x5851f42d4c957f2d
    next: mul_: imul rax, r9; add rax, 0x3039; mov rdx, rax; shr rdx, 33; and edx, {mask}
    shl rdx, 12; lea rdi, [r8 + rdx]; invlpg [rdi]; mov rbx, [rdi]; dec ecx; jnz next; hlt
"""


def _ratio(megabytes: int) -> float:
    """Cycles of a walk of two dimensions over those of one; INVLPG empties the walk caches."""
    cycles = []
    for bare in (False, True):
        walker = Walker(192 * MIB, PAGE)
        pages = megabytes * MIB // PAGE
        for page in range(pages):
            walker.map(LINEAR + page * PAGE, 48 * MIB + page * PAGE, 4)
        text = _TOUCH.format(linear=LINEAR, count=TOUCHES, mask=pages - 1)
        code, _ = Ks(KS_ARCH_X86, KS_MODE_64).asm(text, CODE, as_bytes=True)
        walker.ram.view[CODE : CODE + len(code)] = code
        model = _machine()
        walker.pcpu.set_paging(model, Fidelity.SHARED)
        walker.pcpu.set_prices(
            partial(fill_bare, model=model) if bare else partial(fill, model=model, near=Near())
        )
        vmexit = walker.pcpu.enter(walker.vmcs, 1 << 60)
        assert vmexit.name == "HLT", f"the guest stopped by {vmexit}"
        cycles.append(walker.pcpu.account()["walk"])
        walker.pcpu.close()
    return cycles[0] / cycles[1]
