"""PVH: the entry that Xen's HVM loader and QEMU's use, announced by an ELF note.

Xen, "x86/HVM direct boot ABI" (docs/misc/pvh) and public/arch-x86/hvm/start_info.h: 32-bit flat
protected mode, EBX = the physical address of hvm_start_info; here in version 1, with a memory map.

Linux takes one module, its initial RAM disk, and a command line of COMMAND_LINE_SIZE (Linux,
arch/x86/platform/pvh/enlighten.c): it is known by a note of its own, and gets all its files in one.
"""

import struct
from collections.abc import Iterator

from vmm.boot.elf import ElfImage, load_segments
from vmm.boot.entry import protected
from vmm.boot.layout import Layout
from vmm.boot.linux.initrd import load_initrd
from vmm.boot.linux.zero_page import check_cmdline
from vmm.boot.memmap import HOLE_START, regions
from vmm.boot.modules import Loaded, load_modules
from vmm.boot.plan import BootPlan
from vmm.boot.request import BootRequest, guest_text

START_MAGIC = 0x336EC578
PHYS32_ENTRY = 18  # XEN_ELFNOTE_PHYS32_ENTRY, under the name "Xen"
LINUX_CMDLINE = 2047  # COMMAND_LINE_SIZE without the final zero
_INFO = struct.Struct("<IIIIQQQQII")
_MODULE = struct.Struct("<QQQQ")
_REGION = struct.Struct("<QQII")
_NOTE = struct.Struct("<III")


def pvh_entry(image: ElfImage) -> int | None:
    """Return the physical entry that the note names, or None without such a note."""
    for name, kind, value in _all_notes(image):
        if name == b"Xen" and kind == PHYS32_ENTRY and len(value) in (4, 8):
            return int.from_bytes(value, "little")
    return None


def plan_pvh(data: bytes, request: BootRequest) -> BootPlan:
    """Plan an ELF image that has a PVH note."""
    image = ElfImage(data)
    entry = pvh_entry(image)
    assert entry is not None, "identify() saw the note"
    layout = Layout(request.memory)
    load_segments(layout, image)
    modules = _load_modules(layout, image, request)
    size = len(_start_info(0, request, modules))
    base = layout.find(size, "PVH start information")
    layout.load(base, _start_info(base, request, modules), "PVH start information")
    start = protected(layout, image.physical(entry), {"rbx": base})
    return BootPlan("pvh", layout.placements(), start, data)


def _load_modules(layout: Layout, image: ElfImage, request: BootRequest) -> tuple[Loaded, ...]:
    if not any(name == b"Linux" for name, _, _ in _all_notes(image)):
        return load_modules(layout, request.modules)
    check_cmdline(request.cmdline, LINUX_CMDLINE)
    initrd = load_initrd(layout, request.modules, HOLE_START - 1)
    return (Loaded(initrd.start, initrd.size, b"initrd"),) if initrd.size else ()


def _all_notes(image: ElfImage) -> Iterator[tuple[bytes, int, bytes]]:
    for index, row in enumerate(image.program_headers):
        if row["p_type"] == "PT_NOTE":
            blob = image.slice(row["p_offset"], row["p_filesz"], f"note segment {index}")
            yield from notes_in(blob, 8 if row["p_align"] == 8 else 4)


def notes_in(blob: bytes, align: int) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (name, type, description) of well-formed notes; stop at the first that is not."""
    at = 0
    while at + _NOTE.size <= len(blob):
        name_size, value_size, kind = _NOTE.unpack_from(blob, at)
        name_at = at + _NOTE.size
        value_at = name_at + name_size + -name_size % 4
        value_at += -value_at % align
        if value_at + value_size > len(blob):
            return
        name = blob[name_at : name_at + name_size].rstrip(b"\0")
        yield name, kind, blob[value_at : value_at + value_size]
        at = value_at + value_size + -value_size % align


def _start_info(base: int, request: BootRequest, modules: tuple[Loaded, ...]) -> bytes:
    """Return hvm_start_info to lie at ``base``: header, modules, memory map, strings."""
    areas = regions(request.memory)
    modules_at = base + _INFO.size
    map_at = modules_at + _MODULE.size * len(modules)
    text_at = map_at + _REGION.size * len(areas)
    text = guest_text(request.cmdline) + b"\0"
    rows = b""
    for module in modules:
        rows += _MODULE.pack(module.start, module.size, text_at + len(text), 0)
        text += module.words + b"\0"
    head = _INFO.pack(
        START_MAGIC,
        1,  # version
        0,  # flags
        len(modules),
        modules_at if modules else 0,
        text_at,
        request.rsdp,
        map_at,
        len(areas),
        0,
    )
    table = b"".join(_REGION.pack(area.start, area.size, area.type, 0) for area in areas)
    return head + rows + table + text
