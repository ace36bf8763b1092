"""Shadow tables under a guest that changes its own: nested assembly would say less than bytes."""

from typing import Any

import pytest

from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.mem.ram import PAGE
from hwmodel.pcpu import Pcpu
from hwmodel.timing.clock import Clock
from vmm.memory.guest import GuestMemory
from vmm.memory.shadow.guest_walk import Denied, Found, Unbacked
from vmm.memory.shadow.page import Page
from vmm.memory.shadow.paging import Access, Paging
from vmm.memory.shadow.tables import NoRoomError, ShadowTables

MIB = 1 << 20
ROOT, PDPT, PD, PT, DATA, LINEAR = 0x1000, 0x2000, 0x3000, 0x4000, 0x9000, 0x5000
P, W, U, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
READ = Access(write=False, user=False, fetch=False, ac=False)
WRITE = Access(write=True, user=False, fetch=False, ac=False)
USER_READ = Access(write=False, user=True, fetch=False, ac=False)


class Machine:
    """4 MiB of guest memory with one linear page, and its shadow."""

    def __init__(self, pages: int = 16) -> None:
        self.memory = GuestMemory(((0, 4 * MIB),), shadow_pages=pages)
        pcpu = Pcpu(self.memory.ram, Clock())
        self.memory.attach(pcpu)
        self.tables = ShadowTables(self.memory, pcpu)
        self.memory.written.append(self.tables.wrote)
        for at, entry in ((ROOT, PDPT), (PDPT, PD), (PD, PT)):
            self.set(at, entry | P | W | U)
        self.set(PT + 8 * (LINEAR >> 12), DATA | P | W)
        cr0, cr4 = Cr0.of(pe=1, pg=1, wp=1), Cr4.of(pae=1)
        efer = Efer.of(lme=1, lma=1, nxe=1)
        self.paging = Paging(cr0, ROOT, cr4, efer, (0, 0, 0, 0), 46, True)
        self.root: Page = self.tables.table(ROOT, 4)
        self.root.pins = 1

    def set(self, gpa: int, entry: int) -> None:
        """Write an entry as the guest would: nobody is told."""
        self.memory.ram.view[gpa : gpa + 8] = entry.to_bytes(8, "little")

    def get(self, at: int) -> int:
        return int.from_bytes(self.memory.ram.view[at : at + 8], "little")

    def touch(self, linear: int, access: Access) -> Any:
        found = self.tables.walker.walk(self.paging, linear, access, (0, 0))
        if isinstance(found, Found):
            self.tables.map(self.root, linear, found, access.write)
        return found

    def shadow(self, linear: int) -> int:
        """The entry that the processor would find, 0 if its walk ends before."""
        at = self.root.at
        for level in (4, 3, 2):
            entry = self.get(at + 8 * (linear >> 3 + 9 * level & 511))
            if not entry:
                return 0
            at = entry & 0xF_FFFF_F000
        return self.get(at + 8 * (linear >> 12 & 511))


def test_the_first_write_to_a_clean_page_faults() -> None:
    machine = Machine()
    machine.touch(LINEAR, READ)
    leaf = PT + 8 * (LINEAR >> 12)
    assert machine.get(leaf) == DATA | P | W | A
    assert machine.shadow(LINEAR) & (P | W) == P
    machine.touch(LINEAR, WRITE)
    assert machine.get(leaf) == DATA | P | W | A | D
    assert machine.shadow(LINEAR) & (P | W | U) == P | W
    assert machine.get(ROOT) & (A | D) == A


def test_refusals_are_the_guests_own() -> None:
    machine = Machine()
    assert machine.touch(LINEAR, USER_READ) == Denied(5)
    assert machine.touch(0x7000, WRITE) == Denied(2)
    machine.set(PT, DATA | P | 1 << 50)
    assert machine.touch(0, READ) == Denied(9)
    machine.set(PD, 0x7000_0000 | P)
    assert machine.touch(LINEAR, READ) == Unbacked(0x7000_0000 + 8 * (LINEAR >> 12))
    assert machine.shadow(LINEAR) == 0


