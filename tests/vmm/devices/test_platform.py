"""The board as a guest meets it: the ports that kvm-unit-tests and every PC kernel use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from vmm.devices.platform import Board, Outputs, build_board

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock

LAPIC, SVR, LVT_LINT0, EOI = 0xFEE00000, 0xF0, 0x350, 0xB0


@dataclass
class Listener:
    """Everything that the board said."""

    serial: bytearray = field(default_factory=bytearray)
    debug: bytearray = field(default_factory=bytearray)
    said: list[tuple[object, ...]] = field(default_factory=list)

    def note(self, *words: object) -> None:
        self.said.append(words)

    def outputs(self) -> Outputs:
        return Outputs(
            serial=self.serial.extend,
            debug=self.debug.extend,
            debug_exit=lambda value: self.note("exit", value),
            poweroff=lambda: self.note("poweroff"),
            reset=lambda: self.note("reset"),
            invalidate=lambda gpa: self.note("invalidate", gpa),
            nmi=lambda cpu: self.note("nmi", cpu),
            init=lambda cpu: self.note("init", cpu),
            sipi=lambda cpu, vector: self.note("sipi", cpu, vector),
            unknown=lambda *report: self.note("unknown", *report),
        )


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def board(clock: HandClock, listener: Listener) -> Board:
    return build_board(clock, cpus=2, memory=128 << 20, outputs=listener.outputs())


def test_a_guest_prints_and_ends(board: Board, listener: Listener) -> None:
    for byte in b"hi":
        board.ports.write(0x3F8, 1, byte)
        board.ports.write(0xE9, 1, byte)
    board.ports.write(0xF4, 4, 0)
    for byte in b"Shutdown":
        board.ports.write(0x8900, 1, byte)
    assert bytes(listener.serial) == bytes(listener.debug) == b"hi"
    assert listener.said == [("exit", 0), ("poweroff",)]


def test_fw_cfg_answers_what_kvm_unit_tests_asks(board: Board) -> None:
    def item(index: int, size: int) -> int:
        board.ports.write(0x510, 2, index)
        data = bytes(board.ports.read(0x511, 1) for _ in range(size))
        return int.from_bytes(data, "little")

    assert item(0, 4).to_bytes(4, "little") == b"QEMU"
    assert item(5, 2) == 2
    assert item(3, 8) == 128 << 20
    assert item(0x11, 8) == 128 << 20
    assert item(0x1234, 8) == 0
    assert item(5, 4) == 2, "zeros behind the end"


def test_test_device(board: Board, listener: Listener) -> None:
    board.ports.write(0xE0, 4, 0x12345678)
    board.ports.write(0xE1, 1, 0xAA)
    board.ports.write(0xE2, 2, 0xBBCC)
    assert board.ports.read(0xE0, 4) == 0xBBCCAA78
    assert board.ports.read(0xE0, 1) == 0x78
    board.ports.write(0xE4, 4, 0x12345000)
    assert listener.said == [("invalidate", 0x12345000)]
    board.write_memory(0, 0xFF000008, 8, 0x1122334455667788)
    assert board.read_memory(1, 0xFF00000A, 4) == 0x33445566


def test_test_device_drives_lines_into_the_io_apic(board: Board) -> None:
    board.write_memory(0, LAPIC + SVR, 4, 0x1FF)
    board.write_memory(0, 0xFEC00000, 4, 0x10 + 2 * 0xE)
    board.write_memory(0, 0xFEC00010, 4, 0x76)
    board.ports.write(0x200E, 1, 1)
    board.ports.write(0x200E, 1, 0)
    assert board.lapics[0].acknowledge() == 0x76


def test_pit_reaches_the_processor_through_the_pic(board: Board, clock: HandClock) -> None:
    for port, value in ((0x21, 0xFE), (0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
        board.ports.write(port, 1, value)
    lapic = board.lapics[0]
    if lapic.interrupt_pending():
        assert lapic.acknowledge() == 0x08, "OUT rose when the mode was set"
        board.ports.write(0x20, 1, 0x20)
    assert not lapic.interrupt_pending()
    clock.now = board.next_event() or 0
    board.fire()
    assert lapic.interrupt_pending()
    assert not board.lapics[1].interrupt_pending()
    assert lapic.acknowledge() == 0x08


def test_pit_reaches_io_apic_pin_2(board: Board, clock: HandClock) -> None:
    board.write_memory(1, LAPIC + SVR, 4, 0x1FF)
    for register, value in ((0x14, 0x61), (0x15, 1 << 24)):
        board.write_memory(0, 0xFEC00000, 4, register)
        board.write_memory(0, 0xFEC00010, 4, value)
    for port, value in ((0x43, 0x30), (0x40, 0x10), (0x40, 0x00)):
        board.ports.write(port, 1, value)
    clock.now = board.next_event() or 0
    board.fire()
    assert board.lapics[1].acknowledge() == 0x61
    assert board.next_event() is None


def test_each_processor_has_its_own_page(board: Board) -> None:
    assert [board.read_memory(cpu, LAPIC + 0x20, 4) >> 24 for cpu in (0, 1)] == [0, 1]
    assert board.is_mmio(0, LAPIC)
    assert board.is_mmio(0, 0xFEC00000)
    assert not board.is_mmio(0, 0x1000)


def test_a_switched_off_local_apic_reads_as_ones(board: Board) -> None:
    assert board.lapics[0].write_msr(0x1B, 0xFEE00100)
    assert board.read_memory(0, LAPIC + 0x30, 4) == 0xFFFFFFFF


def test_init_and_startup_reach_the_other_processor(board: Board, listener: Listener) -> None:
    board.write_memory(0, LAPIC + 0x300, 4, 0xC4500)
    board.write_memory(0, LAPIC + 0x300, 4, 0xC0600)
    assert listener.said == [("init", 1), ("sipi", 1, 0)]


def test_next_event_notices_every_way_to_program_a_timer(board: Board, clock: HandClock) -> None:
    assert board.next_event() is None
    board.write_memory(0, LAPIC + SVR, 4, 0x1FF)
    board.write_memory(0, LAPIC + 0x320, 4, 0x50)
    board.write_memory(0, LAPIC + 0x3E0, 4, 0xB)
    board.write_memory(0, LAPIC + 0x380, 4, 1000)
    assert board.next_event() == 1000
    board.write_memory(0, LAPIC + 0x320, 4, 0x40050)
    assert board.next_event() is None
    assert board.lapics[0].write_msr(0x6E0, 700)
    assert board.next_event() == 700
    clock.now = 700
    board.fire()
    assert board.next_event() is None
    assert board.lapics[0].pending_vector() == 0x50


@pytest.mark.parametrize(
    "writes",
    [
        [(0x64, 0xFE)],
        [(0x64, 0xD1), (0x60, 0xFE)],
        [(0xCF9, 0x00), (0xCF9, 0x04)],
        [(0xCF9, 0x02), (0xCF9, 0x06)],
        [(0x92, 0x01)],
    ],
)
def test_every_way_to_reset(
    board: Board, listener: Listener, writes: list[tuple[int, int]]
) -> None:
    for port, value in writes:
        board.ports.write(port, 1, value)
    assert listener.said == [("reset",)]


def test_a20_is_open_and_the_keyboard_controller_is_ready(board: Board) -> None:
    assert board.ports.read(0x64, 1) & 2 == 0
    assert board.ports.read(0x92, 1) & 2
    board.ports.write(0x64, 1, 0xAA)
    assert board.ports.read(0x64, 1) & 1
    assert board.ports.read(0x60, 1) == 0x55
    assert not board.ports.read(0x64, 1) & 1


def test_typed_input_interrupts_on_line_4(board: Board) -> None:
    board.ports.write(0x21, 1, 0xEF)
    board.ports.write(0x3FC, 1, 0x0B)
    board.ports.write(0x3F9, 1, 0x01)
    board.receive(b"k")
    assert board.lapics[0].acknowledge() == 0x08 + 4
    assert board.ports.read(0x3F8, 1) == ord("k")


def test_unknown_port_is_reported(board: Board, listener: Listener) -> None:
    assert board.ports.read(0x1234, 2) == 0xFFFF
    assert listener.said == [("unknown", "port", 0x1234, 2, False)]


def test_a_shared_line_stays_up_until_both_let_go(board: Board) -> None:
    one, two = board.lines.source(5), board.lines.source(5)
    board.ports.write(0x4D0, 1, 1 << 5)  # level-triggered, as shared lines are
    one(True)
    two(True)
    one(False)
    assert board.pic.pending()
    two(False)
    assert not board.pic.pending()
