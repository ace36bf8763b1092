"""Writes symbols as an ELF file that has nothing else: what gdb reads with `symbol-file`."""

import struct
from collections.abc import Iterable
from typing import Final

from vmm.symbols.table import Symbol

_EHDR: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR: Final = struct.Struct("<IIQQQQIIQQ")
_SYM: Final = struct.Struct("<IBBHQQ")
_IDENT: Final = b"\x7fELF\x02\x01\x01" + bytes(9)
_EXEC, _X86_64 = 2, 62
_NOBITS, _SYMTAB, _STRTAB = 8, 2, 3
_ALLOC, _EXECINSTR = 2, 4
_FUNC, _OBJECT, _GLOBAL = 2, 1, 1 << 4
_NAMES: Final = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
_MASK64: Final = (1 << 64) - 1


def symbol_file(symbols: Iterable[Symbol], slide: int = 0) -> bytes:
    """Return an ELF64 file: a section without contents over all of them, and the symbols."""
    found = sorted(symbols, key=lambda symbol: symbol.address)
    strings, rows = bytearray(b"\0"), bytearray(_SYM.size)
    for symbol, size in zip(found, _sizes(found), strict=True):
        info = _GLOBAL | (_FUNC if symbol.is_code else _OBJECT)
        address = symbol.address + slide & _MASK64
        rows += _SYM.pack(len(strings), info, 0, 1, address, size)
        strings += symbol.name.encode("utf-8", "surrogateescape") + b"\0"
    start = found[0].address + slide & _MASK64 if found else 0
    end = found[-1].address + slide + 1 & _MASK64 if found else 0
    return _file(start, end - start, bytes(rows), bytes(strings))


def _sizes(found: list[Symbol]) -> list[int]:
    """A symbol without a size goes up to the next one at another address."""
    sizes, following = [0] * len(found), 0
    for index in range(len(found) - 1, -1, -1):
        address = found[index].address
        if index + 1 < len(found) and found[index + 1].address != address:
            following = found[index + 1].address
        sizes[index] = found[index].size or max(following - address, 0)
    return sizes


def _file(start: int, size: int, rows: bytes, strings: bytes) -> bytes:
    at_rows = _EHDR.size
    at_strings = at_rows + len(rows)
    at_names = at_strings + len(strings)
    at_sections = at_names + len(_NAMES) + 7 & ~7
    sections = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, _NOBITS, _ALLOC | _EXECINSTR, start, at_rows, size, 0, 0, 16, 0),
        (7, _SYMTAB, 0, 0, at_rows, len(rows), 3, 1, 8, _SYM.size),
        (15, _STRTAB, 0, 0, at_strings, len(strings), 0, 0, 1, 0),
        (23, _STRTAB, 0, 0, at_names, len(_NAMES), 0, 0, 1, 0),
    ]
    head = _EHDR.pack(
        _IDENT, _EXEC, _X86_64, 1, start, 0, at_sections, 0, _EHDR.size, 0, 0, _SHDR.size,
        len(sections), 4,
    )  # fmt: skip
    body = head + rows + strings + _NAMES
    table = b"".join(_SHDR.pack(*section) for section in sections)
    return body + bytes(at_sections - len(body)) + table
