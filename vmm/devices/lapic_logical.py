"""Logical destinations (Intel SDM, "Logical Destination Mode" of xAPIC and of x2APIC)."""

from vmm.devices.lapic_registers import Reg, RegisterPage

FLAT, CLUSTER = 0xF, 0x0
"""Models in bits 31..28 of the destination format register."""


def matches(destination: int, page: RegisterPage, *, x2apic: bool) -> bool:
    """True if the logical `destination` addresses the local APIC with these registers."""
    if x2apic:
        return matches_x2apic(destination, page[Reg.LDR])
    return matches_xapic(destination, page[Reg.LDR], page[Reg.DFR])


def matches_xapic(destination: int, ldr: int, dfr: int) -> bool:
    """True if an 8-bit message destination addresses the logical ID in LDR bits 31..24."""
    mine, model = ldr >> 24, dfr >> 28
    if model == FLAT:
        return bool(destination & mine) and destination <= 0xFF
    in_cluster = destination >> 4 == mine >> 4
    return model == CLUSTER and in_cluster and bool(destination & mine & 0xF)


def matches_x2apic(destination: int, ldr: int) -> bool:
    """True if cluster (bits 31..16) is LDR's and a bit of the low half is too."""
    return destination >> 16 == ldr >> 16 and bool(destination & ldr & 0xFFFF)
