"""One address space over a small machine memory, walked by the C engine and by its twin.

A case is a chain of guest tables for one linear address and an EPT for the first 2 MiB, each entry
drawn at random: mostly sensible, so that walks get deep, and now and then anything at all.
"""

from collections import Counter
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from hwmodel.arch.controls import Primary, Secondary
from hwmodel.arch.model import CpuModel
from hwmodel.arch.paging import EptPointer
from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.arch.translation import Fidelity
from hwmodel.arch.vmcs import Field
from hwmodel.mem.circumstances import Circumstances, Course
from hwmodel.mem.ram import PAGE, Ram
from hwmodel.mem.reference import Access, Walk
from hwmodel.mem.walk import walk
from hwmodel.pcpu import Pcpu
from hwmodel.timing.clock import Clock
from hwmodel.vmx.state import Vmcs

MIB: Final = 1 << 20
SIZE: Final = 4 * MIB
EPT_TABLES: Final = 2 * MIB
"""Where the EPT's own tables lie; guest tables lie below, in the first pages."""
PAGES: Final = 48
"""Guest pages that tables and data come from."""
MODES: Final = ("none", "narrow", "pae", "long", "five")
_PDPTRS = (Field.GUEST_PDPTR0, Field.GUEST_PDPTR1, Field.GUEST_PDPTR2, Field.GUEST_PDPTR3)
_SECONDARY = Secondary.of(enable_ept=1, enable_vpid=1, unrestricted_guest=1)


@dataclass(frozen=True, slots=True)
class Case:
    """A walk to make: entries are (machine address, bytes, value)."""

    entries: tuple[tuple[int, int, int], ...]
    circumstances: Circumstances
    linear: int
    access: Access
    user: bool


class Walker:
    """The engine with one VMCS, and machine memory that a case is laid into."""

    def __init__(self, model: CpuModel | None = None) -> None:
        self.ram = Ram(SIZE)
        self.pcpu = Pcpu(self.ram, Clock())
        self.model = model or CpuModel.load("sapphire-rapids")
        self.pcpu.set_paging(self.model, Fidelity.LARGE)
        self.vmcs = Vmcs()
        self.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] = int(Primary.of(activate_secondary_controls=1))
        self.vmcs[Field.VIRTUAL_PROCESSOR_ID] = 1

    def put(self, case: Case) -> None:
        """Lay out memory and registers; forget every translation."""
        self.lay(case)
        c, vmcs = case.circumstances, self.vmcs
        controls = _SECONDARY.replace(
            enable_ept=c.eptp is not None, mode_based_execute_control_for_ept=c.mode_based
        )
        for field, number in {
            Field.GUEST_CR0: c.cr0, Field.GUEST_CR3: c.cr3, Field.GUEST_CR4: c.cr4,
            Field.GUEST_IA32_EFER: c.efer, Field.EPT_POINTER: c.eptp or 0,
            Field.SECONDARY_VM_EXEC_CONTROL: controls, Field.GUEST_IA32_PKRS: c.pkrs,
            Field.GUEST_RFLAGS: 2 | c.alignment_check << 18,
            **dict(zip(_PDPTRS, c.pdptes, strict=True)),
        }.items():  # fmt: skip
            vmcs[field] = int(number)
        vmcs.native.pkru = c.pkru
        self.pcpu.flush_tlb()

    def lay(self, case: Case) -> None:
        """Put the entries into memory, as they are before any flag is set."""
        for at, size, value in case.entries:
            self.ram.view[at : at + size] = value.to_bytes(size, "little")

    def contents(self, case: Case) -> list[bytes]:
        """What stands where the case put entries: accessed and dirty flags change it."""
        return [bytes(self.ram.view[at : at + size]) for at, size, _ in case.entries]

    def engine(self, case: Case, *, effects: bool = False) -> Walk:
        """Walk in C."""
        return self.pcpu.explain_walk(
            self.vmcs, case.linear, case.access, user=case.user, effects=effects
        )

    def twin(self, case: Case, *, effects: bool = False) -> Walk:
        """Walk in Python."""
        course = Course(case.linear, case.access, case.user, self.ram.view, effects=effects)
        return walk(case.circumstances, course)

    def differences(self, case: Case) -> list[str]:
        """Say how the two walks of a case differ, if they do."""
        self.put(case)
        return self.looking(case) + self.walking(case)

    def looking(self, case: Case, ends: Counter[type] | None = None) -> list[str]:
        """Compare every reference of walks without effects; count in `ends` how they ended."""
        ours, theirs = self.engine(case), self.twin(case)
        if ends is not None:
            ends[type(ours.end)] += 1
        return [] if ours == theirs else [f"looking: C {ours}, twin {theirs}"]

    def walking(self, case: Case) -> list[str]:
        """Compare ends and flags of real walks; C's may use its caches on the way."""
        found = []
        ours, marked = self.engine(case, effects=True), self.contents(case)
        self.lay(case)
        theirs = self.twin(case, effects=True)
        if ours.end != theirs.end:
            found.append(f"walking: C {ours.end}, twin {theirs.end}")
        if marked != self.contents(case):
            found.append(f"flags: C {marked}, twin {self.contents(case)}")
        return found

    def close(self) -> None:
        """Clear memory and free the engine."""
        self.pcpu.close()


