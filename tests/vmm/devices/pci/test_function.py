"""What PCI 3.0 says of headers, BARs, MSI-X and INTx, through the doors that guests use."""

from __future__ import annotations

import pytest

from tests.vmm.devices.conftest import HandClock
from tests.vmm.devices.pci.card import Card
from vmm.boardmap import ECAM, PCI_MEMORY, PCI_MEMORY64, PCI_PORTS
from vmm.devices.bus import Bus
from vmm.devices.device import State
from vmm.devices.ioapic import MASKED
from vmm.devices.pci.registers import Command
from vmm.devices.platform import Board, build_board
from vmm.errors import UsageError

COMMAND, STATUS, BAR0, CAPABILITIES, LINE, PIN = 0x04, 0x06, 0x10, 0x34, 0x3C, 0x3D
ALL_ONES = 0xFFFF_FFFF
ON, FUNCTION_MASK = 1 << 15, 1 << 14


class Machine:
    """A board with one card, seen through ports 0xcf8 and 0xcfc."""

    def __init__(self) -> None:
        self.board: Board = build_board(HandClock())
        self.card = Card()
        self.board.plug(self.card, slot=3)
        for lapic in self.board.lapics:
            lapic.write(0xF0, 4, 0x1FF)

    def select(self, offset: int, slot: int = 3) -> None:
        self.board.ports.write(0xCF8, 4, 1 << 31 | slot << 11 | offset & 0xFC)

    def get(self, offset: int, size: int = 4, slot: int = 3) -> int:
        self.select(offset, slot)
        return self.board.ports.read(0xCFC + (offset & 3), size)

    def put(self, offset: int, value: int, size: int = 4) -> None:
        self.select(offset)
        self.board.ports.write(0xCFC + (offset & 3), size, value)

    @property
    def memory(self) -> Bus:
        return self.board.memory

    def bar(self, number: int) -> int:
        return self.get(BAR0 + 4 * number) & ~15

    def capability(self, identity: int) -> int:
        """Walk the list as a driver does."""
        at, steps = self.get(CAPABILITIES, 1), 0
        while at and self.get(at, 1) != identity:
            at, steps = self.get(at + 1, 1), steps + 1
            assert steps < 48
        return at

    def master(self) -> None:
        self.put(COMMAND, Command.BUS_MASTER | Command.MEMORY, 2)

    def table(self) -> int:
        word = self.get(self.capability(0x11) + 4)
        return self.bar(word & 7) + (word & ~7)

    def pending_bits(self) -> int:
        word = self.get(self.capability(0x11) + 8)
        return self.memory.read(self.bar(word & 7) + (word & ~7), 8)

    def program(self, vector: int, data: int, *, masked: bool = False, cpu: int = 0) -> None:
        entry = self.table() + 16 * vector
        for at, word in enumerate((0xFEE0_0000 | cpu << 12, 0, data, int(masked))):
            self.memory.write(entry + 4 * at, 4, word)

    def vector(self) -> int | None:
        return self.board.lapics[0].pending_vector()


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_identity_reads_and_does_not_change(machine: Machine) -> None:
    for _ in range(2):
        assert machine.get(0) == 0x10F0_1AF4
        assert machine.get(8) == 0x0C80_0103
        assert machine.get(0x2C) == 0x5678_1234
        assert machine.get(0x0E, 1) == 0
        assert machine.get(0x0B, 1) == 0x0C
        for offset in (0, 8, 0x28, 0x2C, 0x30, 0x34):
            machine.put(offset, ALL_ONES)


def test_nobody_there_reads_all_ones(machine: Machine) -> None:
    assert machine.get(0, slot=9) == ALL_ONES
    machine.board.ports.write(0xCF8, 4, 1 << 31 | 1 << 16)  # bus 1
    assert machine.board.ports.read(0xCFC, 4) == ALL_ONES
    machine.board.ports.write(0xCF8, 4, 3 << 11)  # not enabled
    assert machine.board.ports.read(0xCFC, 4) == ALL_ONES
    assert machine.memory.read(ECAM[0] + 0x100, 4) == ALL_ONES, "no extended space"


def test_both_doors_show_the_same(machine: Machine) -> None:
    for offset in range(0, 256, 4):
        assert machine.memory.read(ECAM[0] + (3 << 15) + offset, 4) == machine.get(offset)
    machine.memory.write(ECAM[0] + (3 << 15) + LINE, 1, 0x77)
    assert machine.get(LINE, 1) == 0x77


