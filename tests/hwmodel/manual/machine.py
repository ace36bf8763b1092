"""Address spaces that the tables of this folder describe, and how their words are read.

A guest with one chain of tables for one linear address; behind it nothing, or an EPT with one chain
for the data page and one for everything else. Machine memory:

    0x1000 .. 0x5000  PML5, PML4, PDPT, PD, PT    0x9000    the page, without EPT
    0x80_0000 ..      EPT: levels 5 to 2, then    0x20_9000 the page, behind an EPT
                      level 1 of the first 2 MiB and of the next
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from hwmodel.arch.controls import Primary, Secondary
from hwmodel.arch.model import CpuModel
from hwmodel.arch.paging import EptPointer
from hwmodel.arch.qualification import EptViolation
from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.arch.translation import Fidelity
from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import Ram
from hwmodel.mem.reference import Access, Exited, Raised, Translated
from hwmodel.pcpu import Pcpu
from hwmodel.timing.clock import Clock
from hwmodel.vmx.state import Vmcs

LINEAR, FAR = 0x12_0016_7ABC, 0x40_0012_0016_7ABC
SIZE, EPT = 16 << 20, 0x80_0000
TABLES: Final = {"pml5e": 0x1000, "pml4e": 0x2000, "pdpte": 0x3000, "pde": 0x4000, "pte": 0x5000}
SHIFTS: Final = {"pml5e": 48, "pml4e": 39, "pdpte": 30, "pde": 21, "pte": 12}
LEVELS: Final = {
    "long": ("pml4e", "pdpte", "pde", "pte"), "five": tuple(TABLES), "pae": ("pde", "pte"),
    "narrow": ("pde", "pte"), "none": (),
}  # fmt: skip
GUEST_BITS: Final = {"P": 1, "W": 2, "U": 4, "A": 0x20, "D": 0x40, "S": 0x80, "G": 0x100,
                     "X": 1 << 63}  # fmt: skip
EPT_BITS: Final = {"R": 1, "W": 2, "X": 4, "S": 0x80, "A": 0x100, "D": 0x200, "U": 0x400}
QUALIFIED: Final = {
    "read": "read", "write": "write", "fetch": "fetch", "r": "entry_readable",
    "w": "entry_writable", "x": "entry_executable", "xu": "entry_user_executable",
    "linear": "linear_address_valid", "final": "final_translation", "user": "linear_is_user",
    "pw": "page_is_writable", "nx": "page_is_nx",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: its cells, and under which section of the manual it stands."""

    place: str
    section: str
    cells: tuple[str, ...]


def rows_of(name: str) -> list[Row]:
    """Read a table."""
    section, rows = "", []
    for number, line in enumerate((Path(__file__).parent / name).read_text().splitlines(), 1):
        if line.startswith("=="):
            section = line.strip("= ")
        elif "|" in line and not line.startswith("#"):
            cells = tuple(cell.strip() for cell in line.split("|"))
            rows.append(Row(f"{name}:{number}", section, cells))
    return rows


def table(name: str) -> pytest.MarkDecorator:
    """Parametrize a test over a table."""
    return pytest.mark.parametrize("row", rows_of(name), ids=lambda row: row.place)


@cache
def model(physical: int, has_1g: bool) -> CpuModel:
    """Return a processor with these widths."""
    found = CpuModel.load("sapphire-rapids")
    found = found if has_1g else found.without("pdpe1gb")

    return replace(found, physical_bits=physical)


def word_of(text: str, bits: dict[str, int]) -> int:
    """Read an entry: letters, kN (protection key), tN (memory type), +N (a bit), - (nothing)."""
    value = 0
    for part in re.findall(r"[kt+]\d+|[A-Z-]", text):
        if part[0] == "k":
            value |= int(part[1:]) << 59
        elif part[0] == "t":
            value = value & ~0x38 | int(part[1:]) << 3
        elif part[0] == "+":
            value |= 1 << int(part[1:])
        else:
            value |= bits.get(part, 0)
    return value


def flags_of(text: str) -> dict[str, str]:
    """Read `a b=c`: words without a value have an empty one."""
    return dict(word.partition("=")[::2] for word in text.split())


