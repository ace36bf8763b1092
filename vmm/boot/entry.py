"""The processor states that boot protocols start from, with the tables they need in memory.

GDT of PROT32 and LONG64: null, code at selector 8, data at selector 16, or where the protocol has
them (Intel SDM, "Segment Descriptors": flat, present, ring 0, accessed). LONG64 runs on an identity
map of the first 4 GiB in 2 MiB pages, six tables in one block:

    +0x0000 PML4   +0x1000 PDPT   +0x2000 ... +0x5fff four page directories
"""

import struct
from collections.abc import Mapping

from vmm.boot.layout import PAGE, Layout
from vmm.boot.plan import Mode, Selector, StartState, Table

SELECTORS = Selector(8), Selector(16)  # code, data
LINUX_SELECTORS = Selector(0x10), Selector(0x18)  # __BOOT_CS, __BOOT_DS
_CODE32, CODE64, DATA = 0x00CF9B000000FFFF, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
_PRESENT, _WRITABLE, _LARGE = 1 << 0, 1 << 1, 1 << 7
STACK_SIZE = 16 << 10
Selectors = tuple[Selector, Selector]


def protected(
    layout: Layout, rip: int, gpr: Mapping[str, int], selectors: Selectors = SELECTORS
) -> StartState:
    """Return a 32-bit flat start without paging, its GDT placed."""
    cs, ds = selectors
    return StartState(Mode.PROT32, rip, gpr, cs=cs, ds=ds, gdt=_put_gdt(layout, _CODE32, selectors))


def long(
    layout: Layout, rip: int, gpr: Mapping[str, int], selectors: Selectors = SELECTORS
) -> StartState:
    """Return a 64-bit start on the identity map, its GDT and page tables placed."""
    cs, ds = selectors
    return StartState(
        Mode.LONG64,
        rip,
        gpr,
        cr3=_put_identity_map(layout),
        cs=cs,
        ds=ds,
        gdt=_put_gdt(layout, CODE64, selectors),
    )


def put_stack(layout: Layout) -> int:
    """Reserve a small stack; return its top, as RSP at the first instruction."""
    return layout.reserve(STACK_SIZE, "boot stack") + STACK_SIZE


def _put_gdt(layout: Layout, code: int, selectors: Selectors) -> Table:
    cs, ds = selectors
    rows = [0] * (max(cs.selector, ds.selector) // 8 + 1)
    rows[cs.selector // 8], rows[ds.selector // 8] = code, DATA
    data = struct.pack(f"<{len(rows)}Q", *rows)
    return Table(layout.put(data, "boot GDT"), len(data) - 1)


def _put_identity_map(layout: Layout) -> int:
    size = 6 * PAGE
    base = layout.find(size, "boot page tables", align=PAGE)
    layout.load(base, identity_map(base), "boot page tables")
    return base


def identity_map(base: int) -> bytes:
    """Return the six tables, to lie at ``base``: 2048 pages of 2 MiB, writable, supervisor."""
    link = _PRESENT | _WRITABLE
    pml4 = [base + PAGE | link] + [0] * 511
    pdpt = [base + (2 + index) * PAGE | link for index in range(4)] + [0] * 508
    pages = [index << 21 | link | _LARGE for index in range(2048)]
    entries = pml4 + pdpt + pages
    return struct.pack(f"<{len(entries)}Q", *entries)
