"""The DSDT: the namespace of the board, as AML."""

from vmm.boardmap import (
    ECAM,
    PCI_CONFIG_PORT,
    PCI_LINES,
    PCI_MEMORY,
    PCI_MEMORY64,
    PCI_PIC_LINES,
    PM_BASE,
    VGA_MEMORY,
)
from vmm.firmware.aml import (
    argument,
    device,
    eisa_id,
    if_else,
    method,
    name,
    package,
    path,
    returns,
    scope,
    store,
)
from vmm.firmware.description import Description, MmioDevice
from vmm.firmware.resources import (
    bus_window,
    interrupt,
    irq,
    memory32,
    memory_window,
    port_window,
    ports,
    resources,
)

SLOTS, PINS = 32, 4
POWER_OFF_TYPE = 0
"""SLP_TYP of S5: what kernels write for QEMU without reading the table (0x2000 to 0x604)."""
_ANY_FUNCTION = 0xFFFF  # in a _PRT address: any function of the slot


def dsdt_body(machine: Description) -> bytes:
    """Return the definition block, without the table header."""
    return b"".join(
        (
            name("\\_S5", package(POWER_OFF_TYPE, POWER_OFF_TYPE, 0, 0)),
            name("\\PICM", 0),
            method("\\_PIC", 1, store(argument(0), "\\PICM")),
            scope("\\_SB", _pci(machine), _reserved(), *_legacy(), *_mmio(machine.mmio_devices)),
        )
    )


def _pci(machine: Description) -> bytes:
    """The root bridge: what it passes on, and where its devices' interrupts go.

    Not PCI Express (PNP0A08): nothing behind it is, and there is no _OSC to negotiate.
    """
    return device(
        "PCI0",
        name("_HID", eisa_id("PNP0A03")),
        name("_UID", 0),
        *([name("_PXM", 0)] if machine.nodes else []),
        name("_CRS", resources(
            bus_window(0, 0),
            ports(PCI_CONFIG_PORT, 8),
            port_window((0, PCI_CONFIG_PORT)),
            port_window((PCI_CONFIG_PORT + 8, 0x1_0000)),
            memory_window(VGA_MEMORY, cacheable=True),
            memory_window(PCI_MEMORY),
            memory_window(PCI_MEMORY64, cacheable=True),
        )),
        name("APRT", _routing(PCI_LINES)),
        name("PPRT", _routing(PCI_PIC_LINES)),
        method("_PRT", 0, if_else(path("PICM"), returns(path("APRT")), returns(path("PPRT")))),
    )  # fmt: skip


def _routing(lines: tuple[int, ...]) -> bytes:
    """_PRT: (slot << 16 | any function, pin, no link device, global system interrupt)."""
    return package(
        *(
            package(slot << 16 | _ANY_FUNCTION, pin, 0, lines[(slot + pin) % len(lines)])
            for slot in range(SLOTS)
            for pin in range(PINS)
        )
    )


def _reserved() -> bytes:
    """What belongs to the board, so that nobody else is put there."""
    return device(
        "MBRD",
        name("_HID", eisa_id("PNP0C02")),
        name("_CRS", resources(
            memory32(ECAM[0], ECAM[1] - ECAM[0]),
            ports(PM_BASE, 0x10),
            ports(0x4D0, 2),
            ports(0x92, 1),
        )),
    )  # fmt: skip


def _legacy() -> tuple[bytes, ...]:
    """The ISA devices that a kernel does not look for by itself once it has ACPI."""
    return (
        _isa("COM1", "PNP0501", ports(0x3F8, 8), irq(4)),
        _isa("RTC", "PNP0B00", ports(0x70, 2), irq(8)),
        _isa("KBD", "PNP0303", ports(0x60, 1), ports(0x64, 1), irq(1)),
        _isa("TIMR", "PNP0100", ports(0x40, 4), irq(0)),
        _isa("SPKR", "PNP0800", ports(0x61, 1)),
    )


def _isa(called: str, identity: str, *used: bytes) -> bytes:
    return device(
        called, name("_HID", eisa_id(identity)), name("_UID", 1), name("_STA", 0x0F),
        name("_CRS", resources(*used)),
    )  # fmt: skip


def _mmio(devices: tuple[MmioDevice, ...]) -> tuple[bytes, ...]:
    return tuple(
        device(
            f"V{number:03X}", name("_HID", "LNRO0005"), name("_UID", number),
            name("_CRS", resources(memory32(one.base, one.size), interrupt(one.gsi))),
        )
        for number, one in enumerate(devices)
    )  # fmt: skip
