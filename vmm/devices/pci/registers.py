"""The type 0 configuration header in numbers (PCI Local Bus Specification 3.0, "Configuration Space
Organization" and "Device Control").
"""

from enum import IntEnum, IntFlag

CONFIG_SIZE = 256
FIRST_CAPABILITY = 0x40
BAR_COUNT = 6


class Header(IntEnum):
    """Offsets."""

    VENDOR = 0x00
    DEVICE = 0x02
    COMMAND = 0x04
    STATUS = 0x06
    REVISION = 0x08
    PROGRAMMING_INTERFACE = 0x09
    SUBCLASS = 0x0A
    CLASS = 0x0B
    CACHE_LINE = 0x0C
    LATENCY = 0x0D
    TYPE = 0x0E
    BARS = 0x10
    SUBSYSTEM_VENDOR = 0x2C
    SUBSYSTEM = 0x2E
    ROM = 0x30
    CAPABILITIES = 0x34
    INTERRUPT_LINE = 0x3C
    INTERRUPT_PIN = 0x3D


class Command(IntFlag):
    """What a function may do; the bits that can be set."""

    IO = 1 << 0
    MEMORY = 1 << 1
    BUS_MASTER = 1 << 2
    PARITY = 1 << 6
    SYSTEM_ERROR = 1 << 8
    NO_INTX = 1 << 10


class Status(IntFlag):
    """What a function says of itself."""

    INTERRUPT = 1 << 3
    CAPABILITIES = 1 << 4


class Capability(IntEnum):
    """Capability identifiers (PCI Code and ID Assignment Specification, "Capability IDs")."""

    MSI = 0x05
    VENDOR = 0x09
    MSIX = 0x11


MULTIFUNCTION = 0x80
"""In the header type of function 0: others stand beside it."""
