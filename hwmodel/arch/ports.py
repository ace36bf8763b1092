"""The I/O ports of the modelled board that guest code knows by number.

They are where a PC and QEMU have them, so that guests written for those find them.
"""

from enum import IntEnum


class Port(IntEnum):
    """A port's number, or the first of a device's."""

    PIC_MASTER = 0x20
    PIT = 0x40
    KEYBOARD_DATA = 0x60
    SYSTEM_CONTROL_B = 0x61
    KEYBOARD_COMMAND = 0x64
    RTC_INDEX = 0x70
    RTC_DATA = 0x71
    PIC_SLAVE = 0xA0
    TEST_LATCH = 0xE0
    """kvm-unit-tests' test device: a latch of four bytes."""
    TEST_FLUSH_PAGE = 0xE4
    """kvm-unit-tests' test device: the guest-physical page written here is invalidated."""
    DEBUG_CONSOLE = 0xE9
    """A byte written is shown (Bochs, QEMU's isa-debugcon)."""
    EXIT = 0xF4
    """A value v written ends the run with status (v << 1) | 1 (QEMU's isa-debug-exit)."""
    SERIAL = 0x3F8
    FW_CFG_SELECTOR = 0x510
    FW_CFG_DATA = 0x511
    ACPI_CONTROL = 0x604
    RESET = 0xCF9
    TEST_GSI = 0x2000
    """kvm-unit-tests' test device: 0x2000 + n is the level of interrupt line n."""
    SHUTDOWN = 0x8900
    """The word "Shutdown", byte by byte, ends the run (Bochs)."""
