"""PVH: the start information read back as Xen's start_info.h lays it out."""

import struct
from typing import Any

import pytest

from vmm.boot.identify import plan
from vmm.boot.plan import Mode
from vmm.boot.request import BootModule, BootRequest
from vmm.errors import UsageError

MODULES = (BootModule("a.img", b"A" * 5000, "one two"), BootModule("b", b"B"))
REQUEST = BootRequest(64 << 20, "console=ttyS0", "vmlinux", MODULES, rsdp=0xE0000)


def test_start_information(forge: Any, ram: Any) -> None:
    other = forge.note(1, b"abc", b"GNU\0")
    image = forge.elf64(notes=[other + bytes(1), forge.note(18, struct.pack("<Q", 0x100004))])
    made = plan(image, REQUEST)
    memory = ram(made)
    assert made.protocol == "pvh"
    assert (made.start.mode, made.start.rip) == (Mode.PROT32, 0x100004)
    base = made.start.gpr["rbx"]
    magic, version, flags, count, modules, cmdline, rsdp, memmap, entries, _ = memory.words(
        base, "<IIIIQQQQII"
    )
    assert (magic, version, flags, count, rsdp) == (0x336EC578, 1, 0, 2, 0xE0000)
    assert memory.text(cmdline) == b"console=ttyS0"
    for index, module in enumerate(MODULES):
        start, size, words, _ = memory.words(modules + 32 * index, "<QQQQ")
        assert memory.read(start, size) == module.data
        assert start % 4096 == 0
        assert memory.text(words).split()[0] == module.name.encode()
    rows = [memory.words(memmap + 24 * index, "<QQII") for index in range(entries)]
    assert (0x100000, 63 << 20, 1, 0) in rows


def test_without_modules_the_list_is_null(forge: Any, ram: Any) -> None:
    note = forge.note(18, struct.pack("<I", 0x100000))
    made = plan(forge.elf64(notes=[note]), BootRequest(64 << 20))
    head = ram(made).words(made.start.gpr["rbx"], "<IIIIQ")
    assert head[3:] == (0, 0)


def linux(forge: Any) -> Any:
    salt = struct.pack("<III", 6, 6, 0x100) + b"Linux\0\0\0" + b"6.1.0\0\0\0"
    return forge.elf64(notes=[salt, forge.note(18, struct.pack("<I", 0x100000))])


def test_linux_gets_its_initrds_in_one_module(forge: Any, ram: Any) -> None:
    modules = (BootModule("a", b"A" * 5), BootModule("b", b"B" * 4))
    made = plan(linux(forge), BootRequest(64 << 20, "quiet", "vmlinux", modules))
    memory = ram(made)
    count, rows = memory.words(made.start.gpr["rbx"] + 12, "<IQ")
    assert count == 1
    start, size, _, _ = memory.words(rows, "<QQQQ")
    assert memory.read(start, size) == b"AAAAA" + bytes(3) + b"BBBB"


def test_linux_takes_2047_bytes_of_command_line(forge: Any) -> None:
    plan(linux(forge), BootRequest(64 << 20, "x" * 2047))
    with pytest.raises(UsageError, match="2048 bytes"):
        plan(linux(forge), BootRequest(64 << 20, "x" * 2048))
