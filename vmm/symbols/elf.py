"""Symbols and loaded addresses of an ELF file."""

import io
import struct
from collections.abc import Iterator
from typing import Any, Final

from elftools.common.exceptions import DWARFError, ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from vmm.errors import UsageError
from vmm.symbols.table import Alias, Symbol

DAMAGE: Final = (
    ELFError,
    DWARFError,
    ConstructError,
    KeyError,
    IndexError,
    ValueError,
    struct.error,
)
"""What pyelftools raises about a file that is not whole."""
_ENTRY: Final = {64: struct.Struct("<IBBHQQ"), 32: struct.Struct("<IIIBBH")}
_NOTYPE, _OBJECT, _FUNC = 0, 1, 2
_GLOBAL, _WEAK = 1, 2
_RESERVED_SECTIONS: Final = 0xFF00
_EXECUTABLE: Final = 4  # SHF_EXECINSTR


def open_elf(data: bytes) -> Any:
    """Return pyelftools' view of an ELF file. Raises UsageError if it is none."""
    try:
        return ELFFile(io.BytesIO(data))
    except DAMAGE as error:
        raise UsageError(f"the image is no ELF file that can be read: {error}") from None


def elf_symbols(elf: Any) -> list[Symbol]:
    """Return the symbols of `.symtab`, functions and global names first; empty when stripped."""
    section = elf.get_section_by_name(".symtab")
    if section is None or section["sh_type"] != "SHT_SYMTAB":
        return []
    strings = elf.get_section(section["sh_link"]).data()
    executable = {
        index for index, part in enumerate(elf.iter_sections()) if part["sh_flags"] & _EXECUTABLE
    }
    found = sorted(
        _entries(section.data(), elf.elfclass), key=lambda e: (e[1] & 15 != _FUNC, not e[1] >> 4)
    )
    return [
        Symbol(name, value, size, info & 15 == _FUNC or index in executable)
        for at, info, index, value, size in found
        if (name := strings[at : strings.find(b"\0", at)].decode("utf-8", "replace"))
    ]


def _entries(data: bytes, bits: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield name offset, info, section, value and size of what has an address."""
    layout = _ENTRY[bits]
    for entry in layout.iter_unpack(data[: len(data) // layout.size * layout.size]):
        if bits == 64:
            name, info, _, index, value, size = entry
        else:
            name, value, size, info, _, index = entry
        if 0 < index < _RESERVED_SECTIONS and info & 15 in (_NOTYPE, _OBJECT, _FUNC):
            yield name, info, index, value, size


def aliases(elf: Any) -> list[Alias]:
    """Return where segments lie that are linked elsewhere than they are loaded."""
    return [
        Alias(segment["p_paddr"], segment["p_vaddr"], segment["p_memsz"])
        for segment in elf.iter_segments("PT_LOAD")
        if segment["p_paddr"] != segment["p_vaddr"]
    ]
