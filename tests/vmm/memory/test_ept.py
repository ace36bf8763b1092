"""The hypervisor's EPT: pages put in and taken away at addresses that a guest chooses."""

from hwmodel.mem.ram import PAGE, Ram
from vmm.memory.ept import Ept, Slot, pages_for

MIB = 1 << 20
SLOTS = [Slot(0, MIB, 0), Slot(2 * MIB, 4 * MIB, MIB)]


def small() -> Ept:
    pages = pages_for(SLOTS)
    return Ept(Ram(5 * MIB + pages * PAGE), 5 * MIB, pages * PAGE, SLOTS)


def test_pages_anywhere_one_after_the_other() -> None:
    """Each needs up to three tables, which are given back with it."""
    ept = small()
    for number in range(1, 300):
        gpa = (number * 0x1_2345_6789_A000) % (1 << 47)
        assert ept.replace_page(gpa, ept.page(MIB)) == 0
        assert ept.entry(gpa) == (ept.page(MIB), 1)
        assert ept.replace_page(gpa, 0) == ept.page(MIB)
        assert not ept.entry(gpa)[0] & 7


def test_what_was_mapped_comes_back() -> None:
    """Also where a large page had to be split; its neighbours stay."""
    ept = small()
    for gpa in (0x7000, 4 * MIB + 0x5000):
        kept = ept.replace_page(gpa, ept.page(0))
        assert ept.replace_page(gpa, kept) == ept.page(0)
        assert ept.entry(gpa) == (kept, 1)
        assert kept & ~0xFFF == (gpa if gpa < MIB else gpa - MIB)
        assert ept.entry(gpa + PAGE)[0] & ~0xFFF == (kept & ~0xFFF) + PAGE
