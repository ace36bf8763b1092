"""Call chains by DWARF call frame information: `.debug_frame` or `.eh_frame`."""

from bisect import bisect_right
from typing import Any, Final

from elftools.dwarf.callframe import FDE
from elftools.dwarf.structs import DWARFStructs

from vmm.symbols.elf import DAMAGE
from vmm.symbols.frames import Frame, Read, word

# psABI, "DWARF Register Number Mapping"
_RBP, _RSP = {64: 6, 32: 5}, {64: 7, 32: 4}
_RETURN: Final = {64: 16, 32: 8}


class CfiUnwinder:
    """Finds callers by the rows of an image's frame descriptions."""

    def __init__(self, elf: Any) -> None:
        """Read the descriptions' ranges; what is inside them when it is asked for."""
        found, self._bits = _descriptions(elf)
        self._entries: Final = sorted(found, key=_start)
        self._starts: Final = [_start(entry) for entry in self._entries]

    def __len__(self) -> int:
        """How many functions are described."""
        return len(self._entries)

    def caller(self, frame: Frame, read: Read) -> Frame | None:
        """Return the caller's frame."""
        row = self._row(frame.site)
        if row is None or row["cfa"].reg is None:
            return None
        known = {_RSP[self._bits]: frame.sp, _RBP[self._bits]: frame.bp}
        base = known.get(row["cfa"].reg)
        if base is None:
            return None
        top = base + row["cfa"].offset
        pc = self._saved(row.get(_RETURN[self._bits]), top, read)
        if not pc:
            return None
        rule = row.get(_RBP[self._bits])
        bp = frame.bp if rule is None else self._saved(rule, top, read)
        return None if bp is None else Frame(pc, top, bp, returns=True)

    def _row(self, address: int) -> Any:
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        entry = self._entries[index]
        if address >= _start(entry) + entry["address_range"]:
            return None
        try:
            table = entry.get_decoded().table
        except DAMAGE:
            return None
        return next((row for row in reversed(table) if row["pc"] <= address), None)

    def _saved(self, rule: Any, top: int, read: Read) -> int | None:
        if rule is None or rule.type != "OFFSET":
            return None
        return word(read, top + rule.arg, self._bits // 8)


def _start(entry: Any) -> int:
    return int(entry["initial_location"])


def _descriptions(elf: Any) -> tuple[list[Any], int]:
    """Return the functions that are described, and the bits of an address in them.

    A multiboot kernel is often 64-bit code in a 32-bit file: its units know, the file does not.
    """
    bits = int(elf.elfclass)
    try:
        dwarf = elf.get_dwarf_info()
        unit = next(dwarf.iter_CUs(), None)
        if unit is not None and (bits := 8 * unit["address_size"]) != elf.elfclass:
            dwarf.structs = DWARFStructs(
                little_endian=True, dwarf_format=32, address_size=unit["address_size"]
            )
        found = dwarf.CFI_entries() if dwarf.has_CFI() else []
        found = found or (dwarf.EH_CFI_entries() if dwarf.has_EH_CFI() else [])
        return [entry for entry in found if isinstance(entry, FDE)], bits
    except DAMAGE:
        return [], bits
