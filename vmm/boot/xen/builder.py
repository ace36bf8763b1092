"""Xen's domain builder for 64-bit PV guests.

Order of what lies behind the kernel (xen/arch/x86/pv/dom0_build.c, tools/libs/guest): initial RAM
disk, phys-to-machine list, start_info, xenstore page, console page, page tables, boot stack; all
mapped from virt_base on, to the end of a 4 MiB region with at least 512 KiB to spare. The list goes
to an address of its own where the kernel names one. Placements are pseudo-physical; page tables,
list and start_info hold machine frames.
"""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hwmodel.cpu.xen import Layout
from vmm.boot.elf import MAGIC, ElfImage
from vmm.boot.linux.header import is_bzimage
from vmm.boot.plan import BootPlan, Mode, Placement, StartState
from vmm.boot.request import BootRequest, guest_text
from vmm.boot.xen.hypercall_page import hypercall_page
from vmm.boot.xen.notes import PvKernel, pv_kernel
from vmm.boot.xen.page_tables import PageTables, tables_needed
from vmm.errors import UsageError

if TYPE_CHECKING:
    from array import array

PAGE: Final = 4096
CANONICAL: Final = 1 << 47
HOLE_END: Final = 0xFFFF_8800_0000_0000
"""arch-x86/xen-x86_64.h, HYPERVISOR_VIRT_END: above it is the guest's kernel."""
SPARE, REGION = 512 << 10, 4 << 20  # bytes
CMDLINE_MAX: Final = 1023
STORE_PORT, CONSOLE_PORT = 1, 2
MAGIC_TEXT: Final = b"xen-3.0-x86_64"
MOD_START_PFN: Final = 1 << 3  # SIF_MOD_START_PFN
_INFO: Final = struct.Struct("<32sQQI4xQI4xQI4xQQQQQ1024sQQ")


@dataclass(frozen=True, slots=True)
class Domain:
    """Where Xen's own frames are, and the machine frame of each pseudo-physical one."""

    p2m: "array[int]"
    layout: Layout


@dataclass(frozen=True, slots=True)
class Places:
    """First frames (pseudo-physical) of what follows the kernel; `end` is the end of the map."""

    module: int
    p2m: int
    p2m_frames: int
    start_info: int
    store: int
    console: int
    tables: int
    table_count: int
    stack: int
    end: int


