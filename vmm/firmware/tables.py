"""The fixed tables, one function each, as bytes (ACPI 6.4, "ACPI Software Programming Model").

A table is a header of 36 bytes and a body; all its bytes sum to zero.
"""

import struct

from vmm.boardmap import (
    ECAM,
    IOAPIC_BASE,
    LAPIC_BASE,
    PCI_PIC_LINES,
    PM_BASE,
    RESET_PORT,
    SCI_LINE,
    WAKEUP_MAILBOX,
)
from vmm.firmware.description import Description

OEM, TABLE, CREATOR = b"RING1 ", b"RING1PC ", b"RNG1"
HEADER_SIZE, FACS_SIZE, RSDP_SIZE = 36, 64, 36
SYSTEM_IO, SYSTEM_MEMORY = 1, 0
LEVEL_HIGH = 0xD
"""MPS INTI flags: active high, level-triggered."""


def checksummed(data: bytes, at: int) -> bytes:
    """Return `data` with the byte `at` chosen so that all sum to zero."""
    rest = data[:at] + b"\0" + data[at + 1 :]
    return data[:at] + bytes([-sum(rest) & 0xFF]) + data[at + 1 :]


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """Put the common header before `body` ("System Description Table Header")."""
    length = HEADER_SIZE + len(body)
    head = struct.pack("<4sIBB6s8sI4sI", signature, length, revision, 0, OEM, TABLE, 1, CREATOR, 1)
    return checksummed(head + body, 9)


def rsdp(rsdt_at: int, xsdt_at: int) -> bytes:
    """Root System Description Pointer, revision 2: one checksum for 20 bytes, one for all."""
    first = checksummed(struct.pack("<8sB6sBI", b"RSD PTR ", 0, OEM, 2, rsdt_at), 8)
    return checksummed(first + struct.pack("<IQB3x", RSDP_SIZE, xsdt_at, 0), 32)


def rsdt(addresses: list[int]) -> bytes:
    """Root table with 32-bit pointers, for those who look no further."""
    return table(b"RSDT", 1, struct.pack(f"<{len(addresses)}I", *addresses))


def xsdt(addresses: list[int]) -> bytes:
    """Root table with 64-bit pointers."""
    return table(b"XSDT", 1, struct.pack(f"<{len(addresses)}Q", *addresses))


def facs() -> bytes:
    """Firmware ACPI Control Structure: no waking vector, a global lock; it has no checksum."""
    return struct.pack("<4sI", b"FACS", FACS_SIZE).ljust(32, b"\0") + b"\2".ljust(32, b"\0")


def generic(space: int, bits: int, access: int, address: int) -> bytes:
    """Return a Generic Address Structure; `access` is 1 byte, 2 word, 3 dword."""
    return struct.pack("<BBBBQ", space, bits, 0, access, address)


_LEGACY_DEVICES, _HAS_8042 = 1 << 0, 1 << 1
_WBINVD, _PROC_C1, _NO_SLEEP_BUTTON, _RTC_NOT_FIXED = 1 << 0, 1 << 2, 1 << 5, 1 << 6
_TIMER_32BIT, _RESET = 1 << 8, 1 << 10
RESET_VALUE = 0x06
_NO_C2, _NO_C3 = 101, 1001
"""Worst-case latencies that say that these states are not there."""


def fadt(facs_at: int, dsdt_at: int) -> bytes:
    """Fixed ACPI Description Table, revision 6: PM1 blocks, PM timer, reset; ACPI is always on."""
    old = struct.pack(
        "<II BBHI BBBB 8I 8B 4H 5B HxI",
        facs_at, dsdt_at,
        0, 0, SCI_LINE, 0,  # SMI command port 0: there is no legacy mode to leave
        0, 0, 0, 0,
        PM_BASE, 0, PM_BASE + 4, 0, 0, PM_BASE + 8, 0, 0,
        4, 2, 0, 4, 0, 0, 0, 0,
        _NO_C2, _NO_C3, 0, 0,
        0, 0, 0, 0, 0x32,  # the century's place in CMOS
        _LEGACY_DEVICES | _HAS_8042,
        _WBINVD | _PROC_C1 | _NO_SLEEP_BUTTON | _RTC_NOT_FIXED | _TIMER_32BIT | _RESET,
    )  # fmt: skip
    nothing = generic(SYSTEM_MEMORY, 0, 0, 0)
    new = b"".join(
        (
            generic(SYSTEM_IO, 8, 1, RESET_PORT), bytes([RESET_VALUE, 0, 0, 0]),
            struct.pack("<QQ", facs_at, dsdt_at),
            generic(SYSTEM_IO, 32, 2, PM_BASE), nothing,
            generic(SYSTEM_IO, 16, 2, PM_BASE + 4), nothing,
            nothing,
            generic(SYSTEM_IO, 32, 3, PM_BASE + 8),
            nothing, nothing,
            nothing, nothing,  # sleep control and status: only for hardware-reduced ACPI
            struct.pack("<8s", b""),
        )
    )  # fmt: skip
    return table(b"FACP", 6, old + new)


def madt(machine: Description) -> bytes:
    """Multiple APIC Description Table: local APICs, the I/O APIC, what ISA lines differ in."""
    local = [struct.pack("<BBBBI", 0, 8, cpu, cpu, 1) for cpu in range(machine.cpus)]
    io = struct.pack("<BBBBII", 1, 12, 0, 0, IOAPIC_BASE, 0)
    overrides = [_override(0, 2, 0)]
    overrides += [_override(n, n, LEVEL_HIGH) for n in sorted({SCI_LINE, *PCI_PIC_LINES})]
    nmi = struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)  # every processor's LINT1
    has_8259 = 1
    body = (
        struct.pack("<II", LAPIC_BASE, has_8259) + b"".join(local) + io + b"".join(overrides) + nmi
    )
    if machine.has_mailbox:
        body += struct.pack("<BBHIQ", 0x10, 16, 0, 0, WAKEUP_MAILBOX)
    return table(b"APIC", 5, body)


def _override(line: int, gsi: int, flags: int) -> bytes:
    return struct.pack("<BBBBIH", 2, 10, 0, line, gsi, flags)


def mcfg() -> bytes:
    """Where configuration space is mapped: segment 0, bus 0 to 0 (PCI Firmware Specification)."""
    return table(b"MCFG", 1, bytes(8) + struct.pack("<QHBBI", ECAM[0], 0, 0, 0, 0))


def srat(machine: Description) -> bytes:
    """System Resource Affinity Table: the node of each processor and memory range."""
    rows = []
    for number, node in enumerate(machine.nodes):
        low, high = number & 0xFF, (number >> 8).to_bytes(3, "little")
        rows += [struct.pack("<BBBBIB3sI", 0, 16, low, cpu, 1, 0, high, 0) for cpu in node.cpus]
        for first, end in node.memory:
            size = end - first
            rows.append(struct.pack("<BBIHQQIIQ", 1, 40, number, 0, first, size, 0, 1, 0))
    return table(b"SRAT", 3, struct.pack("<IQ", 1, 0) + b"".join(rows))


def slit(machine: Description) -> bytes:
    """System Locality Distance Information Table: how far node is from node."""
    rows = b"".join(bytes(row) for row in machine.distances)
    return table(b"SLIT", 1, struct.pack("<Q", len(machine.distances)) + rows)
