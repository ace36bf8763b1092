"""The names of one image: which are asked for by address, by name, by line, and for a stack."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from vmm.errors import UsageError
from vmm.symbols.elf import DAMAGE, aliases, elf_symbols, open_elf
from vmm.symbols.frames import (
    EntryUnwinder,
    Frame,
    OrcUnwinder,
    PointerUnwinder,
    Read,
    Unwinder,
    chain,
)
from vmm.symbols.kallsyms import read_kallsyms
from vmm.symbols.lines import Line, Lines
from vmm.symbols.orc import OrcTable
from vmm.symbols.table import Alias, Place, SymbolTable

_SYSCALL_ENTRY: Final = "entry_SYSCALL_64"
_ALIGNMENT: Final = 1 << 21
"""What KASLR shifts an x86-64 Linux by is a multiple of this (CONFIG_PHYSICAL_ALIGN)."""
_MASK64: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Named:
    """A frame with what is known of it."""

    pc: int
    sp: int
    place: Place | None
    line: Line | None

    def __str__(self) -> str:
        name = str(self.place) if self.place else "?"
        return f"{self.pc:#018x} {name}" + (f" at {self.line}" if self.line else "")


class ImageSymbols:
    """Symbols of an ELF kernel or of the Linux inside one; what is not there is empty.

    `slide` is what is to be added to link addresses. A kernel that shifts itself is found out by
    `settle`.
    """

    def __init__(self, data: bytes = b"", *, slide: int = 0, physical_slide: int = 0) -> None:
        """Read `data`, an ELF file or nothing. Raises UsageError if it is neither."""
        self._elf: Final = open_elf(data) if data else None
        self.slide = slide
        self.bits = 64
        self.table: Final = self._read(data, physical_slide)

    def _read(self, data: bytes, physical_slide: int) -> SymbolTable:
        if self._elf is None:
            return SymbolTable(())
        found = elf_symbols(self._elf) or read_kallsyms(data) or []
        places = [
            Alias(alias.physical + physical_slide, alias.virtual, alias.size)
            for alias in aliases(self._elf)
        ]
        return SymbolTable(found, places)

    @cached_property
    def lines(self) -> Lines | None:
        """The source lines; None without an image."""
        return None if self._elf is None else Lines(self._elf)

    def __len__(self) -> int:
        """How many symbols there are."""
        return len(self.table)

    def settle(self, syscall_entry: int) -> None:
        """Learn the shift of a Linux that shifted itself from what it put into IA32_LSTAR."""
        linked = self.table.find(_SYSCALL_ENTRY)
        if linked is not None and syscall_entry:
            slide = syscall_entry - linked
            if slide % _ALIGNMENT == 0 and 0 <= slide < 1 << 30:
                self.slide = slide

    def at(self, address: int) -> Place | None:
        """Return the symbol that an address of the running guest lies in."""
        return self.table.at(address - self.slide & _MASK64) or self.table.at(address)

    def line_at(self, address: int) -> Line | None:
        """Return the source line of an instruction."""
        return self.lines.at(self._linked(address)) if self.lines else None

    def find(self, name: str) -> int | None:
        """Return the address of `name`, `name+0x10` or a number; None if there is none."""
        base, _, offset = name.partition("+")
        try:
            more = int(offset, 0) if offset else 0
            if base[:1].isdigit():
                return int(base, 0) + more
        except ValueError:
            return None
        found = self.table.find(base)
        return None if found is None else found + self.slide + more & _MASK64

    def addresses(self, file: str, line: int) -> list[int]:
        """Return where the code of a source line begins."""
        found = self.lines.addresses(file, line) if self.lines else []
        return [address + self.slide & _MASK64 for address in found]

    def text(self, address: int) -> str:
        """Write an address with its name: `0x1000 <start+0x10>`."""
        place = self.at(address)
        return f"{address:#x} <{place}>" if place else f"{address:#x}"

    def backtrace(self, frame: Frame, read: Read, *, bits: int = 64) -> list[Named]:
        """Return `frame` and its callers by name, innermost first. `bits`: of the stack's words."""
        self.bits = bits
        frames = chain(frame, self._unwinders, read)
        return [Named(one.pc, one.sp, self.at(one.site), self.line_at(one.site)) for one in frames]

    def _linked(self, address: int) -> int:
        if self.table.at(address - self.slide & _MASK64) is None:
            return self.table.linked(address)
        return self.table.linked(address - self.slide & _MASK64)

    @cached_property
    def _unwinders(self) -> list[Unwinder]:
        """What this image offers, the best first."""
        if self._elf is None:
            return [PointerUnwinder(lambda: self.bits, self._may_be_code)]
        found: list[Unwinder] = []
        if orc := self._orc():
            return [OrcUnwinder(orc, lambda: self.slide)]
        from vmm.symbols.cfi import CfiUnwinder

        if len(described := CfiUnwinder(self._elf)):
            found.append(described)
        is_start = self._is_start
        pointers = PointerUnwinder(lambda: self.bits, self._may_be_code)
        return [*found, EntryUnwinder(lambda: self.bits, is_start), pointers]

    def _orc(self) -> OrcTable | None:
        try:
            return OrcTable.of(self._elf)
        except DAMAGE:
            return None

    def _is_start(self, address: int) -> bool:
        place = self.at(address)
        return place is not None and place.is_code and place.offset == 0

    def _may_be_code(self, address: int) -> bool:
        place = self.at(address)
        return bool(address) if not len(self) else place is not None and place.is_code


def read_symbols(data: bytes, *, slide: int = 0, physical_slide: int = 0) -> ImageSymbols:
    """Return the symbols of an image that may have none; whatever is wrong with it, no error."""
    try:
        return ImageSymbols(data, slide=slide, physical_slide=physical_slide)
    except (UsageError, *DAMAGE):
        return ImageSymbols()