def plan_pv(data: bytes, request: BootRequest, domain: Domain) -> BootPlan:
    """Plan a PV guest. Raises UsageError for an image that is none, or too little memory."""
    content = _kernel_of(data)
    image = ElfImage(content)
    kernel = pv_kernel(image)
    if len(guest_text(request.cmdline)) > CMDLINE_MAX:
        raise UsageError(f"--cmdline is longer than the {CMDLINE_MAX} bytes of Xen's start_info")
    if any(segment.gpa < kernel.paddr_offset for segment in image.segments):
        raise UsageError("a segment of the image lies below the offset of its Xen note; relink it")
    parts = [
        Placement(segment.gpa - kernel.paddr_offset, segment.data, segment.name)
        for segment in image.segments
    ]
    end = max(s.gpa - kernel.paddr_offset + s.size for s in image.segments)
    module = b"".join(
        part.data.ljust(-(-len(part.data) // 4) * 4, b"\0") for part in request.modules
    )
    places = _place(kernel, -(-end // PAGE), len(module), len(domain.p2m))
    if places.end > len(domain.p2m):
        raise UsageError(
            f"--memory holds {len(domain.p2m)} frames and the guest's start needs {places.end}; "
            "give more"
        )
    _check_addresses(kernel, places)
    parts += _behind(kernel, places, module, request, domain)
    if kernel.hypercall_page:
        page = kernel.hypercall_page - kernel.virt_base
        parts = _patched(parts, page)
    root = domain.p2m[places.tables]
    start = StartState(
        Mode.LONG64, kernel.entry, cr3=root * PAGE,
        gpr={
            "rsp": kernel.virt_base + (places.stack + 1) * PAGE,
            "rsi": kernel.virt_base + places.start_info * PAGE,
        },
    )  # fmt: skip
    pages = domain.p2m[places.store], domain.p2m[places.console]
    return BootPlan("xen-pv", tuple(parts), start, content, pages)


def _kernel_of(data: bytes) -> bytes:
    if is_bzimage(data):
        from vmm.boot.linux.bzimage import kernel_inside

        data = kernel_inside(data)
    if not data.startswith(MAGIC):
        raise UsageError("the image is neither an ELF file nor a bzImage of one that ring1 unpacks")
    return data


def _place(kernel: PvKernel, first: int, module: int, frames: int) -> Places:
    p2m = first + -(-module // PAGE)
    p2m_frames = -(-frames * 8 // PAGE)
    start_info = p2m + p2m_frames
    tables, count = start_info + 3, 8
    while True:
        stack = tables + count
        end = ((stack + 1) * PAGE + SPARE + REGION - 1) // REGION * REGION
        needed = tables_needed(kernel.virt_base, end // PAGE)
        if kernel.init_p2m is not None:
            needed += tables_needed(kernel.init_p2m, p2m_frames) - 1
        if needed <= count:
            break
        count = needed
    return Places(
        first, p2m, p2m_frames, start_info, start_info + 1, start_info + 2, tables, count, stack,
        end // PAGE,
    )  # fmt: skip


def _check_addresses(kernel: PvKernel, places: Places) -> None:
    """Refuse notes with addresses where nothing can be, or that Xen keeps for itself."""
    ranges = [("VIRT_BASE", kernel.virt_base, places.end * PAGE)]
    if kernel.init_p2m is not None:
        ranges.append(("INIT_P2M", kernel.init_p2m, places.p2m_frames * PAGE))
    for name, start, size in ranges:
        low, high = start + size <= CANONICAL, start >= HOLE_END and start + size <= 1 << 64
        if start % PAGE or not (low or high):
            raise UsageError(f"the image's Xen note {name} {start:#x} is no place; relink it")
    page = kernel.hypercall_page - kernel.virt_base
    if kernel.hypercall_page and (page % PAGE or not 0 <= page < places.module * PAGE):
        raise UsageError(
            f"the image's hypercall page {kernel.hypercall_page:#x} is not in the image; relink it"
        )


def _behind(
    kernel: PvKernel, places: Places, module: bytes, request: BootRequest, domain: Domain
) -> list[Placement]:
    info = _start_info(kernel, places, len(module), request, domain)
    parts = [
        Placement(places.module * PAGE, module, "initrd"),
        Placement(places.p2m * PAGE, domain.p2m.tobytes(), "phys-to-machine list"),
        Placement(places.start_info * PAGE, info, "start_info"),
    ]
    tables = PageTables(domain.p2m, places.tables)
    hidden = range(0)
    if kernel.init_p2m is not None:
        hidden = range(places.p2m, places.p2m + places.p2m_frames)
        tables.map(kernel.init_p2m, hidden)
    tables.map(kernel.virt_base, range(places.end), without=hidden)
    own = range(places.tables, places.tables + places.table_count)
    return [*parts, *tables.placements(read_only=own)]


def _start_info(
    kernel: PvKernel, places: Places, module: int, request: BootRequest, domain: Domain
) -> bytes:
    """Return struct start_info (public/xen.h)."""
    base, p2m = kernel.virt_base, domain.p2m
    by_pfn = kernel.modules_by_pfn and module
    start = places.module if by_pfn else base + places.module * PAGE
    own = kernel.init_p2m is not None
    return _INFO.pack(
        MAGIC_TEXT, len(p2m), domain.layout.shared_info * PAGE, MOD_START_PFN if by_pfn else 0,
        p2m[places.store], STORE_PORT, p2m[places.console], CONSOLE_PORT,
        base + places.tables * PAGE, places.table_count,
        kernel.init_p2m if kernel.init_p2m is not None else base + places.p2m * PAGE,
        start if module else 0, module, guest_text(request.cmdline),
        places.p2m if own else 0, places.p2m_frames if own else 0,
    )  # fmt: skip


def _patched(parts: list[Placement], page: int) -> list[Placement]:
    """Put the hypercall page over the kernel's bytes there."""
    data, found = hypercall_page(), []
    for part in parts:
        offset = page - part.gpa
        if offset >= 0 and offset + PAGE <= len(part.data):
            merged = b"".join((part.data[:offset], data, part.data[offset + PAGE :]))
            found.append(Placement(part.gpa, merged, part.name))
        else:
            found.append(part)
    if found == parts:
        found.append(Placement(page, data, "hypercall page"))
    return found
