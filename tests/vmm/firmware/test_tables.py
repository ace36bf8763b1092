"""The tables read back by the offsets that the ACPI specification gives, and by Intel's iasl."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from vmm.boardmap import ACPI_TABLES, ECAM, IOAPIC_BASE, WAKEUP_MAILBOX
from vmm.errors import UsageError
from vmm.firmware.build import build_tables
from vmm.firmware.description import Description, MmioDevice, NumaNode

MIB = 1 << 20
NODES = (NumaNode((0, 1), ((0, 64 * MIB),)), NumaNode((2,), ((64 * MIB, 128 * MIB),)))
FULL = Description(
    cpus=3,
    mmio_devices=(MmioDevice(0xD000_0000, 0x200, 20), MmioDevice(0xD000_0200, 0x200, 21)),
    nodes=NODES,
    distances=((10, 21), (21, 10)),
)


class Memory:
    """The tables where the guest finds them."""

    def __init__(self, machine: Description) -> None:
        self.data, self.rsdp = build_tables(machine)
        self.tables = {self.signature(at): at for at in self.entries()}

    def read(self, at: int, size: int) -> bytes:
        return self.data[at - ACPI_TABLES[0] :][:size]

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(self.read(at, size), "little")

    def signature(self, at: int) -> str:
        return self.read(at, 4).decode()

    def table(self, at: int) -> bytes:
        return self.read(at, self.number(at + 4, 4))

    def entries(self) -> list[int]:
        xsdt = self.table(self.number(self.rsdp + 24, 8))
        return [int.from_bytes(xsdt[at : at + 8], "little") for at in range(36, len(xsdt), 8)]

    def dsdt(self) -> bytes:
        return self.table(self.number(self.tables["FACP"] + 140, 8))


@pytest.fixture
def full() -> Memory:
    return Memory(FULL)


def test_the_rsdp_is_where_a_scan_finds_it(full: Memory) -> None:
    assert full.rsdp % 16 == 0
    assert 0xE0000 <= full.rsdp < 0x100000
    assert full.read(full.rsdp, 8) == b"RSD PTR "
    assert sum(full.read(full.rsdp, 20)) & 0xFF == 0
    assert sum(full.read(full.rsdp, 36)) & 0xFF == 0
    assert full.number(full.rsdp + 15, 1) == 2


def test_every_table_sums_to_zero_and_is_listed_twice(full: Memory) -> None:
    assert sorted(full.tables) == ["APIC", "FACP", "MCFG", "SLIT", "SRAT"]
    for at in full.tables.values():
        assert sum(full.table(at)) & 0xFF == 0
    assert sum(full.dsdt()) & 0xFF == 0
    rsdt = full.table(full.number(full.rsdp + 16, 4))
    assert [n for (n,) in struct.iter_unpack("<I", rsdt[36:])] == full.entries()


def test_fadt_by_offsets(full: Memory) -> None:
    """ACPI 6.4, "FADT Format"."""
    at = full.tables["FACP"]
    assert full.number(at + 4, 4) == 276
    assert full.number(at + 46, 2) == 9  # SCI
    assert full.number(at + 48, 4) == 0  # SMI command
    assert [full.number(at + where, 4) for where in (56, 64, 76)] == [0x600, 0x604, 0x608]
    assert [full.number(at + where, 1) for where in (88, 89, 91)] == [4, 2, 4]
    assert full.number(at + 108, 1) == 0x32  # century
    assert full.number(at + 109, 2) == 3  # ISA devices, 8042
    flags = full.number(at + 112, 4)
    assert flags & (1 << 8 | 1 << 10) == 1 << 8 | 1 << 10, "32-bit timer, reset register"
    assert flags & (1 << 4 | 1 << 20) == 0, "fixed power button, fixed hardware"
    assert struct.unpack("<BBBBQB", full.read(at + 116, 13)) == (1, 8, 0, 1, 0xCF9, 6)
    assert full.number(at + 132, 8) == full.number(at + 36, 4)
    assert full.number(at + 140, 8) == full.number(at + 40, 4)
    assert struct.unpack("<BBBBQ", full.read(at + 148, 12)) == (1, 32, 0, 2, 0x600)
    assert struct.unpack("<BBBBQ", full.read(at + 172, 12)) == (1, 16, 0, 2, 0x604)
    assert struct.unpack("<BBBBQ", full.read(at + 208, 12)) == (1, 32, 0, 3, 0x608)
    facs = full.number(at + 36, 4)
    assert facs % 64 == 0
    assert full.read(facs, 4) == b"FACS"
    assert full.number(facs + 4, 4) == 64


def test_madt_structures(full: Memory) -> None:
    madt = full.table(full.tables["APIC"])
    assert struct.unpack_from("<II", madt, 36) == (0xFEE0_0000, 1)
    found, at = [], 44
    while at < len(madt):
        found.append((madt[at], madt[at + 2 : at + madt[at + 1]]))
        at += madt[at + 1]
    assert at == len(madt)
    assert [body for kind, body in found if kind == 0] == [
        struct.pack("<BBI", cpu, cpu, 1) for cpu in range(3)
    ]
    assert [body for kind, body in found if kind == 1] == [
        struct.pack("<BBII", 0, 0, IOAPIC_BASE, 0)
    ]
    lines = {body[1]: struct.unpack_from("<IH", body, 2) for kind, body in found if kind == 2}
    assert lines == {0: (2, 0), 9: (9, 13), 10: (10, 13), 11: (11, 13)}
    assert [body for kind, body in found if kind == 4] == [b"\xff\0\0\1"]


def test_the_mailbox_is_announced_when_there_is_one() -> None:
    """ACPI 6.4, "Multiprocessor Wakeup Structure": type 0x10, 16 bytes, version 0."""
    made, plain = Memory(Description(has_mailbox=True)), Memory(Description())
    madt = made.table(made.tables["APIC"])
    assert madt[-16:] == struct.pack("<BBHIQ", 0x10, 16, 0, 0, WAKEUP_MAILBOX)
    assert len(plain.table(plain.tables["APIC"])) == len(madt) - 16


def test_mcfg_names_the_window(full: Memory) -> None:
    mcfg = full.table(full.tables["MCFG"])
    assert struct.unpack_from("<QHBB", mcfg, 44) == (ECAM[0], 0, 0, 0)
    assert ECAM[1] - ECAM[0] == 1 << 20, "one bus"


def test_srat_and_slit_only_for_numa(full: Memory) -> None:
    srat = full.table(full.tables["SRAT"])
    assert struct.unpack_from("<BBBBI", srat, 48) == (0, 16, 0, 0, 1)
    assert struct.unpack_from("<BBIHQQIIQ", srat, 48 + 32) == (1, 40, 0, 0, 0, 64 * MIB, 0, 1, 0)
    assert srat[48 + 72 : 48 + 76] == bytes((0, 16, 1, 2))
    assert full.table(full.tables["SLIT"])[36:] == struct.pack("<Q4B", 2, 10, 21, 21, 10)
    assert sorted(Memory(Description()).tables) == ["APIC", "FACP", "MCFG"]


def test_as_many_processors_as_there_can_be_fit() -> None:
    data, _ = build_tables(Description(cpus=255))
    assert len(data) < ACPI_TABLES[1] - ACPI_TABLES[0]


def test_what_does_not_fit_is_refused() -> None:
    many = tuple(MmioDevice(0xD000_0000 + 0x200 * n, 0x200, 16) for n in range(4000))
    with pytest.raises(UsageError, match="fewer devices"):
        build_tables(Description(mmio_devices=many))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["DSDT", "FACP", "APIC", "MCFG", "SRAT", "SLIT"])
def test_iasl_reads_them_without_complaint(full: Memory, name: str, tmp_path: Path) -> None:
    """Debian's acpica-tools; the DSDT is disassembled and compiled again to the same bytes."""
    iasl = shutil.which("iasl")
    if iasl is None:
        pytest.skip("iasl is not installed: apt-get install acpica-tools")
    one = full.dsdt() if name == "DSDT" else full.table(full.tables[name])
    (tmp_path / "t.dat").write_bytes(one)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [iasl, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout + done.stderr

    said = run("-d", "t.dat")
    assert "Warning" not in said, said
    assert "Error" not in said, said
    if name == "DSDT":
        said = run("-oa", "-p", "again", "t.dsl")
        assert "0 Errors, 0 Warnings" in said, said
        assert (tmp_path / "again.aml").read_bytes()[36:] == one[36:]
