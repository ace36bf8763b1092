"""Multiboot 1: the information structure read back by the specification's table."""

from typing import Any

import pytest

from vmm.boot.identify import plan
from vmm.boot.plan import Mode
from vmm.boot.request import BootModule, BootRequest
from vmm.errors import UsageError

MIB = 1 << 20
MODULES = (BootModule("env", b"NR_CPUS=1\n"), BootModule("b.bin", b"B" * 9000, "x=1"))
REQUEST = BootRequest(128 * MIB, "a b", "my test.flat", MODULES)


@pytest.mark.parametrize("bits", [32, 64])
def test_information(forge: Any, ram: Any, bits: Any) -> None:
    build = forge.elf32 if bits == 32 else forge.elf64
    made = plan(build(forge.part(0x400000), extra=forge.multiboot1(3)), REQUEST)
    memory, start = ram(made), made.start
    assert (start.mode, start.rip, start.gpr["rax"]) == (Mode.PROT32, 0x400000, 0x2BADB002)
    base = start.gpr["rbx"]
    flags, lower, upper, _boot, cmdline, count, mods = memory.words(base, "<7I")
    assert flags & 0b1001101 == 0b1001101
    assert flags & (1 << 4 | 1 << 5 | 1 << 11 | 1 << 12) == 0
    assert (lower, upper, count) == (639, 127 * 1024, 2)
    assert memory.text(cmdline) == b"my_test.flat a b"
    length, address = memory.words(base + 44, "<II")
    (name,) = memory.words(base + 64, "<I")
    assert memory.text(name) == b"ring1"
    rows, at = [], address
    while at < address + length:  # as a kernel walks it: size does not count itself
        size, start_, bytes_, kind = memory.words(at, "<IQQI")
        rows.append((start_, bytes_, kind))
        at += size + 4
    assert at == address + length
    assert rows == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x60400, 2),
        (MIB, 127 * MIB, 1),
        (0xE0000000, 0x100000, 2),
        (0xFEC00000, 0x1400000, 2),
    ]
    for index, module in enumerate(MODULES):
        low, high, words, zero = memory.words(mods + 16 * index, "<4I")
        assert memory.read(low, high - low) == module.data
        assert (low % 4096, zero) == (0, 0)
        assert low >= 0x400000
        assert memory.text(words) == f"{module.name} {module.cmdline}".rstrip().encode()


def test_flat_with_address_fields(forge: Any, ram: Any) -> None:
    image = forge.flat1(load=0x300000, at=64, bss=0x5000)
    made = plan(image, REQUEST)
    assert made.start.rip == 0x300000 + 64 + 32
    assert ram(made).read(0x300000, len(image)) == image
    assert all(p.gpa >= 0x305000 for p in made.placements if p.name.startswith("module"))


def test_flat_loads_part_of_the_file(forge: Any, ram: Any) -> None:
    image = forge.flat1(load=0x300000, at=16, load_end=60, code=b"\xcc" * 100)
    assert ram(plan(image, REQUEST)).read(0x300000, 100) == image[:60] + bytes(40)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"load_end": 5000}, "truncated"),
        ({"bss": 8}, "inconsistent"),
        ({"shift": -32}, "inconsistent"),
        ({"entry": 0x100}, "entry 0x100"),
        ({"load": 512 * MIB}, "--memory"),
    ],
)
def test_bad_address_fields(forge: Any, change: Any, word: Any) -> None:
    with pytest.raises(UsageError, match=word):
        plan(forge.flat1(**change), REQUEST)


def test_a_flat_image_without_fields_is_refused(forge: Any) -> None:
    with pytest.raises(UsageError, match="neither ELF"):
        plan(forge.multiboot1() + forge.code, REQUEST)


def test_unknown_required_features_are_refused_and_optional_ones_not(forge: Any) -> None:
    with pytest.raises(UsageError, match="0x8"):
        plan(forge.elf32(extra=forge.multiboot1(8)), REQUEST)
    plan(forge.elf32(extra=forge.multiboot1(1 << 20 | 4)), REQUEST)


def test_a_module_that_does_not_fit_is_named(forge: Any) -> None:
    request = BootRequest(4 * MIB, modules=(BootModule("big", bytes(8 * MIB)),))
    with pytest.raises(UsageError, match=r"module big.*--memory"):
        plan(forge.elf32(extra=forge.multiboot1()), request)


def test_symbol_tables_reach_the_guest(forge: Any, ram: Any) -> None:
    image = forge.elf64(extra=forge.multiboot1())
    offset, symbols = len(image), b"S" * 48
    image = forge.with_sections(
        image + symbols, [(0, 0, 0, 0), (2, 0, offset, 48), (1, 0, offset, 48)], names=2
    )
    made = plan(image, REQUEST)
    memory, base = ram(made), made.start.gpr["rbx"]
    flags = memory.words(base, "<I")[0]
    count, size, table, names = memory.words(base + 28, "<4I")
    assert flags & 1 << 5
    assert (count, size, names) == (3, 64, 2)
    (address,) = memory.words(table + 64 + 16, "<Q")
    assert memory.read(address, 48) == symbols
    assert memory.words(table + 128 + 16, "<Q") == (0,)
