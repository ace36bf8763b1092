"""The memory map against what its picture says."""

import itertools
from typing import Any

import pytest

from vmm.boardmap import ECAM, IOAPIC_BASE, PCI_MEMORY
from vmm.boot.memmap import RegionType, lower_kib, ram_slots, regions, upper_kib, usable

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize("memory", [MIB, 2 * MIB, 256 * MIB, 3 * GIB, 3 * GIB + MIB, 8 * GIB])
def test_map_is_sorted_and_agrees_with_the_slots(memory: Any) -> None:
    areas = regions(memory)
    assert all(a.end <= b.start for a, b in itertools.pairwise(areas))
    assert sum(size for _, size in ram_slots(memory)) == memory
    assert sum(area.size for area in usable(memory)) == memory - (0x100000 - 0x9FC00)
    for area in usable(memory):
        assert any(gpa <= area.start and area.end <= gpa + size for gpa, size in ram_slots(memory))


def test_ram_above_three_gib_moves_above_four() -> None:
    assert ram_slots(5 * GIB) == ((0, 3 * GIB), (4 * GIB, 2 * GIB))
    hole = [a for a in regions(5 * GIB) if 3 * GIB <= a.start < 4 * GIB]
    assert {area.type for area in hole} == {RegionType.RESERVED}
    assert not any(area.start < PCI_MEMORY[1] for area in hole), "PCI's memory is nobody's"
    assert [(a.start, a.end) for a in hole] == [ECAM, (IOAPIC_BASE, 4 * GIB)]


def test_multiboot_sizes() -> None:
    assert (lower_kib(256 * MIB), upper_kib(256 * MIB)) == (639, 255 * 1024)
    assert upper_kib(MIB) == 0
    assert upper_kib(8 * GIB) == (3 * GIB - MIB) // 1024