def test_the_address_register_takes_doublewords_only(machine: Machine) -> None:
    machine.select(8)
    for size in (1, 2):
        machine.board.ports.write(0xCF8, size, 0)
    assert machine.board.ports.read(0xCF8, 4) == 1 << 31 | 3 << 11 | 8


@pytest.mark.parametrize(
    ("number", "size", "flags"), [(0, 0x1000, 0), (1, 0x20, 1), (2, 0x4000, 4), (4, 0x1000, 0)]
)
def test_sizing(machine: Machine, number: int, size: int, flags: int) -> None:
    """PCI 3.0: write all ones, read back, clear the low bits, invert, add one."""
    before = machine.get(BAR0 + 4 * number)
    machine.put(BAR0 + 4 * number, ALL_ONES)
    answer = machine.get(BAR0 + 4 * number)
    low = 3 if flags & 1 else 15
    assert answer & low == flags
    assert (~(answer & ~low) + 1) & ALL_ONES == size
    machine.put(BAR0 + 4 * number, before)
    assert machine.get(BAR0 + 4 * number) == before


def test_firmware_has_put_the_bars_in_their_windows(machine: Machine) -> None:
    assert PCI_MEMORY[0] <= machine.bar(0) < PCI_MEMORY[1]
    assert PCI_PORTS[0] <= machine.bar(1) < PCI_PORTS[1]
    wide = machine.get(BAR0 + 8) & ~15 | machine.get(BAR0 + 12) << 32
    assert PCI_MEMORY64[0] <= wide < PCI_MEMORY64[1]
    machine.memory.write(wide + 0x3FFC, 4, 5)
    assert machine.card.seen == [("wide", 0x3FFC, 4, 5)]


def test_a_moved_bar_answers_at_its_new_place_only(machine: Machine) -> None:
    old = machine.bar(0)
    assert machine.memory.read(old + 8, 8) == 0x1122_3344_5566_7788
    machine.put(BAR0, 0xD000_0000)
    assert machine.memory.read(old + 8, 4) == ALL_ONES
    assert machine.memory.read(0xD000_0FFF, 1) == 0x88
    assert machine.card.seen == [("mem", 8, 8, -1), ("mem", 0xFFF, 1, -1)]


def test_decoding_follows_the_command_register(machine: Machine) -> None:
    memory, port = machine.bar(0), machine.bar(1)
    machine.put(COMMAND, Command.IO, 2)
    assert machine.memory.read(memory, 4) == ALL_ONES
    assert machine.board.ports.read(port, 4) == 0x5566_7788
    machine.put(COMMAND, Command.MEMORY, 2)
    assert machine.memory.read(memory, 4) == 0x5566_7788
    assert machine.board.ports.read(port, 4) == ALL_ONES


def test_the_boards_own_devices_win_over_a_bar(machine: Machine) -> None:
    machine.put(BAR0, 0xFEC0_0000)
    machine.memory.write(0xFEC0_0000, 4, 1)
    assert machine.memory.read(0xFEC0_0010, 4) == 0x0017_0011, "the I/O APIC's version"
    machine.put(BAR0 + 4, 0x3F0)  # 0x3e0-0x3ff: the serial port is inside
    assert machine.board.ports.read(0x3FD, 1) == 0x60
    assert machine.card.seen == []
    assert machine.board.ports.read(0x3E8, 1) == 0x88, "around it the card answers"


def test_msix_sends_the_programmed_message(machine: Machine) -> None:
    machine.master()
    machine.put(machine.capability(0x11) + 2, ON, 2)
    assert machine.get(machine.capability(0x11) + 2, 2) == ON | 3, "table size - 1"
    machine.program(2, 0x51)
    machine.card.notify(2)
    assert machine.vector() == 0x51
    assert machine.pending_bits() == 0


