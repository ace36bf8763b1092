"""Multiboot 2, from "The Multiboot2 Specification, version 2.0": the header and its tags.

The header lies in the first 32 KiB on an 8-byte boundary. A tag that we do not honour is refused
unless the image marks it optional; those that speak only of EFI are without effect here, as the
specification says. What the guest is given is built in ``multiboot2_info``.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from vmm.boot.entry import protected
from vmm.boot.layout import Layout
from vmm.boot.memmap import HIGH_START
from vmm.boot.modules import load_modules
from vmm.boot.multiboot2_info import PROVIDED, build_info
from vmm.boot.payload import AddressFields, Payload, elf_payload, flat_payload
from vmm.boot.plan import BootPlan
from vmm.boot.request import BootRequest
from vmm.boot.sections import load_sections
from vmm.errors import UsageError

HEADER_MAGIC = 0xE85250D6
BOOT_MAGIC = 0x36D76289
SEARCH = 32768
_OPTIONAL = 1
_CONSOLE_REQUIRED = 1


class HeaderTag(IntEnum):
    """Tag types of the header ("General tag structure" and after)."""

    END = 0
    INFORMATION_REQUEST = 1
    ADDRESS = 2
    ENTRY_ADDRESS = 3
    CONSOLE_FLAGS = 4
    FRAMEBUFFER = 5
    MODULE_ALIGN = 6
    EFI_BOOT_SERVICES = 7
    ENTRY_EFI32 = 8
    ENTRY_EFI64 = 9
    RELOCATABLE = 10


_WITHOUT_EFFECT = frozenset(
    {
        HeaderTag.MODULE_ALIGN,  # modules are always page-aligned
        HeaderTag.EFI_BOOT_SERVICES,
        HeaderTag.ENTRY_EFI32,
        HeaderTag.ENTRY_EFI64,
    }
)


@dataclass(frozen=True, slots=True)
class Relocation:
    """The relocatable tag: the image may be moved within [lowest, highest], aligned."""

    lowest: int
    highest: int
    align: int
    preference: int  # 0 none, 1 lowest, 2 highest


@dataclass(slots=True)
class Header:
    """A header being read: its offset, and what its tags asked for."""

    offset: int
    fields: AddressFields | None = None
    entry: int | None = None
    relocation: Relocation | None = None
    requests: list[int] = field(default_factory=list)


def find_header(data: bytes) -> tuple[int, int] | None:
    """Return (offset, length) of the first valid header, or None."""
    head = data[:SEARCH]
    for offset in range(0, len(head) - 15, 8):
        magic, arch, length, checksum = struct.unpack_from("<IIII", head, offset)
        if magic == HEADER_MAGIC and (magic + arch + length + checksum) & 0xFFFFFFFF == 0:
            return offset, length
    return None


def read_header(data: bytes) -> Header:
    """Return what the header of ``data`` asks for; raise UsageError where we cannot serve it."""
    found = find_header(data)
    assert found is not None, "identify() saw the header"
    offset, length = found
    if struct.unpack_from("<I", data, offset + 4)[0] != 0:
        raise UsageError("the multiboot2 header is not for i386; build the image for x86")
    if length < 16 or offset + length > min(len(data), SEARCH):
        raise UsageError("the multiboot2 header is truncated; build or copy the image again")
    header = Header(offset)
    for kind, flags, body in _tags(data[offset + 16 : offset + length]):
        _apply_tag(header, kind, flags, body)
    return header


def _tags(blob: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 8 <= len(blob):
        kind, flags, size = struct.unpack_from("<HHI", blob, at)
        if kind == HeaderTag.END:
            return
        if size < 8 or at + size > len(blob):
            break
        yield kind, flags, blob[at + 8 : at + size]
        at += size + -size % 8
    raise UsageError("the tags of the multiboot2 header have no end; correct the header")


def _apply_tag(header: Header, kind: int, flags: int, body: bytes) -> None:
    try:
        match kind:
            case HeaderTag.INFORMATION_REQUEST:
                _check_requests(body, flags)
            case HeaderTag.ADDRESS:
                header.fields = AddressFields(*struct.unpack_from("<4I", body))
            case HeaderTag.ENTRY_ADDRESS:
                (header.entry,) = struct.unpack_from("<I", body)
            case HeaderTag.RELOCATABLE:
                header.relocation = Relocation(*struct.unpack_from("<4I", body))
            case HeaderTag.CONSOLE_FLAGS if not struct.unpack_from("<I", body)[0] & 1:
                pass  # a console is welcome, not required
            case _ if kind not in _WITHOUT_EFFECT and not flags & _OPTIONAL:
                raise UsageError(
                    f"the multiboot2 header requires {_name(kind)}, which ring1 does not have; "
                    "mark the tag optional"
                )
    except struct.error:
        raise UsageError(
            f"the multiboot2 header's tag for {_name(kind)} is too short; correct the header"
        ) from None


def _name(kind: int) -> str:
    try:
        return HeaderTag(kind).name.lower().replace("_", " ")
    except ValueError:
        return f"tag {kind}"


def _check_requests(body: bytes, flags: int) -> None:
    for (kind,) in struct.iter_unpack("<I", body[: len(body) // 4 * 4]):
        if kind not in PROVIDED and not flags & _OPTIONAL:
            raise UsageError(
                f"the multiboot2 header requires information of type {kind}, which ring1 does "
                "not have; mark the request optional"
            )


def plan_multiboot2(data: bytes, request: BootRequest) -> BootPlan:
    """Plan an image with a multiboot 2 header."""
    header = read_header(data)
    payload = _relocate(_payload(data, header), header.relocation, request.memory)
    layout = Layout(request.memory)
    payload.load(layout)
    modules = load_modules(layout, request.modules)
    sections = load_sections(layout, payload.elf)
    load_base = payload.start if header.relocation else None
    info = build_info(request, modules, sections, load_base)
    base = layout.put(info, "multiboot2 information")
    start = protected(layout, payload.entry, {"rax": BOOT_MAGIC, "rbx": base})
    return BootPlan("multiboot2", layout.placements(), start, data if payload.elf else None)


def _payload(data: bytes, header: Header) -> Payload:
    if header.fields is None:
        return elf_payload(data, header.entry)
    if header.entry is None:
        raise UsageError(
            "the multiboot2 header has an address tag and no entry address tag; add one"
        )
    return flat_payload(data, header.offset, header.fields, header.entry)


def _relocate(payload: Payload, wish: Relocation | None, memory: int) -> Payload:
    """Move a relocatable image by its preference; without one it stays where it is linked."""
    if wish is None:
        return payload
    if wish.align & (wish.align - 1):
        raise UsageError(
            f"the multiboot2 alignment {wish.align:#x} is not a power of two; correct it"
        )
    size = payload.end - payload.start
    low, high = max(wish.lowest, HIGH_START), min(wish.highest + 1, memory)
    align = max(wish.align, 1)
    lowest, highest = low + -low % align, (high - size) // align * align
    if lowest > highest:
        raise UsageError(
            f"the relocatable multiboot2 image does not fit between {wish.lowest:#x} and "
            f"{wish.highest:#x}; give it more --memory or a wider range"
        )
    stays = wish.preference == 0 and lowest <= payload.start <= highest
    if stays and payload.start % align == 0:
        return payload
    return payload.moved((highest if wish.preference == 2 else lowest) - payload.start)
