"""The state in which a processor starts that is woken through ACPI's mailbox: 64-bit mode,
interrupts off, on an identity map of the first 4 GiB (ACPI 6.4, "Multiprocessor Wakeup Structure").
"""

import struct

from vmm.boardmap import WAKEUP_TABLES
from vmm.boot.entry import CODE64, DATA, SELECTORS, identity_map
from vmm.boot.plan import Mode, StartState, Table

_BASE = WAKEUP_TABLES[0]
_GDT_AT = 6 * 4096  # behind the six page tables
_GDT = struct.pack("<3Q", 0, CODE64, DATA)


def wakeup_tables() -> tuple[int, bytes]:
    """Return where page tables and GDT lie, and the bytes."""
    tables = identity_map(_BASE)
    assert len(tables) == _GDT_AT
    return _BASE, tables + _GDT


def wakeup_state(address: int) -> StartState:
    """Return the registers of a processor that starts at `address`."""
    cs, ds = SELECTORS
    gdt = Table(_BASE + _GDT_AT, len(_GDT) - 1)
    return StartState(Mode.LONG64, address, cr3=_BASE, cs=cs, ds=ds, gdt=gdt)
