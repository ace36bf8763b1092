"""What a PV kernel says of itself: ELF notes under the name "Xen", in segments or sections.

Xen public/elfnote.h. A number may be 4 or 8 bytes; text ends with a zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from vmm.boot.elf import ElfImage
from vmm.boot.pvh import notes_in
from vmm.errors import UsageError


class Note(IntEnum):
    """XEN_ELFNOTE_*."""

    ENTRY = 1
    HYPERCALL_PAGE = 2
    VIRT_BASE = 3
    PADDR_OFFSET = 4
    XEN_VERSION = 5
    GUEST_OS = 6
    LOADER = 8
    PAE_MODE = 9
    FEATURES = 10
    INIT_P2M = 15
    MOD_START_PFN = 16


PV_NOTES: Final = frozenset({Note.ENTRY, Note.HYPERCALL_PAGE, Note.VIRT_BASE})
"""A kernel with one of them can be started as a PV guest."""


@dataclass(frozen=True, slots=True)
class PvKernel:
    """The numbers of the notes; virtual addresses, 0 or None where a note is missing."""

    entry: int
    virt_base: int
    paddr_offset: int
    hypercall_page: int
    init_p2m: int | None
    modules_by_pfn: bool


def pv_kernel(image: ElfImage) -> PvKernel:
    """Read them. Raises UsageError for an image that is no PV kernel."""
    found = dict(_xen_notes(image))
    if image.bits != 64 or not PV_NOTES & found.keys():
        raise UsageError(
            "the image is no 64-bit Xen PV kernel (it has no Xen notes for one); use "
            "--technique vtx, or a kernel with CONFIG_XEN_PV"
        )
    base = _number(found.get(Note.VIRT_BASE))
    return PvKernel(
        entry=_number(found.get(Note.ENTRY)) or int(image.header["e_entry"]),
        virt_base=base,
        paddr_offset=_number(found.get(Note.PADDR_OFFSET)),
        hypercall_page=_number(found.get(Note.HYPERCALL_PAGE)),
        init_p2m=_number(found[Note.INIT_P2M]) if Note.INIT_P2M in found else None,
        modules_by_pfn=bool(_number(found.get(Note.MOD_START_PFN))),
    )


def _number(value: bytes | None) -> int:
    return int.from_bytes((value or b"")[:8], "little")


def _xen_notes(image: ElfImage) -> Iterator[tuple[int, bytes]]:
    for kind, row, offset, size in (
        *(("PT_NOTE", row, "p_offset", "p_filesz") for row in image.program_headers),
        *(("SHT_NOTE", row, "sh_offset", "sh_size") for row in image.section_headers),
    ):
        if row["p_type" if kind == "PT_NOTE" else "sh_type"] != kind:
            continue
        blob = image.slice(row[offset], row[size], "a note")
        for name, number, value in notes_in(blob, 4):
            if name == b"Xen":
                yield number, value