def case_of(random: Random, *, physical_bits: int = 46, has_1g: bool = True) -> Case:
    """Draw a case."""
    c = replace(_circumstances(random), physical_bits=physical_bits, has_1g=has_1g)
    linear = _linear(random, c)
    entries, c = _guest_tables(random, c, linear)
    if c.eptp is not None:
        entries += _ept(random, c)
    access = random.choice((Access.READ, Access.WRITE, Access.FETCH))
    return Case(tuple(entries), c, linear, access, random.random() < 0.4)


def _circumstances(random: Random) -> Circumstances:
    mode = random.choice(MODES)

    def flip() -> bool:
        return random.random() < 0.5

    wide = mode in ("long", "five")
    cr4 = Cr4.of(
        pse=flip(), pae=wide or mode == "pae", pge=flip(), la57=mode == "five", smep=flip(),
        smap=flip(), pke=wide and flip(), pks=wide and flip(),
    )  # fmt: skip
    eptp = EptPointer.of(
        memory_type=6, walk_length_minus_1=random.choice((3, 4)), accessed_dirty=flip(),
        frame=EPT_TABLES // PAGE,
    )  # fmt: skip
    return Circumstances(
        Cr0.of(pe=1, pg=mode != "none", wp=flip()), 0, cr4,
        Efer.of(lme=wide, lma=wide, nxe=flip()),
        eptp if random.random() < 0.8 else None, random.random() < 0.3, flip(),
        pkru=random.getrandbits(32), pkrs=random.getrandbits(32),
    )  # fmt: skip


def _linear(random: Random, c: Circumstances) -> int:
    if not c.is_long:
        return random.getrandbits(32)
    bits = 57 if c.cr4.la57 else 48
    value = random.getrandbits(bits)
    if random.random() < 0.03:
        return random.getrandbits(64)
    return value | -(value >> bits - 1) << bits & (1 << 64) - 1


def _page(random: Random) -> int:
    return random.randrange(PAGES) * PAGE


def _guest_entry(random: Random, size: int, *, large: bool) -> int:
    """Draw an entry that leads to one of the first pages; one in forty is anything at all."""
    if random.random() < 0.025:
        return random.getrandbits(8 * size) | random.getrandbits(1)
    entry = random.getrandbits(8) & 0x78 | (7 if random.random() < 0.8 else random.randrange(8))
    entry |= (random.random() < 0.96) | (random.random() < 0.2) << 8
    if large:
        return entry | 0x80 | (_page(random) if random.random() < 0.1 else 0)
    if size == 8:
        entry |= (random.random() < 0.1) << 63 | random.getrandbits(11) << 52 & 0x7800 << 52
    return entry | _page(random)


def _guest_tables(
    random: Random, c: Circumstances, linear: int
) -> tuple[list[tuple[int, int, int]], Circumstances]:
    """Draw the chain of entries for `linear`: (machine address, bytes, value), and CR3."""
    root = _page(random)
    if not c.cr0.pg:
        return [], c
    size, bits, shift = (8, 9, 48 if c.cr4.la57 else 39) if c.is_long else (4, 10, 22)
    entries, table = [], root
    if c.cr4.pae and not c.is_long:
        pdpte = _page(random) | (random.random() < 0.95)
        c = replace(c, pdptes=(pdpte,) * 4)
        table, size, bits, shift = pdpte & -PAGE, 8, 9, 21
    while shift >= 12:
        large = shift in (21, 22, 30) and random.random() < 0.15
        entry = _guest_entry(random, size, large=large)
        if c.is_long and random.random() < 0.2:
            entry |= random.getrandbits(4) << 59
        entries.append((table + (linear >> shift & (1 << bits) - 1) * size, size, entry))
        table, shift = entry & (PAGES - 1) * PAGE, shift - bits
    return entries, replace(c, cr3=root | random.getrandbits(5) & 0x18)


def _rights(random: Random) -> int:
    return 0x407 if random.random() < 0.95 else random.randrange(8) | random.getrandbits(1) << 10


def _ept(random: Random, c: Circumstances) -> list[tuple[int, int, int]]:
    """Draw an EPT whose first 2 MiB are mapped by small pages, or one large one."""
    assert c.eptp is not None
    entries, table = [], EPT_TABLES
    for _ in range(c.eptp.walk_length_minus_1 - 2):
        entries.append((table, 8, table + PAGE | _rights(random) | random.getrandbits(1) << 8))
        table += PAGE
    entries.append((table, 8, table + PAGE | _rights(random)))
    table += PAGE
    if random.random() < 0.2:
        return [*entries, (table, 8, 0xB0 | _rights(random) | random.getrandbits(2) << 8)]
    entries.append((table, 8, table + PAGE | _rights(random)))
    table += PAGE
    return entries + [(table + 8 * n, 8, _ept_leaf(random, n * PAGE)) for n in range(PAGES)]


def _ept_leaf(random: Random, frame: int) -> int:
    """Draw a leaf for a page: mostly one to one, with all rights; one in a hundred is anything."""
    if random.random() < 0.01:
        return random.getrandbits(64)
    kind = 6 << 3 if random.random() < 0.97 else random.getrandbits(4) << 3
    return frame | kind | _rights(random) | random.getrandbits(2) << 8
