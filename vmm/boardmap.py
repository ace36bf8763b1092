"""Where things are on the board: addresses, ports and lines, for devices, boot and ACPI tables.

Ranges are (first, first after). Guest-physical map beside RAM:

    0xc0000000  512 MiB   PCI memory that firmware hands out, 32-bit BARs
    0xe0000000  1 MiB     PCI configuration space of bus 0 (ECAM)
    0xfeb00000  64 KiB    virtio devices over MMIO
    0xfec00000  4 KiB     I/O APIC
    0xfee00000  1 MiB     local APICs; upstream writes are interrupt messages
    0x100_0000_0000       PCI memory, 64-bit BARs: 1 TiB, above the largest RAM
"""

from typing import Final

IOAPIC_BASE: Final = 0xFEC0_0000
LAPIC_BASE: Final = 0xFEE0_0000
ECAM: Final = (0xE000_0000, 0xE010_0000)
ACPI_TABLES: Final = (0xE_0000, 0xF_8000)
"""In guest memory, where a guest without a pointer looks for the RSDP: it is the first of them
(ACPI, "Finding the RSDP on IA-PC Systems")."""
WAKEUP_TABLES: Final = (0xF_8000, 0x10_0000)
"""Page tables and GDT of processors that are woken through the mailbox."""
WAKEUP_MAILBOX: Final = 0xFEA0_0000
PCI_MEMORY: Final = (0xC000_0000, 0xE000_0000)
PCI_MEMORY64: Final = (0x100_0000_0000, 0x140_0000_0000)
VIRTIO_MMIO: Final = (0xFEB0_0000, 0xFEB1_0000)
"""Where QEMU's microvm has them, announced by ACPI."""
VIRTIO_MMIO_LINES: Final = (20, 21, 22, 23)
VGA_PORT: Final = 0x3C0
TEXT_MEMORY: Final = (0xB_8000, 0xC_0000)
"""RAM that a VGA in text mode shows: a character and an attribute for each cell."""
VGA_MEMORY: Final = (0xA_0000, 0xC_0000)
PCI_PORTS: Final = (0xC000, 0x1_0000)
"""Above the ports of ISA cards, whose aliases fill what lies below (PCI 3.0, "Address Maps")."""
PCI_CONFIG_PORT: Final = 0xCF8
RESET_PORT: Final = 0xCF9
PM_BASE: Final = 0x600
"""ACPI's event, control and timer blocks, where QEMU's firmware puts them."""
SCI_LINE: Final = 9
PCI_LINES: Final = (16, 17, 18, 19)
PCI_PIC_LINES: Final = (10, 11, 10, 11)
