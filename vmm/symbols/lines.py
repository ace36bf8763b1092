"""Source lines of addresses, and addresses of source lines, from DWARF's line programs.

A unit's program is run when something in it is asked for: a kernel has thousands of them.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from vmm.symbols.elf import DAMAGE

_FEW_UNITS: Final = 64
"""So many are searched where the table of ranges has no answer; it is complete in large images."""


@dataclass(frozen=True, slots=True)
class Line:
    """A place in the source."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class _Row:
    """Code from `address` up to the next row's is of this line; `line` None ends a sequence."""

    address: int
    file: str
    line: int | None
    starts: bool


class Lines:
    """The lines of one image; all of it empty where there is no DWARF."""

    def __init__(self, elf: Any) -> None:
        """Read where the units are, nothing else."""
        self._dwarf: Final = _dwarf_of(elf)
        self._aranges: Final = self._dwarf.get_aranges() if self._dwarf else None
        self._rows: Final[dict[int, list[_Row]]] = {}
        self._units: list[Any] | None = None

    def at(self, address: int) -> Line | None:
        """Return the line that the instruction at `address` is of."""
        for unit in self._units_at(address):
            rows = self._program(unit)
            index = bisect_right(rows, address, key=lambda row: row.address) - 1
            if index >= 0 and (line := rows[index].line):
                return Line(rows[index].file, line)
        return None

    def addresses(self, file: str, line: int) -> list[int]:
        """Return where the code of a line begins, or of the next line that has any.

        `file` is a path or its end: `main.c` is every file of that name. A path on this host may
        begin otherwise than where the image was compiled: what agrees the most is meant.
        """
        rows = [row for row in self._rows_of(file) if row.starts and row.line is not None]
        later = min((row.line for row in rows if row.line and row.line >= line), default=None)
        exact = sorted({row.address for row in rows if row.line == later})
        return _entries(exact)

    def _rows_of(self, file: str) -> Iterator[_Row]:
        wanted = PurePosixPath(file).parts or ("",)
        found: dict[int, list[_Row]] = {}
        for unit in self._all_units():
            for row in self._program(unit):
                if row.file.endswith(wanted[-1]):
                    parts = PurePosixPath(row.file).parts
                    if (agree := _agreement(parts, wanted)) >= min(2, len(wanted), len(parts)):
                        found.setdefault(agree, []).append(row)
        return iter(found[max(found)] if found else ())

    def _all_units(self) -> list[Any]:
        if self._units is None:
            try:
                self._units = list(self._dwarf.iter_CUs()) if self._dwarf else []
            except DAMAGE:
                self._units = []
        return self._units

    def _units_at(self, address: int) -> list[Any]:
        if self._dwarf is None:
            return []
        if self._aranges is not None:
            offset = self._aranges.cu_offset_at_addr(address)
            if offset is not None:
                return [self._dwarf.get_CU_at(offset)]
        units = self._all_units()
        return units if len(units) <= _FEW_UNITS else []

    def _program(self, unit: Any) -> list[_Row]:
        known = self._rows.get(unit.cu_offset)
        if known is None:
            try:
                known = sorted(self._run(unit), key=lambda row: (row.address, row.line is not None))
            except DAMAGE:
                known = []  # a damaged table: no lines, but the symbols stay
            self._rows[unit.cu_offset] = known
        return known

    def _run(self, unit: Any) -> Iterator[_Row]:
        assert self._dwarf is not None
        program = self._dwarf.line_program_for_CU(unit)
        if program is None:
            return
        folder = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
        names = _file_names(program, folder.value.decode() if folder else "")
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            ends = state.end_sequence
            file = names.get(state.file, "?")
            yield _Row(state.address, file, None if ends else state.line, state.is_stmt)


def _agreement(parts: tuple[str, ...], others: tuple[str, ...]) -> int:
    """Return how many parts at the end of two paths are the same."""
    pairs = zip(reversed(parts), reversed(others), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(parts), len(others)))


def _entries(addresses: list[int]) -> list[int]:
    """Leave the first of addresses that follow each other closely: one loop is one line."""
    kept: list[int] = []
    for address in addresses:
        if not kept or address - kept[-1] > 64:
            kept.append(address)
    return kept


def _dwarf_of(elf: Any) -> Any:
    try:
        return elf.get_dwarf_info() if elf.has_dwarf_info() else None
    except DAMAGE:
        return None


def _file_names(program: Any, folder: str) -> dict[int, str]:
    """Return the files of a line program by the numbers that it gives them."""
    header = program.header
    is_five = header.version >= 5
    folders = [entry.decode() if isinstance(entry, bytes) else entry.DW_LNCT_path.decode()
               for entry in (header.get("directories", []) if is_five
                             else header.get("include_directory", []))]  # fmt: skip
    if not is_five:
        folders.insert(0, folder)
    names = {}
    files = header.get("file_names" if is_five else "file_entry", [])
    for number, entry in enumerate(files, 0 if is_five else 1):
        name = entry.DW_LNCT_path if is_five else entry.name
        index = entry.get("DW_LNCT_directory_index", 0) if is_five else entry.dir_index
        base = folders[index] if index < len(folders) else ""
        names[number] = str(PurePosixPath(folder) / base / name.decode("utf-8", "replace"))
    return names