def test_a_table_is_protected_until_it_is_written() -> None:
    machine = Machine()
    other = PT + 8 * 6
    machine.set(other, PT | P | W)  # the table maps itself
    machine.touch(LINEAR, READ)
    machine.touch(0x6000, READ)
    machine.set(other, PT | P | W | A | D)
    machine.touch(0x6000, READ)
    assert machine.shadow(0x6000) & W == 0
    machine.touch(0x6000, WRITE)
    assert machine.shadow(0x6000) & W


def out_of_step() -> Machine:
    machine = Machine()
    machine.set(PT + 8 * 6, PT | P | W)
    machine.touch(LINEAR, READ)
    machine.touch(0x6000, WRITE)
    machine.set(PT + 8 * (LINEAR >> 12), 0xA000 | P | A)
    return machine


def test_what_is_stale_stays_until_the_guest_invalidates() -> None:
    machine = out_of_step()
    assert machine.shadow(LINEAR) & -PAGE & ~(1 << 63) == DATA
    assert machine.tables.sync_address(machine.root, LINEAR)
    assert machine.shadow(LINEAR) == 0
    machine.touch(LINEAR, READ)
    assert machine.shadow(LINEAR) & 0xFFFF_F000 == 0xA000


def test_a_flush_compares_all_and_quiet_tables_are_protected_again() -> None:
    machine = out_of_step()
    machine.tables.sync()
    assert machine.shadow(LINEAR) == 0
    assert machine.shadow(0x6000) & W
    for _ in range(8):
        machine.tables.sync()
    assert machine.shadow(0x6000) & (P | W) == P


def test_a_device_writes_a_table() -> None:
    machine = Machine()
    machine.touch(LINEAR, READ)
    machine.memory.write(PT + 8 * (LINEAR >> 12), bytes(8))
    machine.tables.sync()
    assert machine.shadow(LINEAR) == 0


def test_large_pages_are_split_and_tables_in_them_protected() -> None:
    machine = Machine()
    large = 2 * MIB
    machine.set(PD + 8, 0 | P | W | PS)  # maps the first 2 MiB, the tables among them
    machine.touch(large + DATA, WRITE)
    assert machine.get(PD + 8) == P | W | PS | A | D
    assert machine.shadow(large + DATA) & (0xFFFF_F000 | P | W) == DATA | P | W
    assert machine.shadow(large + PD) & (0xFFFF_F000 | P | W) == PD | P
    machine.touch(large + PT, WRITE)
    machine.set(PT + 8 * (LINEAR >> 12), DATA | P | W)
    machine.touch(LINEAR, READ)  # a new table: it was writable through the large page
    assert machine.shadow(large + PT) & (P | W) == P
    assert not machine.tables.sync_address(machine.root, large)


def test_no_room_is_told() -> None:
    machine = Machine(pages=2)
    found = machine.tables.walker.walk(machine.paging, LINEAR, READ, (0, 0))
    assert isinstance(found, Found)
    with pytest.raises(NoRoomError):
        machine.tables.map(machine.root, LINEAR, found, False)
    before = machine.tables.generation
    machine.tables.forget()
    assert machine.tables.generation == before + 1


def test_a_table_that_is_what_it_was_may_have_been_something_else_in_between() -> None:
    machine = out_of_step()
    leaf = PT + 8 * (LINEAR >> 12)
    machine.set(leaf, DATA | P | A | D)
    machine.tables.sync()  # remembers the table as it is: read-only
    machine.set(leaf, DATA | P | W | A | D)
    machine.touch(LINEAR, WRITE)
    assert machine.shadow(LINEAR) & W
    machine.set(leaf, DATA | P | A | D)  # write-protected again, as fork() does
    machine.tables.sync()
    assert machine.shadow(LINEAR) & W == 0


def test_what_an_unpaged_processor_wrote_is_compared() -> None:
    machine = Machine()
    machine.touch(LINEAR, READ)
    machine.set(PT + 8 * (LINEAR >> 12), 0)
    machine.tables.sync()
    assert machine.shadow(LINEAR)
    machine.tables.unseen = True
    machine.tables.sync()
    assert machine.shadow(LINEAR) == 0
