"""Flat and plain ELF starts."""

import itertools
from typing import Any

import pytest

from vmm.boot.identify import plan
from vmm.boot.plan import Mode, Selector
from vmm.boot.request import BootModule, BootRequest
from vmm.errors import UsageError

MIB = 1 << 20
REQUEST = BootRequest(16 * MIB)


def test_flat_starts_in_real_mode(forge: Any) -> None:
    made = plan(forge.code, REQUEST)
    assert made.start.mode is Mode.REAL16
    assert (made.start.rip, made.start.cs, made.start.gpr["rsp"]) == (0x7C00, Selector(0), 0x7C00)
    assert [(p.gpa, p.data) for p in made.placements] == [(0x7C00, forge.code)]


def test_flat_must_end_below_the_reserved_area() -> None:
    plan(b"\xf4" * (0x9FC00 - 0x7C00), REQUEST)
    with pytest.raises(UsageError, match="reserved"):
        plan(b"\xf4" * (0x9FC00 - 0x7C00 + 1), REQUEST)


def test_elf32_starts_protected_with_a_gdt_that_holds_its_selectors(forge: Any, ram: Any) -> None:
    made = plan(forge.elf32(), REQUEST)
    start = made.start
    assert start.mode is Mode.PROT32
    assert start.rip == 0x100000
    assert start.gdt.limit == 23
    _, code, data = ram(made).words(start.gdt.base, "<3Q")
    assert (start.cs.selector, start.ds.selector) == (8, 16)
    assert (code, data) == (0x00CF9B000000FFFF, 0x00CF93000000FFFF)


def test_elf64_walks_to_every_page_of_four_gib(forge: Any, ram: Any) -> None:
    made = plan(forge.elf64(), REQUEST)
    memory, cr3 = ram(made), made.start.cr3
    assert made.start.mode is Mode.LONG64
    assert cr3 % 4096 == 0
    for address in (0, 0x1FFFFF, 0x200000, 0x100000, 0xFEE00000, 0xFFFFFFFF):
        (pml4e,) = memory.words(cr3 + 8 * (address >> 39 & 511), "<Q")
        (pdpte,) = memory.words((pml4e & ~0xFFF) + 8 * (address >> 30 & 511), "<Q")
        (pde,) = memory.words((pdpte & ~0xFFF) + 8 * (address >> 21 & 511), "<Q")
        assert (pml4e & 7, pdpte & 0x87, pde & 0x87) == (3, 3, 0x83)
        assert (pde & ~0x1FFFFF) | address & 0x1FFFFF == address


def test_page_tables_keep_clear_of_the_image(forge: Any) -> None:
    parts = [forge.part(0x1000, b"\xf4" * 0x8F000), forge.part(0x100000)]
    made = plan(forge.elf64(*parts), REQUEST)
    ordered = made.placements
    assert all(a.end <= b.gpa for a, b in itertools.pairwise(ordered))
    assert any(p.name == "boot page tables" for p in ordered)


def test_loader_keeps_clear_of_bss(forge: Any) -> None:
    made = plan(forge.elf64(forge.part(0x100000), forge.part(0x8000, memsz=0x90000)), REQUEST)
    for placement in made.placements:
        if placement.name.startswith("boot"):
            assert not 0x8000 <= placement.gpa < 0x98000


def test_a_virtual_entry_is_translated(forge: Any) -> None:
    part = forge.part(0x200000, vaddr=0xFFFFFFFF80200000)
    assert plan(forge.elf64(part, entry=0xFFFFFFFF80200004), REQUEST).start.rip == 0x200004
    assert plan(forge.elf64(part, entry=0x200008), REQUEST).start.rip == 0x200008


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ({"paddr": 32 * MIB}, "--memory 34M"),
        ({"paddr": 0x100000, "memsz": 64 * MIB}, "--memory 66M"),
        ({"paddr": 0xA0000}, "reserved"),
        ({"paddr": 0x9FBFF}, "reserved"),
        ({"paddr": 3 << 30}, "hole"),
        ({"paddr": (1 << 64) - 8}, "segment 0"),
    ],
)
def test_a_segment_that_does_not_fit_is_named_with_the_remedy(
    forge: Any, part: Any, word: Any
) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        plan(forge.elf64(forge.part(**part)), REQUEST)
    assert "segment 0" in str(caught.value)


def test_the_memory_that_a_refusal_names_is_enough(forge: Any) -> None:
    image = forge.elf64(forge.part(32 * MIB, b"\xf4" * 4096))
    plan(image, BootRequest(34 * MIB))


def test_overlapping_segments_are_refused(forge: Any) -> None:
    with pytest.raises(UsageError, match="overlaps"):
        plan(forge.elf32(forge.part(0x100000), forge.part(0x100008)), REQUEST)


def test_entry_outside_is_refused(forge: Any) -> None:
    with pytest.raises(UsageError, match="entry 0x500000"):
        plan(forge.elf32(entry=0x500000), REQUEST)


def test_options_that_cannot_arrive_are_refused(forge: Any) -> None:
    for image in (forge.code, forge.elf64()):
        with pytest.raises(UsageError, match="--cmdline"):
            plan(image, BootRequest(16 * MIB, cmdline="x"))
        with pytest.raises(UsageError, match="--initrd"):
            plan(image, BootRequest(16 * MIB, modules=(BootModule("m", b"1"),)))


def test_one_mib_is_enough_for_a_low_kernel(forge: Any) -> None:
    assert plan(forge.elf64(forge.part(0x8000)), BootRequest(MIB)).start.rip == 0x8000


def test_symbols_come_from_the_image(forge: Any) -> None:
    image = forge.elf64()
    assert plan(image, REQUEST).symbols_source == image
    assert plan(forge.code, REQUEST).symbols_source is None
