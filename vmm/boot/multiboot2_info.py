"""Multiboot 2, "Boot information format": the tags that the guest is given.

The structure holds no pointers to itself, so it may be built before its address is known. The
command line is the one given: unlike multiboot 1's, it does not begin with the image's name.
"""

import struct
from enum import IntEnum

from vmm.boot.memmap import lower_kib, regions, upper_kib
from vmm.boot.modules import Loaded
from vmm.boot.request import BootRequest, guest_text
from vmm.boot.sections import SectionTable

LOADER_NAME = b"ring1"


class InfoTag(IntEnum):
    """Tag types of the boot information that we provide."""

    END = 0
    CMDLINE = 1
    LOADER_NAME = 2
    MODULE = 3
    BASIC_MEMORY = 4
    MEMORY_MAP = 6
    ELF_SECTIONS = 9
    LOAD_BASE = 21


PROVIDED = frozenset(InfoTag)


def build_info(
    request: BootRequest,
    modules: tuple[Loaded, ...],
    sections: SectionTable | None,
    load_base: int | None,
) -> bytes:
    """Return the whole structure: total size, tags, end tag. ``load_base`` None: not movable."""
    tags = [
        _tag(InfoTag.CMDLINE, guest_text(request.cmdline) + b"\0"),
        _tag(InfoTag.LOADER_NAME, LOADER_NAME + b"\0"),
        _tag(
            InfoTag.BASIC_MEMORY,
            struct.pack("<II", lower_kib(request.memory), upper_kib(request.memory)),
        ),
        *(_module_tag(module) for module in modules),
        _map_tag(request.memory),
    ]
    if sections:
        tags.append(_sections_tag(sections))
    if load_base is not None:
        tags.append(_tag(InfoTag.LOAD_BASE, struct.pack("<I", load_base)))
    body = b"".join([*tags, _tag(InfoTag.END, b"")])
    return struct.pack("<II", 8 + len(body), 0) + body


def _tag(kind: InfoTag, body: bytes) -> bytes:
    data = struct.pack("<II", kind, 8 + len(body)) + body
    return data + bytes(-len(data) % 8)


def _module_tag(module: Loaded) -> bytes:
    return _tag(InfoTag.MODULE, struct.pack("<II", module.start, module.end) + module.words + b"\0")


def _map_tag(memory: int) -> bytes:
    entries = b"".join(
        struct.pack("<QQII", area.start, area.size, area.type, 0) for area in regions(memory)
    )
    return _tag(InfoTag.MEMORY_MAP, struct.pack("<II", 24, 0) + entries)


def _sections_tag(table: SectionTable) -> bytes:
    # Three 32-bit fields, as multiboot2.h and every loader have them; the prose says 16-bit.
    shape = struct.pack("<III", table.count, table.entry_size, table.names_index)
    return _tag(InfoTag.ELF_SECTIONS, shape + table.headers)
