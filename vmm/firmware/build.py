"""Lay the tables into guest memory: the RSDP first, where old guests look for it.

RSDP, FACS, DSDT, FADT, MADT, MCFG, (SRAT, SLIT,) RSDT, XSDT
"""

from dataclasses import dataclass

from vmm.boardmap import ACPI_TABLES
from vmm.errors import UsageError
from vmm.firmware import tables
from vmm.firmware.description import Description
from vmm.firmware.dsdt import dsdt_body

ALIGN = 64  # FACS asks for it


@dataclass
class _Area:
    """Addresses given out from `base`; the RSDP comes first and is written last."""

    base: int
    data: bytearray

    def add(self, one: bytes) -> int:
        self.data += bytes(-len(self.data) % ALIGN)
        at = self.base + len(self.data)
        self.data += one
        return at


def build_tables(machine: Description, base: int = ACPI_TABLES[0]) -> tuple[bytes, int]:
    """Return the bytes to put at `base` and the RSDP's address, which is `base` itself.

    Raises UsageError if they do not fit the place that boot protocols keep free for them.
    """
    area = _Area(base, bytearray(tables.RSDP_SIZE))
    facs_at = area.add(tables.facs())
    dsdt_at = area.add(tables.table(b"DSDT", 2, dsdt_body(machine)))
    listed = [area.add(tables.fadt(facs_at, dsdt_at)), area.add(tables.madt(machine))]
    listed.append(area.add(tables.mcfg()))
    if machine.nodes:
        listed += [area.add(tables.srat(machine)), area.add(tables.slit(machine))]
    rsdt_at, xsdt_at = area.add(tables.rsdt(listed)), area.add(tables.xsdt(listed))
    area.data[: tables.RSDP_SIZE] = tables.rsdp(rsdt_at, xsdt_at)
    if len(area.data) > ACPI_TABLES[1] - ACPI_TABLES[0]:
        raise UsageError(f"ACPI tables of {len(area.data)} bytes do not fit: give fewer devices")
    return bytes(area.data), base
