"""Multiboot 2: header tags honoured or refused, information tags read back."""

import struct
from typing import Any

import pytest

from vmm.boot.identify import plan
from vmm.boot.plan import Mode
from vmm.boot.request import BootModule, BootRequest
from vmm.errors import UsageError

MIB = 1 << 20
MODULES = (BootModule("m1", b"1" * 10, "arg"), BootModule("m2", b"2" * 5000))
REQUEST = BootRequest(64 * MIB, "quiet loud", "kernel", MODULES)


def tags_of(made: Any, memory: Any) -> Any:
    base = made.start.gpr["rbx"]
    total, _ = memory.words(base, "<II")
    found, at = [], base + 8
    while True:
        kind, size = memory.words(at, "<II")
        found.append((kind, memory.read(at + 8, size - 8)))
        at += size + -size % 8
        if kind == 0:
            assert at == base + total
            return found


def test_information(forge: Any, ram: Any) -> None:
    made = plan(forge.elf64(forge.part(0x200000), extra=forge.multiboot2()), REQUEST)
    memory = ram(made)
    assert made.start.mode is Mode.PROT32
    assert (made.start.rip, made.start.gpr["rax"]) == (0x200000, 0x36D76289)
    assert made.start.gpr["rbx"] % 8 == 0
    found = tags_of(made, memory)
    by_kind = dict(found)
    assert by_kind[1] == b"quiet loud\0"
    assert by_kind[2] == b"ring1\0"
    assert struct.unpack("<II", by_kind[4]) == (639, 63 * 1024)
    size, version = struct.unpack_from("<II", by_kind[6])
    assert (size, version) == (24, 0)
    rows = list(struct.iter_unpack("<QQII", by_kind[6][8:]))
    assert (MIB, 63 * MIB, 1, 0) in rows
    bodies = [body for kind, body in found if kind == 3]
    for body, module in zip(bodies, MODULES, strict=True):
        low, high = struct.unpack_from("<II", body)
        assert memory.read(low, high - low) == module.data
        assert body[8:].split(b"\0")[0].split()[0] == module.name.encode()
    assert 21 not in by_kind


def test_entry_tag_overrides_the_elf_entry(forge: Any) -> None:
    header = forge.multiboot2(forge.tag(3, struct.pack("<I", 0x100004)))
    assert plan(forge.elf64(extra=header), REQUEST).start.rip == 0x100004


def test_flat_with_address_tags(forge: Any, ram: Any) -> None:
    address = forge.tag(2, struct.pack("<4I", 0x300010, 0x300000, 0, 0x304000))
    header = forge.multiboot2(address, forge.tag(3, struct.pack("<I", 0x300058)))
    image = bytes([0x90] * 16) + header + forge.code
    made = plan(image, REQUEST)
    assert made.start.rip == 0x300058
    assert ram(made).read(0x300000, len(image)) == image


def test_load_address_minus_one_means_from_the_start(forge: Any, ram: Any) -> None:
    address = forge.tag(2, struct.pack("<4I", 0x300010, 0xFFFFFFFF, 0, 0))
    header = forge.multiboot2(address, forge.tag(3, struct.pack("<I", 0x300058)))
    image = bytes([0x90] * 16) + header + forge.code
    assert ram(plan(image, REQUEST)).read(0x300000, len(image)) == image


def test_address_tag_alone_is_refused(forge: Any) -> None:
    header = forge.multiboot2(forge.tag(2, struct.pack("<4I", 0x300000, 0x300000, 0, 0)))
    with pytest.raises(UsageError, match="entry address"):
        plan(header + forge.code, REQUEST)


@pytest.mark.parametrize(
    ("lowest", "highest", "preference", "expected"),
    [
        (0x100000, 0xFFFFFFFF, 0, 0x100000),
        (0x800000, 0xFFFFFFFF, 0, 0x800000),
        (0x800001, 0xFFFFFFFF, 1, 0xA00000),
        (0, 0x1FFFFFF, 2, 0x1E00000),
        (0, 0xFFFFFFFF, 2, 0x3E00000),
    ],
)
def test_relocation(
    forge: Any, ram: Any, lowest: Any, highest: Any, preference: Any, expected: Any
) -> None:
    align = 0x200000 if preference else 0x100000
    wish = forge.tag(10, struct.pack("<4I", lowest, highest, align, preference))
    image = forge.elf64(forge.part(0x100000), extra=forge.multiboot2(wish), entry=0x100002)
    made = plan(image, BootRequest(64 * MIB))
    assert made.start.rip == expected + 2
    assert ram(made).read(expected, 16) == forge.code
    assert struct.unpack("<I", dict(tags_of(made, ram(made)))[21]) == (expected,)


def test_relocation_without_room(forge: Any) -> None:
    wish = forge.tag(10, struct.pack("<4I", 0x100000, 0x100008, 1, 0))
    with pytest.raises(UsageError, match="does not fit between"):
        plan(forge.elf64(extra=forge.multiboot2(wish)), REQUEST)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (1, struct.pack("<II", 1, 8)),  # information: framebuffer
        (4, struct.pack("<I", 1)),  # a console is required
        (5, struct.pack("<III", 1024, 768, 32)),
        (99, b""),
    ],
)
def test_what_we_do_not_have_is_refused_unless_optional(forge: Any, kind: Any, body: Any) -> None:
    with pytest.raises(UsageError, match="optional"):
        plan(forge.elf64(extra=forge.multiboot2(forge.tag(kind, body))), REQUEST)
    plan(forge.elf64(extra=forge.multiboot2(forge.tag(kind, body, flags=1))), REQUEST)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (1, struct.pack("<5I", 1, 2, 3, 4, 6)),
        (4, struct.pack("<I", 2)),
        (6, b""),
        (7, b""),
        (9, struct.pack("<I", 0x100000)),
    ],
)
def test_what_we_have_is_accepted(forge: Any, kind: Any, body: Any) -> None:
    plan(forge.elf64(extra=forge.multiboot2(forge.tag(kind, body))), REQUEST)


def test_damaged_headers(forge: Any) -> None:
    with pytest.raises(UsageError, match="no end"):
        plan(forge.elf64(extra=forge.multiboot2(end=False)), REQUEST)
    with pytest.raises(UsageError, match="i386"):
        plan(forge.elf64(extra=forge.multiboot2(arch=4)), REQUEST)
    with pytest.raises(UsageError, match="too short"):
        plan(forge.elf64(extra=forge.multiboot2(forge.tag(3))), REQUEST)


def test_section_headers(forge: Any, ram: Any) -> None:
    image = forge.elf64(extra=forge.multiboot2(forge.tag(1, struct.pack("<I", 9))))
    image = forge.with_sections(image, [(0, 0, 0, 0), (3, 0, 0, 16)], names=1)
    made = plan(image, REQUEST)
    body = dict(tags_of(made, ram(made)))[9]
    assert struct.unpack_from("<III", body) == (2, 64, 1)
    (address,) = struct.unpack_from("<Q", body, 12 + 64 + 16)
    assert ram(made).read(address, 16) == image[:16]