def test_masked_vectors_wait_in_the_pending_bits(machine: Machine) -> None:
    machine.master()
    control = machine.capability(0x11) + 2
    machine.put(control, ON | FUNCTION_MASK, 2)
    machine.program(1, 0x61, masked=True)
    machine.card.notify(1)
    assert machine.pending_bits() == 2
    machine.put(control, ON, 2)
    assert machine.vector() is None
    machine.program(1, 0x61)
    assert machine.vector() == 0x61
    assert machine.pending_bits() == 0
    machine.put(control, ON | FUNCTION_MASK, 2)
    machine.program(3, 0x91)
    machine.card.notify(3)
    assert machine.vector() == 0x61
    machine.put(control, ON, 2)
    assert machine.vector() == 0x91


def test_entries_start_masked_and_vectors_without_entry_vanish(machine: Machine) -> None:
    machine.master()
    machine.put(machine.capability(0x11) + 2, ON, 2)
    assert [machine.memory.read(machine.table() + 16 * v + 12, 4) for v in range(4)] == [1] * 4
    machine.card.notify(4)
    machine.card.notify(0xFFFF)
    assert machine.vector() is None
    assert machine.pending_bits() == 0


def test_without_bus_mastering_no_message_leaves(machine: Machine) -> None:
    machine.put(machine.capability(0x11) + 2, ON, 2)
    machine.program(0, 0x41)
    machine.card.notify(0)
    assert machine.vector() is None


def test_intx_reaches_the_io_apic_as_a_level(machine: Machine) -> None:
    ioapic = machine.board.ioapic
    pin = 16 + 3  # slot 3, INTA
    for port in (0x21, 0xA1):
        machine.board.ports.write(port, 1, 0xFF)  # the PIC is out of this
    for index, value in ((0x10 + 2 * pin, 1 << 15 | 0x71), (0x11 + 2 * pin, 0)):
        ioapic.write(0, 4, index)
        ioapic.write(0x10, 4, value)
    assert machine.get(PIN, 1) == 1
    machine.card.notify(0)
    assert machine.vector() == 0x71
    assert machine.get(STATUS, 2) & 8
    assert machine.board.lapics[0].acknowledge() == 0x71
    machine.put(COMMAND, Command.NO_INTX, 2)
    machine.board.lapics[0].write(0xB0, 4, 0)
    assert machine.vector() is None, "disabled: the level is gone"
    machine.put(COMMAND, 0, 2)
    assert machine.vector() == 0x71
    machine.card.set_intx(False)
    assert not machine.get(STATUS, 2) & 8


def test_intx_reaches_the_pic_by_the_interrupt_line_register(machine: Machine) -> None:
    line = machine.get(LINE, 1)
    assert line in (10, 11)
    machine.card.set_intx(True)
    assert machine.board.pic.pending()
    assert machine.board.pic.acknowledge() == 0x70 + line - 8
    assert machine.board.ports.read(0x4D1, 1) >> line - 8 & 1, "firmware made it a level"


def test_switching_msix_on_silences_the_pin(machine: Machine) -> None:
    machine.card.set_intx(True)
    machine.put(machine.capability(0x11) + 2, ON, 2)
    machine.board.pic.acknowledge()
    machine.board.ports.write(0xA0, 1, 0x20)
    machine.board.ports.write(0x20, 1, 0x20)
    assert not machine.board.pic.pending()
    assert machine.board.ioapic._table[19] == MASKED


def test_a_restored_card_is_where_it_was(machine: Machine) -> None:
    machine.master()
    machine.put(BAR0, 0xD100_0000)
    machine.put(machine.capability(0x11) + 2, ON, 2)
    machine.program(0, 0x33, masked=True)
    machine.card.notify(0)
    saved: dict[str, State] = machine.board.save()
    other = Machine()
    other.board.restore(saved)
    assert other.board.save() == saved
    assert other.memory.read(0xD100_0000, 4) == 0x5566_7788
    other.program(0, 0x33)
    assert other.vector() == 0x33


def test_two_alike_have_two_names_and_a_full_bus_says_so(machine: Machine) -> None:
    machine.board.plug(Card())
    assert [f.name for f in machine.board.pci.functions.values()] == [
        "pci-host", "card-2", "card"
    ]  # fmt: skip
    for _ in range(29):
        machine.board.plug(Card(vectors=0))
    with pytest.raises(UsageError, match="no PCI slot is left for 'card-32'"):
        machine.board.plug(Card(vectors=0))


def test_reset_control_still_answers_between_the_ports() -> None:
    machine = Machine()
    machine.board.ports.write(0xCF9, 1, 0x02)
    assert machine.board.ports.read(0xCF9, 1) == 0x02
