"""The 8042 and its keyboard, asked as Linux's i8042 and atkbd drivers and a BIOS ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmm.devices.i8042 import KeyboardController
from vmm.devices.keys import CHORDS, SET_1, chords

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import Wire

DATA, STATUS = 0, 4
FULL, COMMAND_LAST, NOT_LOCKED = 0x01, 0x08, 0x10


class Machine:
    def __init__(self, wire: Wire) -> None:
        self.resets = 0
        self.i8042 = KeyboardController(self.reset, wire)

    def reset(self) -> None:
        self.resets += 1

    def command(self, *values: int) -> None:
        self.i8042.write(STATUS, 1, values[0])
        for value in values[1:]:
            self.i8042.write(DATA, 1, value)

    def keyboard(self, *values: int) -> None:
        for value in values:
            self.i8042.write(DATA, 1, value)

    def drain(self) -> list[int]:
        found = []
        while self.i8042.read(STATUS, 1) & FULL:
            found.append(self.i8042.read(DATA, 1))
        return found


@pytest.fixture
def machine(wire: Wire) -> Machine:
    return Machine(wire)


def test_self_tests(machine: Machine) -> None:
    machine.command(0xAA)
    assert machine.drain() == [0x55]
    machine.command(0xAB)
    assert machine.drain() == [0x00], "a keyboard is plugged in"
    machine.command(0xA9)
    assert machine.drain() == [0x01], "a mouse is not"
    assert machine.i8042.read(STATUS, 1) & NOT_LOCKED


def test_the_status_tells_command_from_data(machine: Machine) -> None:
    machine.command(0xAE)
    assert machine.i8042.read(STATUS, 1) & COMMAND_LAST
    machine.keyboard(0xEE)
    assert not machine.i8042.read(STATUS, 1) & COMMAND_LAST


def test_the_mode_reads_back(machine: Machine) -> None:
    machine.command(0x60, 0x65)
    machine.command(0x20)
    assert machine.drain() == [0x65]


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        ((0xFF,), [0xFA, 0xAA]),
        ((0xF2,), [0xFA, 0xAB, 0x83]),
        ((0xED, 0x07), [0xFA, 0xFA]),
        ((0xF3, 0x20), [0xFA, 0xFA]),
        ((0xF0, 0x00), [0xFA, 0xFA, 0x02]),
        ((0xF4,), [0xFA]),
        ((0xEE,), [0xEE]),
        ((0x00,), [0xFE]),
        ((0xEE, 0xFE), [0xEE, 0xEE]),
    ],
)
def test_keyboard_commands(machine: Machine, sent: tuple[int, ...], answers: list[int]) -> None:
    machine.command(0x60, 0x01)  # no translation
    machine.keyboard(*sent)
    assert machine.drain() == answers


def test_typing_gives_set_1_with_translation(machine: Machine) -> None:
    machine.i8042.type(b"aB")
    assert machine.drain() == [0x1E, 0x9E, 0x2A, 0x30, 0xB0, 0xAA]


def test_typing_gives_set_2_without(machine: Machine) -> None:
    machine.command(0x60, 0x01)
    machine.i8042.type(b"a\x1b[A")
    assert machine.drain() == [0x1C, 0xF0, 0x1C, 0xE0, 0x75, 0xE0, 0xF0, 0x75]


def test_extended_keys_keep_their_prefix(machine: Machine) -> None:
    machine.i8042.type(b"\x1b[D")
    assert machine.drain() == [0xE0, 0x4B, 0xE0, 0xCB]


def test_each_byte_is_an_edge(machine: Machine, wire: Wire) -> None:
    machine.i8042.type(b"ab")
    for expected in range(1, 5):
        assert wire.edges == expected
        assert wire.level
        machine.i8042.read(DATA, 1)
    assert not wire.level


def test_interrupts_can_be_off(machine: Machine, wire: Wire) -> None:
    machine.command(0x60, 0x40)
    machine.i8042.type(b"a")
    assert wire.edges == 0
    assert machine.drain() == [0x1E, 0x9E]


def test_a_stopped_keyboard_keeps_its_keys(machine: Machine) -> None:
    machine.command(0xAD)
    machine.i8042.type(b"a")
    assert machine.drain() == []
    machine.command(0xAE)
    assert machine.drain() == [0x1E, 0x9E]


def test_a_disabled_keyboard_does_not_scan(machine: Machine) -> None:
    machine.keyboard(0xF5)
    assert machine.drain() == [0xFA]
    machine.i8042.type(b"a")
    assert machine.drain() == []


def test_pasting_a_book_is_bounded(machine: Machine) -> None:
    machine.i8042.type(b"x" * 100_000)
    assert 1000 < len(machine.drain()) < 5000


@pytest.mark.parametrize("how", [(0xFE,), (0xD1, 0x02), (0xF0,)])
def test_the_reset_line(machine: Machine, how: tuple[int, ...]) -> None:
    machine.command(*how)
    assert machine.resets == 1


def test_every_printable_character_has_a_key() -> None:
    assert all(len(chords(bytes([code]))) == 1 for code in range(32, 127))
    assert all(code & 0xFF in SET_1 for chord in CHORDS.values() for code in chord)


def test_control_letters_and_sequences() -> None:
    assert chords(b"\x03") == [(0x14, 0x21)], "ctrl, c"
    assert chords(b"\r\x7f\t") == [(0x5A,), (0x66,), (0x0D,)]
    assert chords(b"\x1b") == [(0x76,)]
    assert chords(b"\x1b[15~q") == [(0x03,), (0x15,)]
    assert chords(b"\xc3\xa4z") == [(0x1A,)], "what no key has is left out"
