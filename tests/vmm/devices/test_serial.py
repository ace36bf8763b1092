"""Facts from the PC16550D data sheet: register tables, interrupt control, FIFO operation."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from vmm.devices.serial import Serial

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock, Wire

RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
FCR = IIR


@pytest.fixture
def out() -> bytearray:
    return bytearray()


@pytest.fixture
def uart(clock: HandClock, wire: Wire, out: bytearray) -> Serial:
    port = Serial(clock, out.extend, wire)
    port.write(MCR, 1, 0x0B)  # DTR, RTS, OUT2
    port.read(MSR, 1)
    return port


def test_transmits_and_is_ready_again(uart: Serial, out: bytearray) -> None:
    for byte in b"ok":
        assert uart.read(LSR, 1) & 0x60 == 0x60
        uart.write(RBR, 1, byte)
    assert out == b"ok"


def test_divisor_latch_hides_data_and_ier(uart: Serial, out: bytearray) -> None:
    uart.write(LCR, 1, 0x83)
    uart.write(RBR, 1, 0x34)
    uart.write(IER, 1, 0x12)
    assert (uart.read(RBR, 1), uart.read(IER, 1)) == (0x34, 0x12)
    uart.write(LCR, 1, 0x03)
    assert uart.read(IER, 1) == 0
    assert out == b""


def test_ier_and_mcr_keep_only_their_bits_scr_all(uart: Serial) -> None:
    for register, kept in ((IER, 0x0F), (MCR, 0x1F), (SCR, 0xFF)):
        uart.write(register, 1, 0xFF)
        assert uart.read(register, 1) == kept


def test_thr_empty_interrupt_is_acknowledged_by_reading_iir(uart: Serial, wire: Wire) -> None:
    uart.write(IER, 1, 2)
    assert wire.level, "enabling the interrupt while THR is empty raises it"
    assert uart.read(IIR, 1) == 0x02
    assert not wire.level
    assert uart.read(IIR, 1) == 0x01
    uart.write(RBR, 1, 0x41)
    assert wire.level
    edges = wire.edges
    uart.write(RBR, 1, 0x42)
    assert wire.edges == edges + 1, "each character is a new edge"


def test_received_data_raises_and_reading_clears(uart: Serial, wire: Wire) -> None:
    uart.write(IER, 1, 1)
    uart.receive(b"x")
    assert wire.level
    assert uart.read(IIR, 1) == 0x04
    assert uart.read(LSR, 1) & 1
    assert uart.read(RBR, 1) == ord("x")
    assert not wire.level
    assert not uart.read(LSR, 1) & 1


def test_priorities(uart: Serial) -> None:
    """Line status 6, received 4, THR empty 2, modem status 0."""
    uart.write(MCR, 1, 0x1B)
    uart.read(MSR, 1)
    uart.write(RBR, 1, 1)
    uart.write(RBR, 1, 2)  # overruns the single receive buffer
    uart.write(MCR, 1, 0x18)  # DTR and RTS drop: delta DSR, delta CTS
    uart.write(IER, 1, 0x0F)
    assert uart.read(IIR, 1) == 0x06
    assert uart.read(LSR, 1) & 0x02
    assert uart.read(IIR, 1) == 0x04
    assert uart.read(RBR, 1) == 2, "without FIFO the newer character survives"
    assert uart.read(IIR, 1) == 0x02
    assert uart.read(IIR, 1) == 0x00
    assert uart.read(MSR, 1) & 0x0F == 0x03
    assert uart.read(IIR, 1) == 0x01


def test_no_interrupt_without_out2(uart: Serial, wire: Wire) -> None:
    uart.write(MCR, 1, 0x03)
    uart.write(IER, 1, 1)
    uart.receive(b"x")
    assert not wire.level
    uart.write(MCR, 1, 0x0B)
    assert wire.level


@pytest.mark.parametrize(("bits", "level"), [(0x00, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_fifo_trigger_levels(uart: Serial, wire: Wire, bits: int, level: int) -> None:
    uart.write(FCR, 1, bits | 1)
    uart.write(IER, 1, 1)
    for _ in range(level - 1):
        uart.receive(b"a")
        assert not wire.level
    uart.receive(b"a")
    assert wire.level
    assert uart.read(IIR, 1) == 0xC4


def test_character_timeout_after_four_characters(
    uart: Serial, wire: Wire, clock: HandClock
) -> None:
    uart.write(LCR, 1, 0x80)
    uart.write(RBR, 1, 1)  # 115,200 baud
    uart.write(IER, 1, 0)
    uart.write(LCR, 1, 0x03)  # 8N1: ten bits a character
    uart.write(FCR, 1, 0xC1)
    uart.write(IER, 1, 1)
    uart.receive(b"a")
    assert uart.next_event() == 4 * 10 * 1_000_000_000 // 115_200
    clock.now = uart.next_event() or 0
    uart.fire()
    assert uart.next_event() is None
    assert wire.level
    assert uart.read(IIR, 1) == 0xCC
    uart.read(RBR, 1)
    assert uart.read(IIR, 1) == 0xC1


def test_host_input_waits_behind_a_full_fifo(uart: Serial) -> None:
    uart.write(FCR, 1, 1)
    text = bytes(range(64, 104))
    uart.receive(text)
    assert uart.waiting() == 40 - 16
    got = bytearray()
    while uart.read(LSR, 1) & 1:
        got.append(uart.read(RBR, 1))
    assert got == text
    assert not uart.read(LSR, 1) & 2, "a queue of any length never overruns"


def test_loopback_overrun_keeps_the_fifo(uart: Serial, out: bytearray) -> None:
    uart.write(FCR, 1, 1)
    uart.write(MCR, 1, 0x10)
    for value in range(17):
        uart.write(RBR, 1, value)
    assert uart.read(LSR, 1) & 0x03 == 0x03
    assert not uart.read(LSR, 1) & 0x02, "reading LSR clears the error"
    assert [uart.read(RBR, 1) for _ in range(16)] == list(range(16))
    assert out == b""


@pytest.mark.parametrize(("mcr", "msr"), [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)])
def test_loopback_modem_lines(uart: Serial, mcr: int, msr: int) -> None:
    uart.write(MCR, 1, 0x10 | mcr)
    assert uart.read(MSR, 1) & 0xF0 == msr


def test_ring_trailing_edge(uart: Serial) -> None:
    uart.write(MCR, 1, 0x14)
    assert not uart.read(MSR, 1) & 0x04
    uart.write(MCR, 1, 0x10)
    assert uart.read(MSR, 1) & 0x04


def test_fcr_bit_0_clears_fifo_and_shows_in_iir(uart: Serial) -> None:
    uart.write(FCR, 1, 1)
    assert uart.read(IIR, 1) == 0xC1
    uart.receive(b"abc")
    uart.write(FCR, 1, 3)
    assert not uart.read(LSR, 1) & 1
    uart.write(FCR, 1, 0xC0)  # bit 0 clear: the rest is ignored, FIFOs off
    assert uart.read(IIR, 1) == 0x01


def test_break_is_seen_with_its_character(uart: Serial) -> None:
    uart.write(FCR, 1, 1)
    uart.receive(b"a")
    uart.receive_break()
    assert uart.read(LSR, 1) & 0x90 == 0x80, "in the FIFO, not yet at its top"
    uart.read(RBR, 1)
    assert uart.read(LSR, 1) & 0x10
    assert uart.read(RBR, 1) == 0


def test_shortcuts_do_what_the_registers_do(clock: HandClock) -> None:
    chance = random.Random(5)
    full, short = bytearray(), bytearray()
    levels: tuple[list[bool], list[bool]] = [], []
    ours = Serial(clock, short.extend, levels[0].append)
    judge = Serial(clock, full.extend, levels[1].append)
    taken = 0
    for _ in range(4000):
        offset, value = chance.choice((0, 0, 0, 1, 2, 3, 4, 5, 5, 5)), chance.randrange(256)
        if chance.random() < 0.05:
            ours.receive(b"x")
            judge.receive(b"x")
        if chance.random() < 0.5:
            quick = ours.poll_line(value) if offset == 5 else -1
            taken += quick >= 0
            assert (quick if quick >= 0 else ours.read(offset, 1)) == judge.read(offset, 1)
        else:
            value &= chance.choice((0, 0x0F, 0xFF))
            if offset or ours.transmit(value) < 0:
                ours.write(offset, 1, value)
            else:
                taken += 1
            judge.write(offset, 1, value)
        assert ours.save() == judge.save()
    assert (short, taken > 100) == (full, True)
    assert levels[0][-1] == levels[1][-1]
