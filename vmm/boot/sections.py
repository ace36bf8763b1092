"""ELF section headers for the guest, as both multiboot specifications pass them.

Symbol and string tables, which are part of no segment, are brought into memory and their headers
pointed at them, so that a guest can print names in a backtrace; other unloaded sections (debugging
information) keep their zero address.
"""

from dataclasses import dataclass

from vmm.boot.elf import ElfImage
from vmm.boot.layout import PAGE, Layout

_SHF_ALLOC = 2
_WANTED = ("SHT_SYMTAB", "SHT_STRTAB")
_ADDRESS = {32: (12, 4), 64: (16, 8)}  # offset and size of sh_addr in a header


@dataclass(frozen=True, slots=True)
class SectionTable:
    """The header table as bytes, with its shape."""

    headers: bytes
    count: int
    entry_size: int
    names_index: int


def load_sections(layout: Layout, image: ElfImage | None) -> SectionTable | None:
    """Place symbol and string tables; return the table that points at them, None without one."""
    if image is None or not image.header["e_shnum"]:
        return None
    size, count = image.header["e_shentsize"], image.header["e_shnum"]
    headers = bytearray(image.slice(image.header["e_shoff"], size * count, "the section table"))
    at, width = _ADDRESS[image.bits]
    for index, row in enumerate(image.section_headers):
        if row["sh_type"] in _WANTED and not row["sh_flags"] & _SHF_ALLOC and row["sh_size"]:
            name = f"section {index}"
            data = image.slice(row["sh_offset"], row["sh_size"], name)
            gpa = layout.put(data, name, start=layout.top(), align=PAGE)
            headers[index * size + at : index * size + at + width] = gpa.to_bytes(width, "little")
    return SectionTable(bytes(headers), count, size, image.header["e_shstrndx"])
