"""Multiboot 1, from "The Multiboot Specification, version 0.6.96".

The image announces itself by a header in its first 8 KiB; it starts in 32-bit flat protected mode
with EAX = 0x2badb002 and EBX = the information structure. ELF64 payloads start the same way.
The command line begins with the image's name, as QEMU's -kernel passes it: words are argv.
A wish for a video mode is not granted and not refused: the flags say that there is none.
"""

import struct
from dataclasses import dataclass

from vmm.boot.entry import protected
from vmm.boot.layout import Layout
from vmm.boot.memmap import lower_kib, regions, upper_kib
from vmm.boot.modules import Loaded, load_modules
from vmm.boot.payload import AddressFields, Payload, elf_payload, flat_payload
from vmm.boot.plan import BootPlan
from vmm.boot.request import BootRequest, guest_text
from vmm.boot.sections import SectionTable, load_sections
from vmm.errors import UsageError

HEADER_MAGIC = 0x1BADB002
BOOT_MAGIC = 0x2BADB002
LOADER_NAME = b"ring1"
SEARCH = 8192
_KNOWN = 0b111  # page-aligned modules, memory information, video mode
_REQUIRED = 0xFFFF  # a bit of these that is not understood must be refused
_ADDRESSES = 1 << 16
_HAS_MEMORY, _HAS_CMDLINE, _HAS_MODULES = 1 << 0, 1 << 2, 1 << 3
_HAS_SECTIONS, _HAS_MAP, _HAS_LOADER = 1 << 5, 1 << 6, 1 << 9
_INFO_SIZE = 116  # up to and with the VBE fields
_MODULE = struct.Struct("<IIII")
_REGION = struct.Struct("<IQQI")


@dataclass(frozen=True, slots=True)
class Header:
    """The header: its offset in the file, its flags, and the address fields of bit 16."""

    offset: int
    flags: int
    fields: AddressFields | None
    entry: int


def find_header(data: bytes) -> Header | None:
    """Return the first valid header, or None. Wholly within 8 KiB, on a 4-byte boundary."""
    head = data[:SEARCH]
    for offset in range(0, len(head) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", head, offset)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return _header(head, offset, flags)
    return None


def _header(head: bytes, offset: int, flags: int) -> Header:
    if not flags & _ADDRESSES:
        return Header(offset, flags, None, 0)
    if offset + 32 > len(head):
        raise UsageError("the multiboot header is truncated; build or copy the image again")
    *fields, entry = struct.unpack_from("<5I", head, offset + 12)
    return Header(offset, flags, AddressFields(*fields), entry)


def plan_multiboot1(data: bytes, request: BootRequest) -> BootPlan:
    """Plan an image with a multiboot 1 header."""
    header = find_header(data)
    assert header is not None, "identify() saw the header"
    if unknown := header.flags & _REQUIRED & ~_KNOWN:
        raise UsageError(
            f"the multiboot header requires features {unknown:#x} that do not exist in the "
            "specification; correct its flags"
        )
    payload = _payload(data, header)
    layout = Layout(request.memory)
    payload.load(layout)
    modules = load_modules(layout, request.modules)
    sections = load_sections(layout, payload.elf)
    size = len(build_info(0, request, modules, sections))
    base = layout.find(size, "multiboot information")
    layout.load(base, build_info(base, request, modules, sections), "multiboot information")
    start = protected(layout, payload.entry, {"rax": BOOT_MAGIC, "rbx": base})
    return BootPlan("multiboot1", layout.placements(), start, data if payload.elf else None)


def _payload(data: bytes, header: Header) -> Payload:
    if header.fields is None:
        return elf_payload(data)
    return flat_payload(data, header.offset, header.fields, header.entry)


def build_info(
    base: int,
    request: BootRequest,
    modules: tuple[Loaded, ...],
    sections: SectionTable | None,
) -> bytes:
    """Return the information structure to lie at ``base``, its parts behind it."""
    parts = bytearray(_INFO_SIZE)

    def put(data: bytes, align: int = 4) -> int:
        parts.extend(bytes(-len(parts) % align))
        parts.extend(data)
        return base + len(parts) - len(data)

    name = guest_text(request.image_name.replace(" ", "_"))
    cmdline = put(name + b" " * bool(request.cmdline) + guest_text(request.cmdline) + b"\0")
    loader = put(LOADER_NAME + b"\0")
    memory_map = b"".join(
        _REGION.pack(20, area.start, area.size, area.type) for area in regions(request.memory)
    )
    map_at = put(memory_map)
    rows = [_MODULE.pack(m.start, m.end, put(m.words + b"\0"), 0) for m in modules]
    modules_at = put(b"".join(rows))
    flags = _HAS_MEMORY | _HAS_CMDLINE | _HAS_MODULES | _HAS_MAP | _HAS_LOADER
    shape = (0, 0, 0, 0)
    if sections:
        flags |= _HAS_SECTIONS
        table = put(sections.headers)
        shape = (sections.count, sections.entry_size, table, sections.names_index)
    memory = (lower_kib(request.memory), upper_kib(request.memory))
    struct.pack_into(
        "<13I", parts, 0, flags, *memory, 0, cmdline, len(modules), modules_at, *shape,
        len(memory_map), map_at,
    )  # fmt: skip
    struct.pack_into("<I", parts, 64, loader)
    return bytes(parts)