class Space:
    """One address space, of a row's registers and entries."""

    def __init__(self, pcpu: Pcpu, ram: Ram, settings: str, entries: str) -> None:
        """Lay it out; translations of earlier ones are forgotten."""
        self.pcpu, self.ram = pcpu, ram
        self.flags, self.given = flags_of(settings), flags_of(entries)
        self.ept_is_on = "ept" in self.flags
        self.mode = next((mode for mode in LEVELS if mode in self.flags), "long")
        if self.ept_is_on:
            self.mode = "long"
        self.linear = FAR if "far" in self.flags else LINEAR
        if self.mode in ("pae", "narrow", "none"):
            self.linear &= 0xFFFF_FFFF
        self.places: dict[str, int] = {}
        physical = int(self.flags.get("phys", "46"))
        pcpu.set_paging(model(physical, "no1g" not in self.flags), Fidelity.LARGE)
        self.vmcs = Vmcs()
        self._registers()
        self._guest_tables()
        if self.ept_is_on:
            self._ept()
        pcpu.flush_tlb()

    def _registers(self) -> None:
        on, vmcs = self.flags, self.vmcs
        long = self.mode in ("long", "five")
        vmcs[Field.GUEST_CR0] = Cr0.of(pe=1, pg=self.mode != "none", wp="wp" in on)
        vmcs[Field.GUEST_CR4] = Cr4.of(
            pae=long or self.mode == "pae", la57=self.mode == "five",
            **{name: name in on for name in ("pse", "smep", "smap", "pke", "pks", "pge")},
        )  # fmt: skip
        vmcs[Field.GUEST_IA32_EFER] = Efer.of(lme=long, lma=long, nxe="nxe" in on)
        vmcs[Field.GUEST_RFLAGS] = 2 | ("ac" in on) << 18
        vmcs[Field.GUEST_IA32_PKRS] = int(on.get("pkrs", "0"), 0)
        vmcs.native.pkru = int(on.get("pkru", "0"), 0)
        vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] = Primary.of(activate_secondary_controls=1)
        vmcs[Field.SECONDARY_VM_EXEC_CONTROL] = Secondary.of(
            enable_ept=self.ept_is_on, enable_vpid=1, unrestricted_guest=self.ept_is_on,
            mode_based_execute_control_for_ept="mbe" in on,
        )  # fmt: skip
        vmcs[Field.VIRTUAL_PROCESSOR_ID] = 1

    def _guest_tables(self) -> None:
        levels = LEVELS[self.mode]
        size, bits = (4, 10) if self.mode == "narrow" else (8, 9)
        if levels:
            self.vmcs[Field.GUEST_CR3] = TABLES[levels[0]]
        if self.mode == "pae":
            entry = word_of(self.given.get("pdpte", "P"), GUEST_BITS)
            for field in ("GUEST_PDPTR0", "GUEST_PDPTR1", "GUEST_PDPTR2", "GUEST_PDPTR3"):
                self.vmcs[Field[field]] = entry and entry | TABLES["pde"]
        page = 0x20_9000 if self.ept_is_on else 0x9000
        shifts = {"pde": 22, "pte": 12} if size == 4 else SHIFTS
        for n, level in enumerate(levels):
            entry = word_of(self.given.get(level, "PWU"), GUEST_BITS)
            if level == "pte" and "page" in self.flags:
                entry = 1 | word_of(self.flags["page"], GUEST_BITS)
            below = page if level == "pte" else TABLES[levels[n + 1]]
            is_large = entry & 0x80 and level in ("pde", "pdpte")
            if not is_large or (size == 4 and "pse" not in self.flags):
                entry |= below
            index = self.linear >> shifts[level] & (1 << bits) - 1
            self._put(level, TABLES[level] + index * size, size, entry)

    def _ept(self) -> None:
        """Entries `ept5` to `ept2` lead to the data page's `data`; `pt` maps the guest's PT."""
        five = "five" in self.flags
        names = (["ept5"] if five else []) + ["ept4", "ept3"]
        at = EPT
        for name in names:
            self._ept_put(name, at, at + 0x1000, "RWXU")
            at += 0x1000
        self._ept_put("low2", at, at + 0x1000, "RWXU")
        if "large" in self.given:
            self._ept_put("large", at + 8, 0x20_0000, "RWXU")
            self._set("large", self.peek("large") | 0x80)
        else:
            self._ept_put("ept2", at + 8, at + 0x2000, "RWXU")
        for n in range(16):
            name = "pt" if n == 5 else f"page{n}"
            self._ept_put(name, at + 0x1000 + 8 * n, n << 12, "RWXUt6")
        self._ept_put("data", at + 0x2000 + 8 * 9, 0x20_9000, "RWXUt6", kind="t6")
        self.vmcs[Field.EPT_POINTER] = EptPointer.of(
            memory_type=6, walk_length_minus_1=3 + five, accessed_dirty="ad" in self.flags,
            frame=EPT >> 12,
        )  # fmt: skip

    def _ept_put(self, name: str, at: int, target: int, default: str, kind: str = "") -> None:
        text = self.given.get(name, default)
        typed = kind if kind and "t" not in text else ""
        entry = word_of(typed + text, EPT_BITS)
        if name == "pt" and "pt" in self.given:
            entry |= 6 << 3
        self._put(name, at, 8, entry | target)

    def _put(self, name: str, at: int, size: int, value: int) -> None:
        self.places[name] = at
        self.ram.view[at : at + size] = value.to_bytes(size, "little")

    def _set(self, name: str, value: int) -> None:
        self._put(name, self.places[name], 8, value)

    def peek(self, name: str) -> int:
        """Return an entry as it stands in memory."""
        at = self.places[name]
        size = 4 if self.mode == "narrow" else 8
        return int.from_bytes(self.ram.view[at : at + size], "little")

    def walk(self, access: str, *, effects: bool) -> Translated | Raised | Exited:
        """Walk for "supervisor read" and the like."""
        who, what = access.split()[:2]
        kind = {"read": Access.READ, "write": Access.WRITE, "fetch": Access.FETCH}[what]
        return self.pcpu.explain_walk(
            self.vmcs, self.linear, kind, user=who == "user", effects=effects
        ).end


def make_pcpu() -> tuple[Pcpu, Ram]:
    """Return a processor over its machine memory."""
    ram = Ram(SIZE)
    return Pcpu(ram, Clock()), ram


def told(end: Translated | Raised | Exited) -> str:
    """Return an end in the tables' words."""
    if isinstance(end, Translated):
        return "ok"
    if isinstance(end, Raised):
        return f"#PF {end.error:#x}" if end.vector == 14 else "#GP"
    if end.reason == 49:
        return "misconfiguration"
    qualified = EptViolation(end.qualification)
    named = [word for word, name in QUALIFIED.items() if getattr(qualified, name)]
    return " ".join(["violation", *named])
